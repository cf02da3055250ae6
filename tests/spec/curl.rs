//! curl, for plain HTTP and for handshakes made by hand.

use crate::support::programs::{curl, node_upstream};
use crate::support::{BOTH, Over, Proxy, Setup};

/// Keys that people use in their examples, and the answers that RFC 6455 §4.2.2 asks for. The last one has a
/// spare bit set, which a strict base64 decoder would refuse.
const VECTORS: [(&str, &str); 3] = [
    ("MlRAR6bQZi07587UD4H8oA==", "iURIl3uIT+tsPMmZ0x1IVH7EL98="),
    ("w4v7O6xFTi36lq3RNcgctw==", "Oy4NRAQ13jhfONC7bP8dTKb4PTU="),
    ("8ZuOAG3PepR31z9HtJCkso==", "vQCeyABRRt6oKfebHddaBNvaTR4="),
];

/// Does a handshake by hand, with these header lines beside the key and version, until the answer's head is there.
async fn upgrade_by_hand(proxy: &Proxy, over: Over, key: &str, headers: &[&str]) -> String {
    let url = proxy.url(over, "/");
    let key = format!("Sec-WebSocket-Key: {key}");
    let mut arguments =
        vec!["-k", "-i", "--http1.1", "-H", &key, "-H", "Sec-WebSocket-Version: 13"];
    headers.iter().for_each(|header| arguments.extend(["-H", header]));
    arguments.push(&url);
    let curl = curl(&arguments);
    curl.stdout.find("end of the head", str::is_empty).await;
    curl.stdout.text()
}

/// `curl -i http://…` and `curl -k -i https://…` reach the same upstream as a WebSocket does.
#[tokio::test]
async fn curl_gets_from_a_node_upstream() {
    let (_upstream, endpoint) = node_upstream("upstream.js").await;
    let proxy = Proxy::to(&endpoint).await;
    for over in BOTH {
        let answer = curl(&["-k", "-i", &proxy.url(over, "/")]).succeeded().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\n"), "{answer}");
        assert!(answer.ends_with("Http Message: Hello World"), "{answer}");
    }
}

/// curl checks the certificate that tidegate made against the authority that tidegate made.
#[tokio::test]
async fn curl_trusts_the_authority_that_tidegate_made() {
    let proxy = Setup::builtin().start().await;
    let ca = proxy.file("certs/ca.pem");
    let page =
        curl(&["--cacert", &ca.to_string_lossy(), &proxy.url(Over::Tls, "/")]).succeeded().await;
    assert!(page.contains("<html"), "{page}");
    let by_address = proxy.url(Over::Tls, "/").replace("localhost", "127.0.0.1");
    curl(&["--cacert", &ca.to_string_lossy(), &by_address]).succeeded().await;
}

/// The complete handshake of RFC 6455 §4.1 by hand.
#[tokio::test]
async fn curl_upgrades_by_hand_with_connection_upgrade() {
    let (_upstream, endpoint) = node_upstream("upstream.js").await;
    let proxy = Proxy::to(&endpoint).await;
    for (over, (key, accept)) in
        BOTH.into_iter().flat_map(|over| VECTORS.map(|vector| (over, vector)))
    {
        let answer =
            upgrade_by_hand(&proxy, over, key, &["Connection: upgrade", "Upgrade: websocket"])
                .await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(
            answer
                .lines()
                .any(|line| line.eq_ignore_ascii_case(&format!("Sec-WebSocket-Accept: {accept}")))
        );
    }
}

/// A complete handshake that lacks only `Connection: upgrade` is taken as one: two lines of nginx taught people so.
#[tokio::test]
async fn curl_upgrades_by_hand_without_connection_upgrade() {
    let (_upstream, endpoint) = node_upstream("upstream.js").await;
    let proxy = Proxy::to(&endpoint).await;
    for (over, (key, accept)) in
        BOTH.into_iter().flat_map(|over| VECTORS.map(|vector| (over, vector)))
    {
        let answer = upgrade_by_hand(&proxy, over, key, &["Upgrade: websocket"]).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains(accept), "{answer}");
    }
}

/// With `strict_handshake` that is an ordinary request, as RFC 6455 §4.2.1 and RFC 9110 §7.8 would have it.
#[tokio::test]
async fn curl_gets_an_ordinary_answer_where_the_handshake_is_strict() {
    let (_upstream, endpoint) = node_upstream("upstream.js").await;
    let proxy = Setup::to(&endpoint).route("strict_handshake = true").start().await;
    for over in BOTH {
        let answer = upgrade_by_hand(&proxy, over, VECTORS[0].0, &["Upgrade: websocket"]).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let answer = upgrade_by_hand(
            &proxy,
            over,
            VECTORS[0].0,
            &["Upgrade: websocket", "Connection: upgrade"],
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }
}

/// An upload that waits for `100 Continue` (RFC 9110 §10.1.1) and a download, whole.
#[tokio::test]
async fn curl_uploads_and_downloads_a_file() {
    let (_upstream, endpoint) = node_upstream("upstream.js").await;
    let proxy = Proxy::to(&endpoint).await;
    let file = proxy.file("upload");
    std::fs::write(&file, vec![b'x'; 3_000_000]).expect("the folder is ours");
    let upload = format!("@{}", file.display());
    for over in BOTH {
        let arguments =
            ["-k", "-H", "Expect: 100-continue", "--data-binary", &upload, &proxy.url(over, "/")];
        assert_eq!(curl(&arguments).succeeded().await, "Http Message: Hello World");
    }
}
