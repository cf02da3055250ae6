//! Upgrade confusion: two sides that disagree on whether a connection was switched, so that what one of them takes for
//! frames is another's request. Only a handshake that was checked, and a 101 that was checked, ever joins two sides.

use crate::support::wire::{KEY, accept, handshake, handshake_with, switching};
use crate::support::{BOTH, Proxy, Served, Setup, Upstream, Wire, noise, sha256};

/// The raw upstream for `/`, and another one, `other`, for `/other`.
async fn with_another(upstream: &Upstream, other: &Served) -> Proxy {
    let tables = format!(
        "[upstream.other]\nendpoints = [\"{}\"]\n[[route]]\npath = \"/other\"\nupstream = \"other\"",
        other.endpoint()
    );
    Setup::to(upstream.endpoint()).also(&tables).start().await
}

/// What the upstream got of a handshake, and its leg; the answer is still to come.
async fn asked(upstream: &Upstream) -> Wire {
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg
}

/// A 426 from an upstream that then keeps its socket open: the client's next request is parsed, finds its own route and
/// reaches the other upstream; nothing more comes to the first one (the "websocket smuggling" of 0ang3el, where a proxy
/// takes any answer for a tunnel; RFC 9110 §15.5.22).
#[tokio::test]
async fn a_426_does_not_make_a_tunnel() {
    let upstream = Upstream::raw().await;
    let other = Served::named("the other").await;
    let proxy = with_another(&upstream, &other).await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/")).await;
        let mut leg = asked(&upstream).await;
        leg.send(
            "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nContent-Length: 2\r\n\r\nno",
        )
        .await;
        let answer = client.response().await;
        assert_eq!((answer.status(), &*answer.body), (426, "no"));
        assert_eq!(answer.head.field("sec-websocket-version"), Some("13"));
        assert_eq!(client.get("/other").await.body, "the other");
        leg.expect_end().await;
        client.get("/other/%2e%2e/x").await.refused(400, "path");
    }
}

/// The same with 401, with 403, and with a 404 whose body is 10 MB: relayed whole, and what comes next on the connection
/// is judged afresh, by its own route and upstream (RFC 6455 §4.2.2).
#[tokio::test]
async fn after_a_refusal_with_a_body_the_next_request_is_judged_afresh() {
    let upstream = Upstream::raw().await;
    let other = Served::named("the other").await;
    let proxy = with_another(&upstream, &other).await;
    let body: String = noise(7, 5_000_000).iter().map(|byte| format!("{byte:02x}")).collect();
    for over in BOTH {
        for (status, body) in
            [("401 Unauthorized", "who"), ("403 Forbidden", ""), ("404 Not Found", &*body)]
        {
            let mut client = proxy.connect(over).await;
            client.send(handshake("/")).await;
            let mut leg = asked(&upstream).await;
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            let (answered, ()) = tokio::join!(client.response(), leg.send(&answer));
            assert_eq!(answered.head.first(), format!("HTTP/1.1 {status}"));
            assert_eq!(sha256(answered.body), sha256(body));
            leg.expect_end().await;
            assert_eq!(client.get("/other").await.body, "the other");
            client.send(handshake("/").replace("Version: 13", "Version: 8")).await;
            client.response().await.refused(426, "version");
        }
    }
    upstream.expect_untouched().await;
}

/// A 200 that repeats `Upgrade: websocket` and the right accept is a 200 (Envoy's CVE-2024-23326: it took such an answer
/// for a switch, and what the client sent then went through unread).
#[tokio::test]
async fn a_200_that_looks_like_a_switch_is_a_200() {
    let upstream = Upstream::raw().await;
    let other = Served::named("the other").await;
    let proxy = with_another(&upstream, &other).await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/")).await;
        let mut leg = asked(&upstream).await;
        let as_200 = switching(&accept(KEY), "Content-Length: 2\r\n").replacen(
            "101 Switching Protocols",
            "200 OK",
            1,
        );
        leg.send(as_200 + "ok").await;
        let answer = client.response().await;
        assert_eq!((answer.status(), &*answer.body), (200, "ok"));
        assert_eq!((answer.head.field("upgrade"), answer.head.field("connection")), (None, None));
        client.send("GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(client.response().await.body, "the other");
        leg.expect_end().await;
    }
}

/// Requests that are refused before any upstream is asked, with the status and what its text names: POST, no key, keys
/// that are not 16 bytes of base64, two keys, version 8, two versions, none, a body (RFC 6455 §4.2.1 and §4.4, RFC 9110
/// §7.8). Node's and Python's servers once took a POST for a handshake, and left its body in front of the frames.
#[tokio::test]
async fn what_is_no_handshake_is_refused_before_the_upstream_hears_of_it() {
    let (proxy, upstream) = Proxy::scripted().await;
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let version = "Sec-WebSocket-Version: 13\r\n";
    for over in BOTH {
        for (request, status, reason) in [
            (handshake("/").replacen("GET", "POST", 1), 400, "GET"),
            (handshake("/").replacen("GET", "PUT", 1), 400, "GET"),
            (handshake("/").replace(&key, ""), 400, "Sec-WebSocket-Key"),
            (handshake("/").replace(KEY, "c2hvcnQ="), 400, "Sec-WebSocket-Key"),
            (handshake("/").replace(KEY, "dGhlIHNhbXBsZSBub25jZWU="), 400, "Sec-WebSocket-Key"),
            (handshake("/").replace(KEY, "dGhlIHNhbXBsZSBub25jZ_=="), 400, "Sec-WebSocket-Key"),
            (handshake_with("/", &key), 400, "Sec-WebSocket-Key"),
            (handshake("/").replace(version, "Sec-WebSocket-Version: 8\r\n"), 426, "version"),
            (handshake_with("/", "Sec-WebSocket-Version: 8\r\n"), 426, "version"),
            (handshake("/").replace(version, ""), 400, "Sec-WebSocket-Version"),
            (handshake_with("/", "Content-Length: 5\r\n") + "hello", 400, "body"),
            (handshake_with("/", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400, "body"),
        ] {
            let mut client = proxy.connect(over).await;
            client.send(&request).await;
            let answer = client.response().await;
            answer.refused(status, reason);
            let named = (status == 426).then_some("13");
            assert_eq!(answer.head.field("sec-websocket-version"), named, "{request}");
        }
    }
    upstream.expect_untouched().await;
}

/// A request that is pipelined behind a refused handshake with a body is not read out of that body: the connection is
/// closed (RFC 9110 §7.8, RFC 9112 §9.3).
#[tokio::test]
async fn a_body_behind_a_handshake_is_no_request() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let length = smuggled.len();
        let mut client = proxy.connect(over).await;
        let head = handshake_with("/", &format!("Content-Length: {length}\r\n"));
        client.send(head + smuggled).await;
        client.response().await.refused(400, "body");
        client.expect_end().await;
    }
    upstream.expect_untouched().await;
}

/// A 101 that RFC 6455 §4.1 lets no client take: a 502, both sides closed, and nothing of what either sent behind it is
/// relayed. That of CVE-2024-23326's kin: a wrong accept, none, two, another protocol, two protocols, a subprotocol or an
/// extension that were never offered, the word of a body (RFC 9112 §6.1).
#[tokio::test]
async fn a_101_that_fails_the_check_joins_nobody() {
    let (proxy, upstream) = Proxy::scripted().await;
    let good = switching(&accept(KEY), "");
    let accepting = format!("Sec-WebSocket-Accept: {}\r\n", accept(KEY));
    let with = |line: &str| switching(&accept(KEY), line);
    for over in BOTH {
        for answer in [
            good.replace(&accepting, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xO0=\r\n"),
            good.replace(&accepting, ""),
            with(&accepting),
            good.replace("Upgrade: websocket", "Upgrade: other"),
            good.replace("Upgrade: websocket", "Upgrade: h2c, websocket"),
            with("Upgrade: h2c\r\n"),
            with("Sec-WebSocket-Protocol: chat\r\n"),
            with("Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            with("Transfer-Encoding: chunked\r\n"),
            with("Content-Length: 5\r\n"),
        ] {
            let mut client = proxy.connect(over).await;
            client.send(handshake("/") + "early bytes of the client").await;
            let mut leg = asked(&upstream).await;
            leg.send(format!("{answer}early bytes of the upstream")).await;
            let refusal = client.response().await;
            refusal.refused(502, "upstream");
            assert_eq!(leg.rest().await.0, b"", "after {answer}");
            // What came behind the handshake is no request, and the connection ends with saying so.
            let (rest, _) = client.rest().await;
            let rest = String::from_utf8_lossy(&rest);
            assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400 "), "{rest} after {answer}");
        }
    }
}

/// A 101 to a request that asked for none: 502, the leg closed, and the client's next request goes its own way.
#[tokio::test]
async fn a_101_that_nobody_asked_for_joins_nobody() {
    let upstream = Upstream::raw().await;
    let other = Served::named("the other").await;
    let proxy = with_another(&upstream, &other).await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = asked(&upstream).await;
        leg.send(switching(&accept(KEY), "") + "bytes").await;
        client.response().await.refused(502, "upstream");
        leg.expect_end().await;
        assert_eq!(client.get("/other").await.body, "the other");
    }
}

/// A request that is pipelined behind a handshake stays here until the upstream has said 101, and goes nowhere when it
/// refuses but to its own route (CVE-2026-2833: Pingora forwarded it at once, past every check).
#[tokio::test]
async fn a_request_behind_a_handshake_does_not_slip_past_the_101() {
    let upstream = Upstream::raw().await;
    let other = Served::named("the other").await;
    let proxy = with_another(&upstream, &other).await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/") + "GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = asked(&upstream).await;
        leg.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 403);
        leg.expect_end().await;
        assert_eq!(client.response().await.body, "the other");
    }
}

/// `Upgrade: h2c` with its settings, in whatever spelling and with `Connection` naming them or not, is an ordinary
/// request: neither of the fields goes on, and no 101 comes of it (Bishop Fox's h2c smuggling; RFC 9113 §3.1).
#[tokio::test]
async fn only_websocket_is_ever_upgraded_to() {
    let (proxy, upstream) = Proxy::scripted().await;
    let settings = "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    for over in BOTH {
        for lines in [
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade\r\nConnection: HTTP2-Settings\r\nUpgrade: foo, h2c\r\n",
            "Connection: upgrade\r\nUpgrade: foo\r\nUpgrade: ,H2C\r\n",
            "Upgrade: h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: websocketx\r\n",
        ] {
            let mut client = proxy.connect(over).await;
            client
                .send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}{settings}\r\n"))
                .await;
            let mut leg = upstream.accept().await;
            let head = leg.head().await;
            for name in ["upgrade", "connection", "http2-settings"] {
                assert_eq!(head.fields(name), [""; 0], "{lines}");
            }
            leg.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            )
            .await;
            client.response().await.refused(502, "upstream");
            leg.expect_end().await;
        }
    }
}

/// A handshake that also names h2c is one for a WebSocket alone, at the upstream too.
#[tokio::test]
async fn h2c_beside_websocket_goes_no_further() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let lines = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
        let mut client = proxy.connect(over).await;
        client.send(handshake_with("/", lines)).await;
        let asked = upstream.accept().await.accept().await;
        assert_eq!(asked.fields("upgrade"), ["websocket"]);
        assert_eq!(asked.fields("connection"), ["Upgrade"]);
        assert_eq!(asked.field("http2-settings"), None);
        assert_eq!(client.head().await.status(), Some(101));
    }
}
