//! How the process leaves: nothing new, what is in flight finishes, sessions are closed, and then it is gone.

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::support::wire::{KEY, accept, handshake, switching};
use crate::support::{BOTH, Ending, Over, Proxy, Setup, Upstream, within};

/// Awaits that the proxy takes no more connections.
pub(crate) async fn closed_to_newcomers(proxy: &Proxy) {
    let address = proxy.address(Over::Plain);
    within("the listener to close", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// SIGTERM lets a request finish, turns newcomers away, and the process leaves with 0.
#[tokio::test]
async fn a_request_in_flight_finishes() {
    for over in BOTH {
        let (proxy, upstream) = Proxy::scripted().await;
        let mut client = proxy.connect(over).await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nfirst ").await;
        client.until("first ").await;
        proxy.drain();
        closed_to_newcomers(&proxy).await;
        leg.send("then").await;
        leg.send("!").await;
        client.expect("then!").await;
        client.expect_end().await;
        assert_eq!(proxy.exited().await, 0);
    }
}

/// A request whose answer has not begun is told that its connection ends: RFC 9112 §9.6.
#[tokio::test]
async fn an_answer_during_a_drain_says_close() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    proxy.drain();
    closed_to_newcomers(&proxy).await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let response = client.response().await;
    assert_eq!(response.body, "ok");
    assert!(response.head.is("connection", "close"), "{response:?}");
    assert_eq!(proxy.exited().await, 0);
}

/// Sessions are closed on both legs, in order, and the log says who ended them and why.
#[tokio::test]
async fn sessions_are_closed_on_both_legs() {
    for over in BOTH {
        let (proxy, upstream) = Proxy::scripted_bytes().await;
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        client.send("x").await;
        leg.expect("x").await;
        proxy.drain();
        assert_eq!(client.rest().await.1, Ending::Closed);
        assert_eq!(leg.rest().await.1, Ending::Closed);
        drop((client, leg));
        let end = proxy.event("end").await;
        assert_eq!((&end["ended_by"], &end["why"]), (&"tidegate".into(), &"drain".into()));
        assert_eq!(proxy.exited().await, 0);
    }
}

/// A handshake whose answer is awaited gets no session that would end at once, but a 503, and holds nothing up.
#[tokio::test]
async fn a_handshake_that_a_drain_overtakes_is_a_503() {
    for over in BOTH {
        let (proxy, upstream) = Proxy::scripted().await;
        let mut client = proxy.connect(over).await;
        client.send(handshake("/")).await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        let started = std::time::Instant::now();
        proxy.drain();
        closed_to_newcomers(&proxy).await;
        leg.send(switching(&accept(KEY), "")).await;
        client.response().await.refused(503, "");
        client.expect_end().await;
        leg.rest().await;
        assert_eq!(proxy.exited().await, 0);
        assert!(started.elapsed().as_secs() < 20, "the drain lasted {:?}", started.elapsed());
    }
}

/// An idle connection does not hold the process up.
#[tokio::test]
async fn idle_connections_are_closed() {
    let proxy = Setup::builtin().start().await;
    let (mut plain, mut tls) = (proxy.connect(Over::Plain).await, proxy.connect(Over::Tls).await);
    assert_eq!(plain.get("/").await.status(), 200);
    assert_eq!(tls.get("/").await.status(), 200);
    let silent = proxy.tcp(Over::Tls).await;
    proxy.drain();
    plain.expect_end().await;
    tls.expect_end().await;
    assert_eq!(proxy.exited().await, 0);
    drop(silent);
}

/// All three signals mean the same.
#[tokio::test]
async fn int_and_quit_drain_as_term_does() {
    for signal in [Signal::INT, Signal::QUIT, Signal::TERM] {
        let proxy = Setup::builtin().start().await;
        proxy.signal(signal);
        assert_eq!(proxy.exited().await, 0);
    }
}

/// A supervisor that has died takes the other end of stderr with it: that is nothing to panic about.
#[tokio::test]
async fn a_process_whose_stderr_is_gone_drains_all_the_same() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    proxy.stop_reading_stderr().await;
    proxy.drain();
    closed_to_newcomers(&proxy).await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.body, "ok");
    assert_eq!(proxy.exited().await, 0);
}

/// What is not done at `drain.timeout` is cut, and the exit code says so: 3.
#[tokio::test]
async fn a_drain_that_has_to_cut_exits_with_3() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).also("[drain]\ntimeout = \"1s\"").start().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    proxy.drain();
    assert_eq!(proxy.exited().await, 3);
    leg.rest().await;
}

/// A second signal does not wait.
#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    proxy.drain();
    closed_to_newcomers(&proxy).await;
    proxy.drain();
    let started = std::time::Instant::now();
    assert_ne!(proxy.exited().await, 0);
    assert!(started.elapsed().as_secs() < 20, "the drain lasted {:?}", started.elapsed());
}

/// A peer that goes on talking when its session is ended does not hold up the process, nor keep it busy.
#[tokio::test]
async fn an_upstream_that_talks_on_does_not_hold_up_a_drain() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    client.send("x").await;
    leg.expect("x").await;
    let piece = vec![b'x'; 1 << 16];
    let talking = tokio::spawn(async move { while leg.try_send(&piece).await.is_ok() {} });
    let reading = tokio::spawn(async move { client.rest().await.0.len() });
    proxy.event("open").await;
    proxy.drain();
    assert_eq!(proxy.exited().await, 0);
    assert!(reading.await.expect("the client reads to its end") > 0);
    talking.await.expect("the upstream hears that it is over");
}
