//! Limits: what is over one is refused with a reason, and what ends makes room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::certificates::trusting_anyone;
use crate::support::wire::handshake;
use crate::support::{BOTH, Over, Proxy, Served, Setup, Upstream, Wire, eventually, noise, within};

/// A page beside an upstream that is not asked for pages.
const PAGE: &str = "[upstream.page]\nbuiltin = \"echo\"\n[[route]]\nhost = \"*\"\npath = \"/page\"\nupstream = \"page\"";

/// Awaits that a new connection is served.
async fn served_again(proxy: &Proxy) {
    let request = "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";
    within("room for one more", async {
        while proxy.plain().await.ask(request).await != Some(200) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// `limits.connections`: the next one gets 503 and `Retry-After`; one that leaves makes room.
#[tokio::test]
async fn connections_are_limited() {
    let proxy = Setup::builtin().also("[limits]\nconnections = 3").start().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.plain().await;
        assert_eq!(client.get("/").await.status(), 200);
        held.push(client);
    }
    let refusal = proxy.plain().await.get("/").await;
    refusal.refused(503, "connections");
    assert!(refusal.head.field("retry-after").is_some(), "{refusal:?}");
    held.pop();
    served_again(&proxy).await;
}

/// A connection counts for as long as its session lasts.
#[tokio::test]
async fn a_session_counts_as_a_connection() {
    let upstream = Upstream::raw().await;
    let proxy =
        Setup::to(upstream.endpoint()).also(PAGE).also("[limits]\nconnections = 1").start().await;
    for over in BOTH {
        let (client, leg) = proxy.session(over, &upstream).await;
        proxy.plain().await.get("/").await.refused(503, "connections");
        client.reset();
        drop(leg);
        served_again(&proxy).await;
        eventually("that connection to be gone", || {
            proxy.records().iter().any(|r| r["path"] == "/page")
        })
        .await;
    }
}

/// `connections_per_ip`: 429 and close for one address, while another is served; sessions count, and free their place.
#[tokio::test]
async fn connections_per_ip_are_limited() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint())
        .also(PAGE)
        .also("[limits]\nconnections_per_ip = 2")
        .start()
        .await;
    let first = proxy.session(Over::Plain, &upstream).await;
    let second = proxy.session(Over::Tls, &upstream).await;
    let mut third = proxy.plain().await;
    third.get("/").await.refused(429, "address");
    third.expect_end().await;
    let mut elsewhere = proxy.plain_from("127.0.0.2").await;
    proxy.open(&mut elsewhere, &upstream).await;
    drop(first);
    drop(second);
    served_again(&proxy).await;
}

/// A client over its limit on the TLS port is turned away as well, without costing a handshake forever.
#[tokio::test]
async fn connections_per_ip_are_limited_on_the_tls_port() {
    let proxy = Setup::builtin().also("[limits]\nconnections_per_ip = 1").start().await;
    let mut held = proxy.connect(Over::Tls).await;
    assert_eq!(held.get("/").await.status(), 200);
    let client = Arc::new(trusting_anyone());
    if let Ok(stream) = proxy.try_tls(&client, "localhost").await {
        Wire::new(stream).get("/").await.refused(429, "address");
    }
    assert_eq!(held.get("/").await.status(), 200);
}

/// `limits.sessions`: the next handshake gets 503 and `Retry-After`, while requests are served; an end makes room.
#[tokio::test]
async fn sessions_are_limited() {
    let upstream = Served::greeting("hi").await;
    let proxy =
        Setup::to(upstream.endpoint()).also(PAGE).also("[limits]\nsessions = 2").start().await;
    let first = proxy.websocket(Over::Plain, "/").await;
    let second = proxy.websocket(Over::Tls, "/").await;
    for over in BOTH {
        let mut third = proxy.connect(over).await;
        third.send(handshake("/")).await;
        let refusal = third.response().await;
        refusal.refused(503, "websockets");
        assert!(refusal.head.field("retry-after").is_some(), "{refusal:?}");
        assert_eq!(third.get("/page").await.status(), 200);
    }
    drop(first);
    proxy.event("end").await;
    proxy.websocket(Over::Plain, "/").await;
    drop(second);
}

/// `header_timeout`: a head that does not end is a 408, however it drips (RFC 9110 §15.5.9).
#[tokio::test]
async fn a_slow_head_is_a_408() {
    let proxy = Setup::builtin().also("[limits]\nheader_timeout = \"500ms\"").start().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
        client.response().await.refused(408, "");
        client.rest().await;
    }
}

/// A second request that begins and does not end is a 408 too.
#[tokio::test]
async fn a_slow_second_head_is_a_408() {
    let proxy = Setup::builtin().also("[limits]\nheader_timeout = \"500ms\"").start().await;
    let mut client = proxy.plain().await;
    assert_eq!(client.get("/").await.status(), 200);
    client.send("GET / HT").await;
    client.response().await.refused(408, "");
}

/// `keep_alive`: a connection without a next request is closed without a word, and not much later than that.
#[tokio::test]
async fn an_idle_connection_is_closed_at_keep_alive() {
    let proxy = Setup::builtin().also("[limits]\nkeep_alive = \"500ms\"").start().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        assert_eq!(client.get("/").await.status(), 200);
        let idle = Instant::now();
        client.expect_end().await;
        let waited = idle.elapsed();
        assert!(
            waited > Duration::from_millis(400) && waited < Duration::from_secs(5),
            "{waited:?}"
        );
    }
}

/// A pause between two requests is about `keep_alive`, and may be longer than `header_timeout`.
#[tokio::test]
async fn a_pause_between_requests_is_not_a_slow_head() {
    let limits = "[limits]\nheader_timeout = \"300ms\"\nkeep_alive = \"20s\"";
    let proxy = Setup::builtin().also(limits).start().await;
    let mut client = proxy.plain().await;
    assert_eq!(client.get("/").await.status(), 200);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(client.get("/").await.status(), 200);
}

/// A connection that never says anything is closed without a word as well, at `header_timeout`.
#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let limits = "[limits]\nheader_timeout = \"500ms\"\nkeep_alive = \"500ms\"";
    let proxy = Setup::builtin().also(limits).start().await;
    let mut client = proxy.plain().await;
    client.rest().await;
}

/// An answer may take longer than `header_timeout` and `keep_alive`: they are about heads and pauses.
#[tokio::test]
async fn timeouts_of_heads_are_not_about_answers() {
    let upstream = Upstream::raw().await;
    let limits = "[limits]\nheader_timeout = \"300ms\"\nkeep_alive = \"300ms\"";
    let proxy = Setup::to(upstream.endpoint()).also(limits).start().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
    assert_eq!(client.response().await.body, "slow");
}

/// `header_bytes`: a larger head is a 431 (RFC 6585 §5).
#[tokio::test]
async fn a_large_head_is_a_431() {
    let proxy = Setup::builtin().also("[limits]\nheader_bytes = \"8KiB\"").start().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        let just_fits = "a".repeat(7_000);
        client
            .send(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: {just_fits}\r\n\r\n"))
            .await;
        assert_eq!(client.response().await.status(), 200);
        let too_big = "a".repeat(40_000);
        let _ = client
            .try_send(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: {too_big}\r\n\r\n"))
            .await;
        client.response().await.refused(431, "");
    }
}

/// More connections than descriptors: the process goes on, says so, and serves again when there is room.
#[tokio::test]
async fn running_out_of_descriptors_is_survived() {
    let proxy = Setup::builtin().open_files(64).start().await;
    let crowd = join_all((0..120).map(|_| proxy.tcp(Over::Plain))).await;
    proxy.says("open files").await;
    drop(crowd);
    served_again(&proxy).await;
    let lines = proxy.stderr().lines().count();
    assert!(lines < 300, "{lines} lines on stderr: a full table is no reason to flood the log");
}

/// Whatever strangers send to the plain port, the process and everybody else go on.
#[tokio::test]
async fn garbage_on_the_plain_port_is_survived() {
    let proxy = Setup::builtin().start().await;
    for seed in 0..64 {
        let mut client = proxy.plain().await;
        let _ = client.try_send(noise(seed, 1 + 97 * seed as usize)).await;
        let _ = client.try_send("\r\n\r\n").await;
        client.rest().await;
    }
    assert_eq!(proxy.plain().await.get("/").await.status(), 200);
}
