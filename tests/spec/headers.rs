//! What the proxy adds to a message, what it takes away, and what it leaves alone.

use crate::support::wire::{Head, handshake_with};
use crate::support::{BOTH, Over, Proxy, Setup, Upstream};

/// What the upstream sees of a GET with these header lines.
async fn seen(proxy: &Proxy, over: Over, upstream: &Upstream, headers: &str) -> Head {
    let mut client = proxy.connect(over).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: localhost:81\r\n{headers}\r\n")).await;
    let mut leg = upstream.accept().await;
    let head = leg.head().await;
    leg.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.head().await.status(), Some(204));
    head
}

/// The upstream hears who asked, for which host, over what.
#[tokio::test]
async fn forwarded_fields_are_set() {
    let (proxy, upstream) = Proxy::scripted().await;
    for (over, scheme) in [(Over::Plain, "http"), (Over::Tls, "https")] {
        let head = seen(&proxy, over, &upstream, "").await;
        assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(head.field("x-forwarded-proto"), Some(scheme));
        assert_eq!(head.field("x-forwarded-host"), Some("localhost:81"));
    }
}

/// What a stranger writes there is dropped, however it is spelled.
#[tokio::test]
async fn forwarded_fields_of_strangers_are_dropped() {
    let (proxy, upstream) = Proxy::scripted().await;
    let lies = "X-Forwarded-For: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\nX-FORWARDED-PROTO: gopher\r\n\
                X-Forwarded-Host: evil.example\r\n";
    let head = seen(&proxy, Over::Plain, &upstream, lies).await;
    assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.field("x-forwarded-proto"), Some("http"));
    assert_eq!(head.field("x-forwarded-host"), Some("localhost:81"));
}

/// What a trusted peer writes there is kept, and the peer is added to the list.
#[tokio::test]
async fn forwarded_fields_of_a_trusted_peer_are_kept() {
    let upstream = Upstream::raw().await;
    let proxy =
        Setup::to(upstream.endpoint()).listener("trusted = [\"127.0.0.0/8\"]").start().await;
    let told = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n";
    let head = seen(&proxy, Over::Plain, &upstream, told).await;
    assert_eq!(head.fields("x-forwarded-for").join(", "), "192.0.2.7, 127.0.0.1");
    assert_eq!(head.field("x-forwarded-proto"), Some("https"));
    assert_eq!(head.field("x-forwarded-host"), Some("shop.example"));
}

/// A peer outside of `trusted` stays a stranger.
#[tokio::test]
async fn trust_is_for_the_networks_that_were_named() {
    let upstream = Upstream::raw().await;
    let proxy =
        Setup::to(upstream.endpoint()).listener("trusted = [\"127.0.0.2/32\"]").start().await;
    let head = seen(&proxy, Over::Plain, &upstream, "X-Forwarded-For: 192.0.2.7\r\n").await;
    assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    let mut trusted = proxy.plain_from("127.0.0.2").await;
    trusted.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n").await;
    let head = upstream.accept().await.head().await;
    assert_eq!(head.fields("x-forwarded-for").join(", "), "192.0.2.7, 127.0.0.2");
}

/// Nobody removes our own fields by naming them in `Connection`.
#[tokio::test]
async fn connection_does_not_name_away_our_own_fields() {
    let (proxy, upstream) = Proxy::scripted().await;
    let tricks = "Connection: keep-alive, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Via, Host\r\n";
    for over in BOTH {
        let head = seen(&proxy, over, &upstream, tricks).await;
        assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
        assert!(
            head.field("x-forwarded-proto").is_some() && head.field("x-forwarded-host").is_some()
        );
        assert_eq!(
            (head.field("via"), head.field("host")),
            (Some("1.1 tidegate"), Some("localhost:81"))
        );
    }
}

/// Hop-by-hop fields, and what `Connection` names, stay on this hop: RFC 9110 §7.6.1.
#[tokio::test]
async fn hop_by_hop_fields_of_a_request_are_removed() {
    let (proxy, upstream) = Proxy::scripted().await;
    let hop = "Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\n\
               TE: gzip\r\nProxy-Authorization: Basic eA==\r\nX-Other: 2\r\n";
    let head = seen(&proxy, Over::Plain, &upstream, hop).await;
    for name in ["x-mine", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(head.field(name), None, "{name} in {head:?}");
    }
    assert_eq!(head.field("x-other"), Some("2"));
}

/// The same in an answer.
#[tokio::test]
async fn hop_by_hop_fields_of_a_response_are_removed() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    let hop = "Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nX-Other: 2\r\n";
    leg.send(format!("HTTP/1.1 204 No Content\r\n{hop}\r\n")).await;
    let head = client.head().await;
    for name in ["x-mine", "keep-alive"] {
        assert_eq!(head.field(name), None, "{head:?}");
    }
    assert_eq!(head.field("x-other"), Some("2"));
    assert!(!head.is("connection", "close"), "the upstream's close is not the client's: {head:?}");
}

/// An h2c upgrade is none of ours: the token goes, the request is an ordinary one (RFC 9113 §3.1).
#[tokio::test]
async fn an_h2c_upgrade_becomes_an_ordinary_request() {
    let (proxy, upstream) = Proxy::scripted().await;
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    let head = seen(&proxy, Over::Plain, &upstream, h2c).await;
    assert_eq!(
        (head.field("upgrade"), head.field("http2-settings"), head.field("connection")),
        (None, None, None)
    );
}

/// Both sides can see that a proxy was there: RFC 9110 §7.6.3.
#[tokio::test]
async fn via_is_added_both_ways() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nVia: 1.0 fred\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    assert_eq!(leg.head().await.fields("via").join(", "), "1.0 fred, 1.1 tidegate");
    leg.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.head().await.field("via"), Some("1.1 tidegate"));
}

/// The upstream sees the Host that the client wrote, unless the upstream's `host` says otherwise: RFC 9110 §7.2.
#[tokio::test]
async fn host_is_kept_or_set_by_the_upstream() {
    let upstream = Upstream::raw().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    assert_eq!(seen(&proxy, Over::Plain, &upstream, "").await.field("host"), Some("localhost:81"));
    let proxy = Setup::to(upstream.endpoint()).upstream("host = \"inner.example\"").start().await;
    let head = seen(&proxy, Over::Plain, &upstream, "").await;
    assert_eq!(head.field("host"), Some("inner.example"));
    assert_eq!(head.field("x-forwarded-host"), Some("localhost:81"));
}

/// An absolute target names the host, whatever Host says (RFC 9112 §3.2.2), and goes on in origin form (§3.2.1).
#[tokio::test]
async fn an_absolute_target_is_sent_on_in_origin_form() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET http://real.example/a?b HTTP/1.1\r\nHost: fake.example\r\n\r\n").await;
    let head = upstream.accept().await.head().await;
    assert_eq!((head.first(), head.field("host")), ("GET /a?b HTTP/1.1", Some("real.example")));
}

/// Names keep the case they were written in, in both directions: some old programs insist.
#[tokio::test]
async fn the_case_of_names_is_kept() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client
            .send("GET / HTTP/1.1\r\nhOsT: localhost\r\nX-WeIrD-cAsE: 1\r\nSOAPAction: 2\r\n\r\n")
            .await;
        let mut leg = upstream.accept().await;
        let asked = leg.head().await;
        assert!(
            asked.text.contains("\r\nX-WeIrD-cAsE: 1\r\n")
                && asked.text.contains("\r\nSOAPAction: 2\r\n")
        );
        leg.send("HTTP/1.1 204 No Content\r\nx-LOWER: 3\r\nWWW-AuthEnticate: 4\r\nConnection: close\r\n\r\n").await;
        let answer = client.head().await;
        assert!(
            answer.text.contains("\r\nx-LOWER: 3\r\n")
                && answer.text.contains("\r\nWWW-AuthEnticate: 4\r\n")
        );
    }
}

/// Several fields of one name stay several, in their order: RFC 9110 §5.3.
#[tokio::test]
async fn repeated_fields_stay_in_order() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\nX-B: x\r\nX-A: 2\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    assert_eq!(leg.head().await.fields("x-a"), ["1", "2"]);
    leg.send("HTTP/1.1 204 No Content\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n").await;
    assert_eq!(client.head().await.fields("set-cookie"), ["a=1", "b=2"]);
}

/// What belongs to the application passes a handshake untouched, in both directions: RFC 6455 §4.1 and §4.2.2.
#[tokio::test]
async fn a_handshake_keeps_what_belongs_to_the_application() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let lines = "Origin: https://app.example\r\nCookie: a=1; b=\"2\"\r\nSec-WebSocket-Protocol: chat, v2.chat\r\n\
                     Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-odd; p=\"q\"\r\n\
                     Authorization: Bearer abc\r\n";
        let mut client = proxy.connect(over).await;
        client.send(handshake_with("/chat?room=1", lines)).await;
        let mut leg = upstream.accept().await;
        let back = "Sec-WebSocket-Protocol: v2.chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: c=3\r\n";
        let asked = leg.accept_with(back).await;
        assert_eq!(asked.first(), "GET /chat?room=1 HTTP/1.1");
        for line in lines.lines().chain(["Upgrade: websocket", "Sec-WebSocket-Version: 13"]) {
            assert!(
                asked.text.contains(&format!("\r\n{line}\r\n")),
                "{line} is missing in {}",
                asked.text
            );
        }
        assert!(asked.is("connection", "upgrade"), "{asked:?}");
        let answer = client.head().await;
        for line in back.lines() {
            assert!(
                answer.text.contains(&format!("\r\n{line}\r\n")),
                "{line} is missing in {}",
                answer.text
            );
        }
        assert!(
            answer.is("connection", "upgrade") && answer.is("upgrade", "websocket"),
            "{answer:?}"
        );
    }
}

/// A handshake carries the same fields about its way as a request.
#[tokio::test]
async fn a_handshake_says_where_it_came_from() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.connect(Over::Tls).await;
    client.send(handshake_with("/", "X-Forwarded-For: 10.0.0.1\r\n")).await;
    let asked = upstream.accept().await.head().await;
    assert_eq!(asked.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.field("x-forwarded-proto"), Some("https"));
    assert_eq!(asked.field("via"), Some("1.1 tidegate"));
}
