//! The opening handshake (RFC 6455 §4): what is taken as one, what is refused, and what an upstream may answer.

use std::time::Duration;

use crate::support::wire::{KEY, accept, handshake, handshake_with, switching};
use crate::support::{BOTH, Over, Proxy, Response, Setup, Upstream, noise, sha256};

/// Sends a request, which the proxy must answer without its upstream.
async fn refused_by_proxy(request: &str) -> Response {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send(request).await;
    let response = client.response().await;
    upstream.expect_untouched().await;
    response
}

/// The complete exchange: the upstream's 101 is the client's, with the answer to its own key (§4.2.2).
#[tokio::test]
async fn a_handshake_reaches_the_upstream_and_its_answer_the_client() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        client.send("up").await;
        leg.expect("up").await;
        leg.send("down").await;
        client.expect("down").await;
    }
}

/// Field values are lists and case does not matter: `Connection: keep-alive, Upgrade`, `Upgrade: WebSocket` (§4.2.1).
#[tokio::test]
async fn a_handshake_may_be_spelled_as_browsers_do() {
    let (proxy, upstream) = Proxy::scripted().await;
    let spelled = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nCONNECTION: keep-alive, UPGRADE\r\nuPGRADE: WebSocket\r\n\
         sec-websocket-key: {KEY}\r\nSEC-WEBSOCKET-VERSION: 13\r\n\r\n"
    );
    let mut client = proxy.plain().await;
    client.send(spelled).await;
    upstream.accept().await.accept().await;
    assert_eq!(client.head().await.status(), Some(101));
}

/// Without `Connection: upgrade` it is still one, and goes on with it.
#[tokio::test]
async fn a_handshake_may_lack_connection_upgrade() {
    let (proxy, upstream) = Proxy::scripted().await;
    for (over, connection) in
        BOTH.into_iter().flat_map(|over| [(over, ""), (over, "Connection: keep-alive\r\n")])
    {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/").replace("Connection: Upgrade\r\n", connection)).await;
        let asked = upstream.accept().await.accept().await;
        assert!(asked.is("connection", "upgrade"), "{asked:?}");
        assert_eq!(client.head().await.status(), Some(101));
    }
}

/// With `strict_handshake` it is an ordinary request then, and goes on without `Upgrade` (RFC 9110 §7.8).
#[tokio::test]
async fn a_strict_route_takes_it_as_an_ordinary_request() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route("strict_handshake = true").start().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/").replace("Connection: Upgrade\r\n", "")).await;
    let mut leg = upstream.accept().await;
    assert_eq!(leg.head().await.field("upgrade"), None);
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain").await;
    assert_eq!(client.response().await.body, "plain");
}

/// A key is 22 characters of base64 and `==` (§4.1): anything else is a 400 and does not reach the upstream.
#[tokio::test]
async fn a_malformed_key_is_a_400() {
    for key in [
        "",
        "short==",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ!=",
        "dGhlIHNhbXBsZSBub25jZQ==x",
    ] {
        refused_by_proxy(&handshake("/").replace(KEY, key)).await.refused(400, "Sec-WebSocket-Key");
    }
}

/// So are two keys, and none.
#[tokio::test]
async fn a_handshake_has_exactly_one_key() {
    let twice = handshake_with("/", &format!("Sec-WebSocket-Key: {KEY}\r\n"));
    refused_by_proxy(&twice).await.refused(400, "Sec-WebSocket-Key");
    let never = handshake("/").replace(&format!("Sec-WebSocket-Key: {KEY}\r\n"), "");
    refused_by_proxy(&never).await.refused(400, "Sec-WebSocket-Key");
}

/// The spare bits of a key's last character are nobody's business.
#[tokio::test]
async fn a_key_with_spare_bits_is_a_key() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/").replace(KEY, "8ZuOAG3PepR31z9HtJCkso==")).await;
    upstream.accept().await.accept().await;
    assert_eq!(
        client.head().await.field("sec-websocket-accept"),
        Some("vQCeyABRRt6oKfebHddaBNvaTR4=")
    );
}

/// A version that we do not speak is a 426 that names the one we do: §4.4.
#[tokio::test]
async fn another_version_is_a_426_that_names_13() {
    for version in ["8", "14", "thirteen", ""] {
        let request = handshake("/").replace("Version: 13", &format!("Version: {version}"));
        let response = refused_by_proxy(&request).await;
        response.refused(426, "version");
        assert_eq!(response.head.field("sec-websocket-version"), Some("13"));
    }
}

/// A body would be read as frames by one side and as a body by the other.
#[tokio::test]
async fn a_handshake_with_a_body_is_a_400() {
    let sized = handshake_with("/", "Content-Length: 5\r\n") + "hello";
    refused_by_proxy(&sized).await.refused(400, "body");
    let chunked = handshake_with("/", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n";
    refused_by_proxy(&chunked).await.refused(400, "body");
}

/// HTTP/1.0 has no upgrade: RFC 6455 §4.2.1 asks for 1.1 or higher.
#[tokio::test]
async fn http_1_0_is_not_upgraded() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/").replace("HTTP/1.1", "HTTP/1.0")).await;
    tokio::select! {
        (answer, _) = client.rest() => assert!(answer.starts_with(b"HTTP/1.0 4") || answer.starts_with(b"HTTP/1.1 4")),
        mut leg = upstream.accept() => assert_eq!(leg.head().await.field("upgrade"), None),
    }
}

/// Only GET opens a session (§4.2.1); POST with these fields is refused or goes on without them.
#[tokio::test]
async fn only_get_is_a_handshake() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/").replacen("GET", "POST", 1)).await;
    tokio::select! {
        answer = client.response() => assert_eq!(answer.status(), 400),
        mut leg = upstream.accept() => assert_eq!(leg.head().await.field("upgrade"), None),
    }
}

/// What the upstream answers instead of 101 goes back whole, and the connection serves the next request (§4.2.2).
#[tokio::test]
async fn a_refusal_of_the_upstream_is_relayed_whole() {
    let (proxy, upstream) = Proxy::scripted().await;
    let refusals = [
        ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "log in first"),
        ("302 Found", "Location: https://elsewhere.example/\r\n", ""),
        ("200 OK", "Content-Type: text/html\r\n", "<p>no socket here"),
        ("503 Busy", "Retry-After: 7\r\n", "later"),
    ];
    for (over, (status, line, body)) in
        BOTH.into_iter().flat_map(|over| refusals.map(|refusal| (over, refusal)))
    {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/")).await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        let length = body.len();
        leg.send(format!(
            "HTTP/1.1 {status}\r\n{line}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
        .await;
        let response = client.response().await;
        assert_eq!(
            (response.head.first(), &*response.body),
            (&*format!("HTTP/1.1 {status}"), body)
        );
        assert!(response.head.text.contains(line), "{response:?}");
        client.send("GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        assert_eq!(leg.head().await.first(), "GET /next HTTP/1.1");
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnext").await;
        assert_eq!(client.response().await.body, "next");
    }
}

/// A client that was refused may try again on the same connection, with another handshake.
#[tokio::test]
async fn a_refused_client_may_try_again_on_its_connection() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/")).await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
    assert_eq!(client.response().await.status(), 401);
    client.send(handshake_with("/", "Authorization: Basic eA==\r\n")).await;
    upstream.accept().await.accept().await;
    assert_eq!(client.head().await.status(), Some(101));
}

/// Answers a handshake with `answer`, which is no 101 that RFC 6455 §4.1 lets a client take; the client gets a 502.
async fn bad_answer(asked: &str, answer: impl Fn(&str) -> String) {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send(handshake_with("/", asked)).await;
    let mut leg = upstream.accept().await;
    let head = leg.head().await;
    let key = head.field("sec-websocket-key").expect("a handshake has a key");
    leg.send(answer(&accept(key))).await;
    client.response().await.refused(502, "upstream");
    leg.rest().await;
}

/// The answer to another key.
#[tokio::test]
async fn a_101_with_a_wrong_accept_is_a_502() {
    bad_answer("", |_| switching("s3pPLMBiTxaQ9kYGzzhZRbK+xO0=", "")).await;
}

/// No answer to the key.
#[tokio::test]
async fn a_101_without_accept_is_a_502() {
    bad_answer("", |accept| {
        switching(accept, "").replace(&format!("Sec-WebSocket-Accept: {accept}\r\n"), "")
    })
    .await;
}

/// A switch to something else.
#[tokio::test]
async fn a_101_to_another_protocol_is_a_502() {
    bad_answer("", |accept| switching(accept, "").replace("Upgrade: websocket", "Upgrade: h2c"))
        .await;
}

/// No word of what it switches to.
#[tokio::test]
async fn a_101_without_upgrade_is_a_502() {
    bad_answer("", |accept| switching(accept, "").replace("Upgrade: websocket\r\n", "")).await;
}

/// No `Connection: upgrade`.
#[tokio::test]
async fn a_101_without_connection_upgrade_is_a_502() {
    bad_answer("", |accept| switching(accept, "").replace("Connection: Upgrade\r\n", "")).await;
}

/// A subprotocol that nobody offered.
#[tokio::test]
async fn a_subprotocol_that_was_not_offered_is_a_502() {
    bad_answer("", |accept| switching(accept, "Sec-WebSocket-Protocol: chat\r\n")).await;
    bad_answer("Sec-WebSocket-Protocol: chat\r\n", |accept| {
        switching(accept, "Sec-WebSocket-Protocol: v2\r\n")
    })
    .await;
}

/// An extension that nobody offered.
#[tokio::test]
async fn an_extension_that_was_not_offered_is_a_502() {
    let answer =
        |accept: &str| switching(accept, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    bad_answer("", answer).await;
    bad_answer("Sec-WebSocket-Extensions: x-other\r\n", answer).await;
}

/// A 101 that nobody asked for does not open a tunnel either.
#[tokio::test]
async fn a_101_to_an_ordinary_request_is_a_502() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send(switching(&accept(KEY), "")).await;
    client.response().await.refused(502, "upstream");
}

/// Nobody at the endpoint.
#[tokio::test]
async fn an_upstream_that_refuses_connections_is_a_502() {
    let proxy = Proxy::to(&crate::support::upstream::refusing().await).await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/")).await;
        client.response().await.refused(502, "upstream");
        client.get("/").await.refused(502, "upstream");
    }
}

/// Somebody at the endpoint who does not answer: a 504 at `handshake_timeout`, for a handshake and for a request.
#[tokio::test]
async fn a_silent_upstream_is_a_504() {
    let upstream = Upstream::raw().await;
    let setup =
        Setup::to(upstream.endpoint()).upstream("handshake_timeout = \"300ms\"\nretries = 0");
    let proxy = setup.start().await;
    let mut client = proxy.plain().await;
    let started = std::time::Instant::now();
    client.send(handshake("/")).await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    client.response().await.refused(504, "upstream");
    assert!(started.elapsed() >= Duration::from_millis(300));
    leg.rest().await;

    // Neither has to wait for what else the client's connection is timed by.
    let setup = Setup::to(upstream.endpoint()).upstream("handshake_timeout = \"300ms\"");
    let proxy = setup.patient().start().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        let started = std::time::Instant::now();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        client.response().await.refused(504, "upstream");
        assert!(started.elapsed() >= Duration::from_millis(300));
        leg.rest().await;
    }
}

/// Somebody who says that an answer is to come (RFC 8297), faster than it can be read, and never gives one: no less a 504.
#[tokio::test]
async fn an_upstream_that_only_hints_at_an_answer_is_a_504() {
    let upstream = Upstream::raw().await;
    let setup = Setup::to(upstream.endpoint()).upstream("handshake_timeout = \"300ms\"");
    let proxy = setup.start().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(200_000);
    let started = std::time::Instant::now();
    let flood = async { while leg.try_send(&hints).await.is_ok() {} };
    let (answer, ()) = tokio::join!(client.response(), flood);
    answer.refused(504, "upstream");
    // Each look at the clock waits for what is read at once, which is much.
    let took = started.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}

/// Somebody who leaves in the middle of the answer.
#[tokio::test]
async fn an_upstream_that_leaves_during_its_answer_is_a_502() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/")).await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 101 Switching Protocols\r\nUpgra").await;
    drop(leg);
    client.response().await.refused(502, "upstream");
}

/// Bytes in the same segment as the handshake are relayed once, in order, and not before the 101 (§4.1).
#[tokio::test]
async fn early_bytes_of_the_client_wait_for_the_101() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/") + "early ").await;
        let mut leg = upstream.accept().await;
        let asked = leg.until("\r\n\r\n").await;
        assert!(asked.starts_with(b"GET / "));
        let before = tokio::time::timeout(Duration::from_millis(100), leg.some()).await;
        assert!(before.is_err(), "{before:?} came before the 101");
        leg.send(switching(&accept(KEY), "")).await;
        assert_eq!(client.head().await.status(), Some(101));
        client.send("and late").await;
        client.finish().await;
        assert_eq!(String::from_utf8_lossy(&leg.rest().await.0), "early and late");
    }
}

/// Bytes in the same segment as the 101 are relayed once and in order.
#[tokio::test]
async fn early_bytes_of_the_upstream_follow_the_101() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/")).await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send(switching(&accept(KEY), "") + "early ").await;
        leg.send("and late").await;
        leg.finish().await;
        assert_eq!(client.head().await.status(), Some(101));
        client.finish().await;
        client.expect("early and late").await;
        client.expect_end().await;
    }
}

/// A client that floods before the 101 is not buffered: it waits, and then all of it passes.
#[tokio::test]
async fn a_flood_before_the_101_is_held_back() {
    let (proxy, upstream) = Proxy::scripted().await;
    let flood = noise(1, 32 << 20);
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/")).await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        let before = proxy.memory_kib("VmRSS");
        let stuck = client.send_until_stuck(&flood).await;
        assert!(stuck < flood.len(), "the client was never stopped");
        let grown = proxy.memory_kib("VmRSS").saturating_sub(before);
        assert!(grown < 6 * 1024, "the process grew by {grown} KiB");
        leg.send(switching(&accept(KEY), "")).await;
        assert_eq!(client.head().await.status(), Some(101));
        let (got, ()) = tokio::join!(leg.rest(), async {
            client.send(&flood[stuck..]).await;
            client.finish().await;
        });
        assert_eq!(sha256(got.0), sha256(&flood));
    }
}

/// A client that leaves before the 101 takes its upstream connection with it.
#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_frees_the_upstream() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(handshake("/")).await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        client.reset();
        leg.rest().await;
    }
}

/// Both at once, each byte of the 101 and of what follows in a segment of its own.
#[tokio::test]
async fn an_answer_in_single_bytes_is_an_answer() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    for byte in (handshake("/") + "up").bytes() {
        client.send([byte]).await;
    }
    let mut leg = upstream.accept().await;
    leg.head().await;
    for byte in (switching(&accept(KEY), "") + "down").bytes() {
        leg.send([byte]).await;
    }
    assert_eq!(client.head().await.status(), Some(101));
    client.expect("down").await;
    leg.expect("up").await;
}

/// An early answer with bytes that belong to the refused client's next request: they are read as that request.
#[tokio::test]
async fn after_a_refusal_the_next_bytes_are_the_next_request() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/") + "GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 403);
    let mut leg = upstream.accept().await;
    assert_eq!(leg.head().await.first(), "GET /next HTTP/1.1");
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.body, "ok");
}

/// No route: a 404 that comes from us.
#[tokio::test]
async fn a_path_without_a_route_is_a_404() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint())
        .replace_route("host = \"*\"\npath = \"/only\"\nupstream = \"app\"");
    let proxy = proxy.start().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.get("/other").await.refused(404, "route");
        client.send(handshake("/other")).await;
        client.response().await.refused(404, "route");
    }
    upstream.expect_untouched().await;
}

/// A plain listener that sends everybody to the TLS one.
async fn redirecting(upstream: &Upstream) -> Proxy {
    let listeners = "redirect_https = true\n\n[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true";
    Setup::to(upstream.endpoint()).listeners(listeners).start().await
}

/// With `redirect_https` a request to the plain listener is sent to https with its path and query: 308.
#[tokio::test]
async fn a_plain_request_is_redirected_to_https() {
    let upstream = Upstream::raw().await;
    let proxy = redirecting(&upstream).await;
    let mut client = proxy.plain().await;
    let request = "POST /a?b=c HTTP/1.1\r\nHost: app.example\r\nContent-Length: 0\r\n\r\n";
    client.send(request).await;
    let response = client.response().await;
    response.refused(308, "https");
    let port = proxy.address(Over::Tls).port();
    let location = format!("https://app.example:{port}/a?b=c");
    assert_eq!(response.head.field("location"), Some(&*location));
    // Without a host there is no place to send anybody to, and the path must not become one.
    let mut hostless = proxy.plain().await;
    hostless.send("GET //evil.test/ HTTP/1.0\r\n\r\n").await;
    let response = hostless.response().await;
    assert!(response.head.first().starts_with("HTTP/1.0 400 "), "{response:?}");
    upstream.expect_untouched().await;
}

/// What a query may hide goes to the client, who wrote it, and into no log.
#[tokio::test]
async fn a_redirect_keeps_a_token_out_of_the_log() {
    let upstream = Upstream::raw().await;
    let proxy = redirecting(&upstream).await;
    let response = proxy.plain().await.get("/x?token=SECRET&page=2").await;
    response.refused(308, "https");
    let location = response.head.field("location").expect("a redirect says where to");
    assert!(location.ends_with("/x?token=SECRET&page=2"), "{location}");
    let record = proxy.event("request").await;
    assert_eq!(record["path"], "/x?token=[redacted]&page=2");
    assert!(!record.to_string().contains("SECRET"), "{record}");
    assert!(!proxy.stderr().contains("SECRET"), "{}", proxy.stderr());
}

/// A handshake there gets a 426 instead: WebSocket clients do not follow redirects (§4.1).
#[tokio::test]
async fn a_plain_handshake_is_told_to_use_tls() {
    let upstream = Upstream::raw().await;
    let proxy = redirecting(&upstream).await;
    let mut client = proxy.plain().await;
    client.send(handshake("/")).await;
    client.response().await.refused(426, "wss");
    upstream.expect_untouched().await;
}

/// Each refusal has its line in the access log, with our reason.
#[tokio::test]
async fn a_refused_handshake_is_logged_with_the_reason() {
    let (proxy, _upstream) = Proxy::scripted().await;
    let mut client = proxy.connect(Over::Tls).await;
    client.send(handshake("/").replace("Version: 13", "Version: 7")).await;
    client.response().await;
    let record = proxy.event("request").await;
    assert_eq!((&record["status"], &record["method"]), (&426.into(), &"GET".into()));
    assert!(record["reason"].is_string(), "{record}");
}

/// Broken HTTP gets a 400 in text, and nothing of it reaches the upstream.
#[tokio::test]
async fn broken_http_is_a_400() {
    for broken in
        ["GET\r\n\r\n", "hello there\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nbad name: 1\r\n\r\n"]
    {
        refused_by_proxy(broken).await.refused(400, "");
    }
    for smuggled in [
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 3, 4\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: +3\r\n",
        "X-A: 1\r\n folded\r\nContent-Length\t: 3\r\n",
        "X-Nul: a\0b\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{smuggled}\r\n0\r\n\r\n");
        refused_by_proxy(&request).await.refused(400, "");
    }
    refused_by_proxy("GET / HTTP/1.1\r\n\r\n").await.refused(400, "host");
    refused_by_proxy("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await.refused(400, "host");
}
