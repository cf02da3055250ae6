//! Headers that are meant to be read in two ways: names that imitate ours, `Connection` as an eraser, answers that say
//! twice, or not at all, where they end.

use crate::support::wire::{Head, KEY, accept, handshake, handshake_with, switching};
use crate::support::{BOTH, Over, Proxy, Setup, Upstream, Wire};

/// What the upstream sees of a GET with these header lines, and then answers with 204.
async fn seen(proxy: &Proxy, over: Over, upstream: &Upstream, lines: &str) -> Head {
    let mut client = proxy.connect(over).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: localhost:81\r\n{lines}\r\n")).await;
    let mut leg = upstream.accept().await;
    let head = leg.head().await;
    leg.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.head().await.status(), Some(204));
    head
}

/// Sends a request, and returns the client and the leg on which the upstream has read it.
async fn asked(proxy: &Proxy, over: Over, upstream: &Upstream, request: &str) -> (Wire, Wire) {
    let mut client = proxy.connect(over).await;
    client.send(request).await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    (client, leg)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// `Connection` names what is for this hop, and takes nothing from the message that all are to see: not the host, the
/// cookies, the credentials, the origin, the way it came (RFC 9110 §7.6.1; Apache's CVE-2022-31813, by which a client
/// removed `X-Forwarded-For`).
#[tokio::test]
async fn connection_erases_nothing_that_matters() {
    let (proxy, upstream) = Proxy::scripted().await;
    let lines = "Connection: X-Forwarded-For, x-forwarded-proto, X-FORWARDED-HOST, X-Real-IP\r\n\
                 Connection: Host, Cookie,, Authorization ,\tOrigin, Via, X-Mine\r\n\
                 Cookie: a=1\r\nAuthorization: Basic eA==\r\nOrigin: https://a.example\r\n\
                 Via: 1.0 fred\r\nX-Mine: 1\r\n";
    for over in BOTH {
        let head = seen(&proxy, over, &upstream, lines).await;
        for (name, value) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", if over == Over::Tls { "https" } else { "http" }),
            ("x-forwarded-host", "localhost:81"),
            ("host", "localhost:81"),
            ("cookie", "a=1"),
            ("authorization", "Basic eA=="),
            ("origin", "https://a.example"),
        ] {
            assert_eq!(head.field(name), Some(value));
        }
        assert_eq!(head.fields("via"), ["1.0 fred", "1.1 tidegate"]);
        assert_eq!((head.field("x-mine"), head.field("connection")), (None, None));
    }
}

/// The same where the peer is trusted with the way its clients came: one of them may have written `Connection`.
#[tokio::test]
async fn connection_does_not_erase_what_a_trusted_peer_says() {
    let upstream = Upstream::raw().await;
    let proxy =
        Setup::to(upstream.endpoint()).listener("trusted = [\"127.0.0.0/8\"]").start().await;
    let lines = "Connection: close, X-Forwarded-For, X-Real-IP, Forwarded\r\nX-Forwarded-For: 192.0.2.7\r\n\
                 X-Real-IP: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\nX_Forwarded_For: 6.6.6.6\r\n";
    for over in BOTH {
        let head = seen(&proxy, over, &upstream, lines).await;
        assert_eq!(head.field("x-forwarded-for"), Some("192.0.2.7, 127.0.0.1"));
        assert_eq!(head.field("x-real-ip"), Some("192.0.2.7"));
        assert_eq!(head.field("forwarded"), Some("for=192.0.2.7"));
        assert_eq!(head.field("x_forwarded_for"), None, "an imitation passed");
    }
}

/// A handshake goes on as it was judged, whatever its `Connection` names (RFC 6455 §4.2.1).
#[tokio::test]
async fn connection_does_not_erase_the_handshake() {
    let (proxy, upstream) = Proxy::scripted().await;
    let names = "Connection: Upgrade, Sec-WebSocket-Key, Sec-WebSocket-Version, sec-websocket-protocol, \
                 Sec-WebSocket-Extensions, Origin, Upgrade\r\n";
    let lines = "Origin: https://a.example\r\nSec-WebSocket-Protocol: chat\r\n\
                 Sec-WebSocket-Extensions: x-odd\r\n";
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake_with("/", lines).replace("Connection: Upgrade\r\n", names)).await;
        let head = upstream.accept().await.accept().await;
        assert_eq!(head.field("sec-websocket-key"), Some(KEY));
        assert_eq!(head.field("sec-websocket-version"), Some("13"));
        for line in lines.lines().chain(["Connection: Upgrade", "Upgrade: websocket"]) {
            assert!(
                head.text.contains(&format!("\r\n{line}\r\n")),
                "{line} is missing in {head:?}"
            );
        }
        assert_eq!(client.head().await.status(), Some(101));
    }
}

/// Names with underscores, which CGI and its heirs read as ours or as a length, are dropped; others pass (CVE-2019-11358's
/// kin: WSGI, Rack and PHP fold `_` and `-`; nginx drops all of them for that reason).
#[tokio::test]
async fn imitations_in_underscores_are_dropped() {
    let (proxy, upstream) = Proxy::scripted().await;
    let lines = "X_Forwarded_For: 6.6.6.6\r\nx-forwarded_for: 6.6.6.6\r\nX_FORWARDED-PROTO: gopher\r\n\
                 X_Forwarded_Host: evil.example\r\nX_Forwarded_Port: 1\r\nX_Real_IP: 6.6.6.6\r\n\
                 Content_Length: 5\r\nTransfer_Encoding: chunked\r\nUser_Id: 7\r\n";
    for over in BOTH {
        let head = seen(&proxy, over, &upstream, lines).await;
        let text = head.text.to_lowercase();
        let folded =
            ["x_forw", "x-forwarded_", "x_real", "content_", "transfer_", "6.6.6.6", "evil"];
        for imitation in folded {
            assert!(!text.contains(imitation), "{imitation} in {head:?}");
        }
        assert_eq!(head.field("user_id"), Some("7"));
        assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    }
}

/// A list is one list over all its lines, in any case, with empty items, and with items that are no tokens (RFC 9110
/// §5.6.1): what it names is removed all the same.
#[tokio::test]
async fn connection_is_one_list_over_all_its_lines() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        let mut request =
            b"GET / HTTP/1.1\r\nHost: localhost\r\nCONNECTION: ,, keep-alive ,X-ONE,\r\n".to_vec();
        request.extend_from_slice(b"Connection:\r\nconnection: \xff, \"q\",\tx-tWo\r\n");
        request.extend_from_slice(b"x-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\n\r\n");
        client.send(request).await;
        let head = upstream.accept().await.head().await;
        assert_eq!((head.field("x-one"), head.field("x-two")), (None, None), "{head:?}");
        assert_eq!((head.field("x-three"), head.field("connection")), (Some("3"), None));
    }
}

/// The lists of a handshake may be in several lines, have empty items, and any case (RFC 9110 §5.3 and §5.6.1); one line of
/// each goes on.
#[tokio::test]
async fn the_lists_of_a_handshake_may_be_split() {
    let (proxy, upstream) = Proxy::scripted().await;
    let split = "Connection: ,keep-alive\r\nUPGRADE: foo,\r\nconnection: \t,uPgRaDe,,\r\nUpgrade: ,, WebSocket";
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        let whole = "Connection: Upgrade\r\nUpgrade: websocket";
        client.send(handshake("/").replace(whole, split)).await;
        let head = upstream.accept().await.accept().await;
        assert_eq!(
            (head.fields("upgrade"), head.fields("connection")),
            (vec!["websocket"], vec!["Upgrade"])
        );
        assert_eq!(client.head().await.status(), Some(101));
    }
}

/// `Connection: close, Upgrade` opens a session: it is closed at its end anyway (RFC 9110 §7.8).
#[tokio::test]
async fn a_handshake_may_say_close_as_well() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        let request = handshake("/").replace("Connection: Upgrade", "Connection: close, Upgrade");
        client.send(request).await;
        let mut leg = upstream.accept().await;
        assert_eq!(leg.accept().await.fields("connection"), ["Upgrade"]);
        assert_eq!(client.head().await.status(), Some(101));
        client.send("up").await;
        leg.expect("up").await;
    }
}

/// `Connection: upgrade` without `Upgrade`, `Upgrade` without anything else of a handshake, a handshake in HTTP/1.0: each
/// an ordinary request, without what is left over of one (RFC 9110 §7.8, RFC 6455 §4.2.1).
#[tokio::test]
async fn half_a_handshake_is_an_ordinary_request() {
    let (proxy, upstream) = Proxy::scripted().await;
    let request = |lines: &str| format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    for over in BOTH {
        for request in [
            request("Connection: upgrade\r\n"),
            request("Connection: upgrade\r\nSec-WebSocket-Version: 13\r\n"),
            request("Upgrade: websocket\r\n"),
            request(
                "Upgrade: websocket\r\nConnection: keep-alive\r\nSec-WebSocket-Version: 13\r\n",
            ),
            handshake("/").replace("HTTP/1.1", "HTTP/1.0"),
        ] {
            let mut client = proxy.connect(over).await;
            client.send(&request).await;
            let mut leg = upstream.accept().await;
            let head = leg.head().await;
            assert_eq!(head.first(), "GET / HTTP/1.1");
            assert_eq!(
                (head.field("upgrade"), head.field("connection")),
                (None, None),
                "{request}"
            );
            leg.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain")
                .await;
            assert!(client.until("\r\n\r\n").await.starts_with(b"HTTP/1."));
            client.expect("plain").await;
        }
    }
}

/// A CR or a NUL in a value of the upstream's, to a request and to a handshake: 502, nothing passed, the connection
/// closed (RFC 9110 §5.5). An LF ends a line (RFC 9112 §2.2): what stands behind it would be a header, and is none here.
#[tokio::test]
async fn a_control_character_in_an_answer_is_a_502() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        for request in [GET.to_owned(), handshake("/")] {
            for line in
                ["X-A: a\rb", "X-A: a\0b", "X-A: a\nb", "X-A: a\r\r", "X-A: \x01", "X\0A: b"]
            {
                let (mut client, mut leg) = asked(&proxy, over, &upstream, &request).await;
                let length = "Content-Length: 6";
                leg.send(format!("HTTP/1.1 200 OK\r\n{length}\r\n{line}\r\n\r\nsecret")).await;
                let answer = client.response().await;
                answer.refused(502, "upstream");
                assert!(!answer.body.contains("secret"), "{line:?}");
                leg.expect_end().await;
            }
        }
    }
}

/// A 101 may say that nothing follows, and no more of a body than that (RFC 9110 §8.6, RFC 9112 §6.1); the client does
/// not hear of it. One that says more is in `upgrade_confusion`.
#[tokio::test]
async fn a_101_may_have_a_length_of_nothing() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/")).await;
        upstream.accept().await.accept_with("Content-Length: 0\r\n").await;
        let head = client.head().await;
        assert_eq!((head.status(), head.field("content-length")), (Some(101), None));
    }
}

/// Interim answers before the final one, to a request and to a handshake: they do not count as it, and leave nothing of
/// their headers in it (RFC 9110 §15.2, RFC 8297).
#[tokio::test]
async fn interim_answers_are_not_the_answer() {
    let (proxy, upstream) = Proxy::scripted().await;
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\
                   Upgrade: websocket\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    for over in BOTH {
        let (mut client, mut leg) = asked(&proxy, over, &upstream, GET).await;
        leg.send(interim).await;
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        let answer = client.response().await;
        assert_eq!((answer.status(), &*answer.body, answer.head.field("link")), (200, "ok", None));

        let (mut client, mut leg) = asked(&proxy, over, &upstream, &handshake("/")).await;
        leg.send(interim).await;
        leg.send(switching(&accept(KEY), "") + "down").await;
        let head = client.head().await;
        assert_eq!((head.status(), head.field("link")), (Some(101), None));
        client.expect("down").await;
        client.send("up").await;
        leg.expect("up").await;
    }
}

/// Twenty cookies are twenty lines, in their order, in the answer to a request and to a handshake: a joined `Set-Cookie`
/// is another one (RFC 6265 §3).
#[tokio::test]
async fn cookies_stay_apart_and_in_order() {
    let (proxy, upstream) = Proxy::scripted().await;
    let cookies: Vec<String> =
        (0..20).map(|n| format!("c{n}={n}; Expires=Wed, 09 Jun 2027 10:18:14 GMT")).collect();
    let lines: String = cookies.iter().map(|cookie| format!("Set-Cookie: {cookie}\r\n")).collect();
    for over in BOTH {
        let (mut client, mut leg) = asked(&proxy, over, &upstream, GET).await;
        leg.send(format!("HTTP/1.1 204 No Content\r\n{lines}Connection: close\r\n\r\n")).await;
        assert_eq!(client.head().await.fields("set-cookie"), cookies);

        let (mut client, mut leg) = asked(&proxy, over, &upstream, &handshake("/")).await;
        leg.send(switching(&accept(KEY), &lines)).await;
        assert_eq!(client.head().await.fields("set-cookie"), cookies);
    }
}

/// Answers of which nobody knows where they end, or that are no HTTP: two lengths that differ, a length and chunks (nginx
/// refuses that too), codings besides `chunked`, a folded line, a bad status line, 100,000 headers, one of 1 MB. Each is a
/// 502, to a request and to a handshake, and the connection is not used again (RFC 9112 §5.2, §6.3 and §8).
#[tokio::test]
async fn an_ambiguous_answer_is_a_502_and_ends_its_connection() {
    let (proxy, upstream) = Proxy::scripted().await;
    let many: String = (0..100_000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "a".repeat(1 << 20));
    let ok = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n");
    let answers = [
        ok("Content-Length: 5\r\nContent-Length: 6\r\n"),
        ok("Content-Length: 5, 6\r\n"),
        ok("Content-Length: +5\r\n"),
        ok("Content-Length: 18446744073709551616\r\n"),
        ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ok("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ok("Transfer-Encoding: gzip, chunked\r\n"),
        ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ok("Transfer-Encoding: identity\r\n"),
        ok("Transfer-Encoding : chunked\r\n"),
        ok("Transfer-Encoding: chunked\r\nX-A: 1\r\n folded\r\n"),
        ok("").replacen("HTTP/1.1 200 OK", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", 1),
        ok("").replacen("HTTP/1.1 200 OK", "HTTP/1.1 20 OK", 1),
        ok("").replacen("HTTP/1.1 200 OK", "HTTP/1.1 OK", 1),
        ok("").replacen("HTTP/1.1 200 OK", "HTTP/1.1 099 OK", 1),
        ok("").replacen("HTTP/1.1 200 OK", "HTTP/2.0 200 OK", 1),
        ok("").replacen("HTTP/1.1 200 OK", "ICY 200 OK", 1),
        ok(&many),
        ok(&large),
    ];
    for (over, answer) in BOTH.into_iter().flat_map(|over| answers.iter().map(move |a| (over, a))) {
        for request in [GET.to_owned(), handshake("/")] {
            let (mut client, mut leg) = asked(&proxy, over, &upstream, &request).await;
            // The proxy need not read it to its end.
            let _ = leg.try_send(answer).await;
            client.response().await.refused(502, "upstream");
            assert_eq!(leg.rest().await.0, b"");
        }
    }
}

/// A length that is said twice is one (RFC 9110 §8.6), and the client sees it once.
#[tokio::test]
async fn the_same_length_twice_is_one() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        for lengths in ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5"] {
            let (mut client, mut leg) = asked(&proxy, over, &upstream, GET).await;
            leg.send(format!("HTTP/1.1 200 OK\r\n{lengths}\r\nConnection: close\r\n\r\nhello"))
                .await;
            let answer = client.response().await;
            assert_eq!((answer.head.fields("content-length"), &*answer.body), (vec!["5"], "hello"));
        }
    }
}

/// What an upstream sends behind the end of an answer is nobody's answer: the next client's request goes over another
/// connection (the "response queue poisoning" of request smuggling; RFC 9112 §9.2).
#[tokio::test]
async fn bytes_behind_an_answer_are_no_answer() {
    let (proxy, upstream) = Proxy::scripted().await;
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for over in BOTH {
        for (request, answer) in [
            (GET.to_owned(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            (GET.to_owned(), "HTTP/1.1 204 No Content\r\n\r\n"),
            (GET.to_owned(), "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            (GET.to_owned(), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            (GET.replacen("GET", "HEAD", 1), "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ] {
            let (mut client, mut leg) = asked(&proxy, over, &upstream, &request).await;
            leg.send(format!("{answer}{poison}")).await;
            client.head().await;
            leg.rest().await;
            let (mut victim, mut leg) = asked(&proxy, over, &upstream, GET).await;
            leg.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhonest")
                .await;
            assert_eq!(victim.response().await.body, "honest", "after {answer}");
        }
    }
}
