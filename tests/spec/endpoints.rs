//! Which endpoint of an upstream gets a request, what happens when it is not there, and what lies in between.

use std::collections::BTreeMap;

use futures_util::StreamExt;

use crate::support::certificates::Authority;
use crate::support::upstream::{full, refusing};
use crate::support::wire::handshake;
use crate::support::{BOTH, Over, Proxy, Served, Setup, Upstream, Wire, eventually, within};

/// How often each body came.
async fn bodies(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut client = proxy.plain().await;
    let mut counted = BTreeMap::new();
    for _ in 0..requests {
        *counted.entry(client.get("/").await.body).or_default() += 1;
    }
    counted
}

/// Opens a session and returns who greeted it.
async fn greeted(proxy: &Proxy) -> (tokio_tungstenite::WebSocketStream<Wire>, String) {
    let mut socket = proxy.websocket(Over::Plain, "/").await;
    let greeting =
        within("a greeting", socket.next()).await.expect("a message").expect("a good one");
    (socket, greeting.into_text().expect("text").to_string())
}

/// `round_robin` goes around.
#[tokio::test]
async fn round_robin_shares_requests_evenly() {
    let (a, b, c) = (Served::named("a").await, Served::named("b").await, Served::named("c").await);
    let endpoints = [a.endpoint(), b.endpoint(), c.endpoint()];
    let proxy = Setup::to_all(&endpoints).upstream("balance = \"round_robin\"").start().await;
    let wanted = ["a", "b", "c"].map(|name| (name.to_owned(), 4));
    assert_eq!(bodies(&proxy, 12).await, BTreeMap::from(wanted));
}

/// `random` reaches everyone.
#[tokio::test]
async fn random_reaches_every_endpoint() {
    let (a, b) = (Served::named("a").await, Served::named("b").await);
    let proxy =
        Setup::to_all(&[a.endpoint(), b.endpoint()]).upstream("balance = \"random\"").start().await;
    // All 64 on one side would be a chance of 1 in 2^63.
    assert_eq!(bodies(&proxy, 64).await.len(), 2);
}

/// `least_sessions`, the default, gives a new session to the endpoint that has fewest, across all workers.
#[tokio::test]
async fn least_sessions_evens_out() {
    let (a, b) = (Served::greeting("a").await, Served::greeting("b").await);
    let proxy = Setup::to_all(&[a.endpoint(), b.endpoint()]).start().await;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        sessions.push(greeted(&proxy).await);
    }
    assert_eq!((a.open(), b.open()), (5, 5));
    sessions.retain(|(_, name)| name == "a");
    eventually("the sessions with b to end", || b.open() == 0).await;
    eventually("their ends to be logged", || {
        proxy.records().iter().filter(|r| r["event"] == "end").count() == 5
    })
    .await;
    for _ in 0..5 {
        let session = greeted(&proxy).await;
        assert_eq!(session.1, "b");
        sessions.push(session);
    }
}

/// A failed dial goes to the next endpoint, for requests and for handshakes, and nobody notices.
#[tokio::test]
async fn a_refused_dial_goes_to_the_next_endpoint() {
    let (dead, alive) = (refusing().await, Served::greeting("alive").await);
    let proxy = Setup::to_all(&[&dead, alive.endpoint()])
        .upstream("balance = \"round_robin\"")
        .start()
        .await;
    for _ in 0..6 {
        assert_eq!(greeted(&proxy).await.1, "alive");
    }
}

/// An endpoint that refused is rested for a moment: the next requests do not try it first.
#[tokio::test]
async fn an_endpoint_that_refused_is_rested() {
    let (dead, alive) = (refusing().await, Served::named("alive").await);
    let proxy = Setup::to_all(&[&dead, alive.endpoint()]).upstream("retries = 0").start().await;
    let mut client = proxy.plain().await;
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(client.get("/").await.status() == 502);
    }
    assert!(failed <= 4, "{failed} of 20 requests went to the endpoint that refuses");
}

/// A dial that nobody answers is a 504 at `connect_timeout`.
#[tokio::test]
async fn a_dial_without_an_answer_is_a_504() {
    let (endpoint, _waiting, _listener) = full().await;
    let proxy = Setup::to(&endpoint).upstream("connect_timeout = \"300ms\"").start().await;
    let mut client = proxy.plain().await;
    client.get("/").await.refused(504, "upstream");
}

/// It goes to the next endpoint as well, if there is one.
#[tokio::test]
async fn a_dial_without_an_answer_goes_to_the_next_endpoint() {
    let (stuck, _waiting, _listener) = full().await;
    let alive = Served::named("alive").await;
    let keys = "connect_timeout = \"300ms\"\nbalance = \"round_robin\"";
    let proxy = Setup::to_all(&[&stuck, alive.endpoint()]).upstream(keys).start().await;
    for _ in 0..3 {
        assert_eq!(proxy.plain().await.get("/").await.body, "alive");
    }
}

/// With `retries = 0` a failed dial is the answer.
#[tokio::test]
async fn without_retries_a_failed_dial_is_a_502() {
    let (one, two) = (refusing().await, refusing().await);
    let proxy = Setup::to_all(&[&one, &two]).upstream("retries = 0").start().await;
    proxy.plain().await.get("/").await.refused(502, "upstream");
}

/// An endpoint that answered, even with a 500, is not asked again elsewhere.
#[tokio::test]
async fn an_answer_is_not_retried() {
    let (a, b) = (Upstream::raw().await, Upstream::raw().await);
    let proxy = Setup::to_all(&[a.endpoint(), b.endpoint()]).start().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (mut leg, other) =
        tokio::select! { leg = a.accept() => (leg, &b), leg = b.accept() => (leg, &a) };
    leg.head().await;
    leg.send("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 500);
    other.expect_untouched().await;
}

/// A `unix:` endpoint serves requests and sessions.
#[tokio::test]
async fn a_unix_endpoint_works() {
    let upstream = Upstream::unix();
    let proxy = Proxy::to(upstream.endpoint()).await;
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        client.send("up").await;
        leg.expect("up").await;
        let mut client = proxy.connect(over).await;
        client.send("GET /file HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        assert_eq!(leg.head().await.first(), "GET /file HTTP/1.1");
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        assert_eq!(client.response().await.body, "ok");
    }
}

/// A `unix:` endpoint where nobody listens is a 502.
#[tokio::test]
async fn a_missing_unix_endpoint_is_a_502() {
    let proxy = Proxy::to("unix:/nonexistent/upstream.sock").await;
    proxy.plain().await.get("/").await.refused(502, "upstream");
}

/// Starts a proxy before an `https://` endpoint with a certificate for `names`; `keys` may mention `ca.pem`.
async fn behind_tls(names: &[&str], keys: &str) -> (Proxy, Upstream) {
    let authority = Authority::new();
    let upstream = Upstream::tls(authority.issue(names).server()).await;
    let setup = Setup::to(upstream.endpoint()).upstream(keys);
    std::fs::write(setup.folder().join("ca.pem"), authority.pem()).expect("the folder is ours");
    (setup.start().await, upstream)
}

/// An `https://` endpoint whose certificate the upstream's `ca` has signed.
#[tokio::test]
async fn an_https_endpoint_is_checked_against_its_ca() {
    let (proxy, upstream) = behind_tls(&["localhost"], "ca = \"ca.pem\"").await;
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        leg.send("down").await;
        client.expect("down").await;
        client.send("up").await;
        leg.expect("up").await;
        leg.finish().await;
        client.expect_end().await;
    }
}

/// A certificate that nobody vouches for is a 502: to a stranger we do not forward.
#[tokio::test]
async fn an_untrusted_certificate_is_a_502() {
    let (proxy, upstream) = behind_tls(&["localhost"], "retries = 0").await;
    let mut client = proxy.plain().await;
    client.send(handshake("/")).await;
    assert!(
        upstream.try_accept().await.is_err(),
        "the proxy took a certificate of an unknown authority"
    );
    client.response().await.refused(502, "upstream");
}

/// So is a certificate for another name.
#[tokio::test]
async fn a_certificate_for_another_name_is_a_502() {
    let (proxy, upstream) = behind_tls(&["other.example"], "ca = \"ca.pem\"\nretries = 0").await;
    let mut client = proxy.plain().await;
    client.send(handshake("/")).await;
    let _ = upstream.try_accept().await;
    client.response().await.refused(502, "upstream");
}

/// `server_name` is the name that is asked for and checked.
#[tokio::test]
async fn server_name_is_the_name_that_is_checked() {
    let (proxy, upstream) =
        behind_tls(&["inner.example"], "ca = \"ca.pem\"\nserver_name = \"inner.example\"").await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    leg.send("down").await;
    client.expect("down").await;
}

/// `verify = false` takes any certificate and says so at start.
#[tokio::test]
async fn verify_false_takes_any_certificate_with_a_warning() {
    let (proxy, upstream) = behind_tls(&["other.example"], "verify = false").await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    leg.send("down").await;
    client.expect("down").await;
    proxy.says("verify").await;
}

/// `ws://` and `wss://` are what people type for an endpoint; they are the same as `http://` and `https://`.
#[tokio::test]
async fn an_endpoint_may_be_written_as_ws() {
    let upstream = Served::named("same").await;
    let proxy = Proxy::to(&upstream.endpoint().replace("http://", "ws://")).await;
    assert_eq!(proxy.plain().await.get("/").await.body, "same");
}

/// A name may have an IPv6 address at which nobody listens: the IPv4 one is tried as well.
#[tokio::test]
async fn a_name_is_tried_at_each_of_its_addresses() {
    let upstream = Served::named("found").await;
    let proxy = Proxy::to(&upstream.endpoint().replace("127.0.0.1", "localhost")).await;
    assert_eq!(proxy.plain().await.get("/").await.body, "found");
}
