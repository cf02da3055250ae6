//! The `ws` package of Node.js on both ends: what it says and hears through the proxy is what it would without.

use crate::support::programs::{Program, node, node_upstream};
use crate::support::{BOTH, Over, Proxy};

/// Runs one deed of `client.js` against `upstream.js`, and returns what each of them printed.
async fn talk(deed: &str, over: Over) -> (String, Program) {
    let (upstream, endpoint) = node_upstream("upstream.js").await;
    let proxy = Proxy::to(&endpoint).await;
    let ca = proxy.file("certs/ca.pem");
    let client = node("client.js", &[deed, &proxy.ws_url(over, ""), &ca.to_string_lossy()]);
    (client.succeeded().await, upstream)
}

/// Text in both directions, the upstream's first message included: RFC 6455 §5.6.
#[tokio::test]
async fn node_text_messages_pass() {
    for over in BOTH {
        let (client, _upstream) = talk("text", over).await;
        assert_eq!(client, "Websocket Send: Hello World\ngrüße 🌊\nclosed 1000 ");
    }
}

/// Binary messages on either side of each length encoding: RFC 6455 §5.2.
#[tokio::test]
async fn node_binary_messages_of_every_length_pass() {
    for over in BOTH {
        let (client, _upstream) = talk("binary", over).await;
        let lengths = [0, 1, 125, 126, 65535, 65536, 1_000_003];
        let wanted: String = lengths.iter().map(|length| format!("{length} same\n")).collect();
        assert_eq!(client, wanted + "closed 1000 ");
    }
}

/// Fragments both ways, with a ping between two of them: RFC 6455 §5.4.
#[tokio::test]
async fn node_fragmented_messages_pass() {
    for over in BOTH {
        let (client, _upstream) = talk("fragmented", over).await;
        assert!(client.starts_with("three fragments sent\none two three\n"), "{client}");
    }
}

/// The upstream, not the proxy, answers the client's ping: RFC 6455 §5.5.2.
#[tokio::test]
async fn node_client_pings_the_upstream() {
    for over in BOTH {
        let (client, _upstream) = talk("ping", over).await;
        assert!(client.starts_with("ponged from the client\n"), "{client}");
    }
}

/// The client answers the upstream's ping: RFC 6455 §5.5.3.
#[tokio::test]
async fn node_upstream_pings_the_client() {
    for over in BOTH {
        let (client, _upstream) = talk("pinged", over).await;
        assert!(client.starts_with("ponged from the upstream\n"), "{client}");
    }
}

/// permessage-deflate is agreed end to end and the compressed frames pass as they are: RFC 7692 §7.
#[tokio::test]
async fn node_compression_is_negotiated_end_to_end() {
    for over in BOTH {
        let (client, _upstream) = talk("deflate", over).await;
        assert!(client.starts_with("permessage-deflate\nsame\nsmall on the wire\n"), "{client}");
    }
}

/// The upstream chooses among the subprotocols that the client offered: RFC 6455 §1.9.
#[tokio::test]
async fn node_subprotocol_is_chosen_by_the_upstream() {
    for over in BOTH {
        let (client, _upstream) = talk("subprotocol", over).await;
        assert!(client.starts_with("chat.v2\n"), "{client}");
    }
}

/// Codes 1000 and 4000 with their reasons, as the client sent them: RFC 6455 §7.1.5 and §7.1.6.
#[tokio::test]
async fn node_close_codes_of_the_client_reach_the_upstream() {
    for over in BOTH {
        for (deed, closing) in [("close", "closed 4000 moving on"), ("leave", "closed 1000 done")] {
            let (client, upstream) = talk(deed, over).await;
            assert_eq!(client, closing);
            upstream.stdout.containing(closing).await;
        }
    }
}

/// Codes 1000 and 4000 with their reasons, as the upstream sent them: RFC 6455 §7.1.5 and §7.1.6.
#[tokio::test]
async fn node_close_codes_of_the_upstream_reach_the_client() {
    for over in BOTH {
        for (deed, closing) in [("closed", "closed 4000 not here"), ("left", "closed 1000 bye")] {
            let (client, upstream) = talk(deed, over).await;
            assert_eq!(client, closing);
            upstream.stdout.containing(closing).await;
        }
    }
}
