//! Time and quantity: whoever is slow is waited for so long and no longer, a crowd is let in at a pace, and what is
//! over leaves nothing behind.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::wire::{handshake, switching};
use crate::support::{BOTH, Ending, Over, Proxy, Setup, Upstream, Wire, eventually, noise, within};

/// Awaits that there is no connection, no session, and no more descriptors than at first.
async fn nothing_is_left(proxy: &Proxy, descriptors: usize) {
    eventually("the descriptors to be closed", || proxy.descriptors() <= descriptors).await;
    within("the counts to come to nothing", async {
        loop {
            let status = proxy.told("GET", "/status").await;
            if status["sessions"] == 0 && status["connections"] == 0 {
                break;
            }
        }
    })
    .await;
}

/// The reason in the log for an answer that was broken off.
async fn why(proxy: &Proxy) -> String {
    let record = proxy.record(|record| !record["reason"].is_null()).await;
    record["reason"].as_str().expect("a text").to_owned()
}

/// `limits.body_timeout`: a body that pauses for longer is a 408 (RFC 9110 §15.5.9), and the upstream's connection is
/// closed in the middle of the request, so that nobody takes it for whole. One that drips is waited for.
#[tokio::test]
async fn a_slow_body_is_a_408() {
    let upstream = Upstream::raw().await;
    let limits = "[limits]\nbody_timeout = \"600ms\"";
    let proxy = Setup::to(upstream.endpoint()).also(limits).start().await;
    let descriptors = proxy.descriptors();
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        let began = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(150));
        for byte in 0..8 {
            ticks.tick().await;
            client.send([b'0' + byte]).await;
            leg.expect([b'0' + byte]).await;
        }
        assert!(began.elapsed() > Duration::from_millis(600), "too fast to show anything");
        client.response().await.refused(408, "body");
        client.expect_end().await;
        leg.rest().await;
    }
    nothing_is_left(&proxy, descriptors).await;
}

/// `limits.send_timeout`: a client that takes nothing of an answer for so long is given up, and the upstream's
/// connection with it.
#[tokio::test]
async fn a_reader_that_stops_is_given_up() {
    let upstream = Upstream::raw().await;
    let limits = "[limits]\nsend_timeout = \"500ms\"";
    let proxy = Setup::to(upstream.endpoint()).also(limits).start().await;
    let descriptors = proxy.descriptors();
    let body = noise(5, 64 * 1024);
    for over in BOTH {
        let mut client = proxy.slow_reader_over(over).await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
        // Until the proxy lets go of it.
        while leg.try_send(&body).await.is_ok() {}
        drop(leg);
        let began = Instant::now();
        nothing_is_left(&proxy, descriptors).await;
        assert!(began.elapsed().as_secs() < 20, "it is let go of at once, and not when it likes");
        assert!(why(&proxy).await.contains("`send_timeout`"));
        drop(client);
    }
    nothing_is_left(&proxy, descriptors).await;
}

/// A client that reads slowly, but reads, is served to the end however long it takes.
#[tokio::test]
async fn a_reader_that_is_merely_slow_gets_everything() {
    let upstream = Upstream::raw().await;
    let limits = "[limits]\nsend_timeout = \"500ms\"";
    let proxy = Setup::to(upstream.endpoint()).also(limits).start().await;
    let body = noise(6, 1_500_000);
    let mut client = proxy.slow_reader().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    let reading = async {
        client.head().await;
        let mut got = Vec::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        while got.len() < body.len() {
            ticks.tick().await;
            got.extend(client.take((body.len() - got.len()).min(100_000)).await);
        }
        got
    };
    let (got, ()) = tokio::join!(reading, leg.send(&body));
    assert!(got == body);
}

/// `limits.handshake_rate`: of 300 handshakes at once, as many as the rate gives in a second go through, others in the
/// order in which they came, and those who would wait for longer than `handshake_wait` get a 503 with `Retry-After`
/// at once, on a connection that stays good. Nobody is closed without a word.
#[tokio::test]
async fn a_crowd_of_handshakes_is_let_in_at_a_pace() {
    const CROWD: usize = 300;
    let upstream = Upstream::raw().await;
    let limits = "[limits]\nhandshake_rate = \"100/s\"\nhandshake_wait = \"500ms\"";
    let proxy = Setup::to(upstream.endpoint()).also(limits).start().await;
    let began = Instant::now();
    let accepting = async {
        let mut legs = Vec::new();
        while let Ok(mut leg) = upstream.try_accept().await {
            let key = leg.head().await.field("sec-websocket-key").expect("a key").to_owned();
            leg.send(switching(&crate::support::wire::accept(&key), "")).await;
            legs.push((leg, began.elapsed()));
            if legs.len() == CROWD {
                break;
            }
        }
    };
    let come = |n: usize| {
        let proxy = &proxy;
        async move {
            let mut client = proxy.connect(BOTH[n % 2]).await;
            client.send(handshake("/")).await;
            let response = client.head().await;
            (client, response)
        }
    };
    let crowd = tokio::select! {
        crowd = join_all((0..CROWD).map(come)) => crowd,
        () = accepting => panic!("all were let in"),
    };
    let took = began.elapsed().as_secs_f64();
    let (mut opened, mut refused) = (0, 0);
    for (_client, head) in crowd {
        match head.status() {
            Some(101) => opened += 1,
            Some(503) => {
                refused += 1;
                let seconds = head.field("retry-after").and_then(|text| text.parse().ok());
                assert!(seconds.is_some_and(|seconds: u32| (1..=8).contains(&seconds)), "{head:?}");
                assert!(!head.is("connection", "close"), "{head:?}");
            }
            _ => panic!("{head:?}"),
        }
    }
    // A hundred at once, fifty that wait, and a hundred for each second that two busy cores took over it.
    assert!(opened >= 150 && opened as f64 <= 151.0 + 100.0 * took, "{opened} in {took} s");
    assert_eq!(opened + refused, CROWD);
    let (_, metrics) = proxy.ask("GET", "/metrics").await;
    let counted = format!("tidegate_refusals_total{{reason=\"handshake_rate\"}} {refused}");
    assert!(metrics.contains(&counted), "{counted} in {metrics}");
}

/// Whoever waits for a turn is let go of when it leaves, and told when a drain begins.
#[tokio::test]
async fn a_handshake_that_waits_for_its_turn_is_not_forgotten() {
    let upstream = Upstream::raw().await;
    let limits = "[limits]\nhandshake_rate = \"1/m\"\nhandshake_wait = \"90s\"";
    let proxy = Setup::to(upstream.endpoint()).also(limits).start().await;
    let (first, leg) = proxy.session(Over::Plain, &upstream).await;
    drop((first, leg));
    proxy.event("end").await;
    let descriptors = proxy.descriptors();
    let mut waiting = proxy.connect(Over::Tls).await;
    waiting.send(handshake("/")).await;
    eventually("it to be there", || proxy.descriptors() > descriptors).await;
    waiting.reset();
    nothing_is_left(&proxy, descriptors).await;
    // Its turn is the next one's, who would have to wait for two minutes otherwise.
    let mut waiting = proxy.plain().await;
    waiting.send(handshake("/")).await;
    eventually("it to be there", || proxy.descriptors() > descriptors).await;
    proxy.drain();
    waiting.response().await.refused(503, "shutting down");
    assert_eq!(proxy.exited().await, 0);
}

/// What was used up of a slow pace does not stand in the way of a faster one that a reload brings.
#[tokio::test]
async fn a_faster_pace_holds_from_its_reload_on() {
    let upstream = Upstream::raw().await;
    let limits = "[limits]\nhandshake_rate = \"1/h\"\nhandshake_wait = \"2s\"";
    let proxy = Setup::to(upstream.endpoint()).also(limits).start().await;
    let _first = proxy.session(Over::Plain, &upstream).await;
    let mut second = proxy.plain().await;
    second.send(handshake("/")).await;
    second.response().await.refused(503, "handshakes");
    proxy.edit("1/h", "1000/s");
    assert!(proxy.reload().await.contains("reloaded"));
    proxy.open(&mut second, &upstream).await;
}

/// A body that pauses after its answer has begun is held to `body_timeout` as well: nobody could be told by a status any
/// more, so the connection is reset, and the upstream's is closed.
#[tokio::test]
async fn a_body_that_pauses_under_its_answer_ends_it() {
    let upstream = Upstream::raw().await;
    let limits = "[limits]\nbody_timeout = \"500ms\"";
    let proxy = Setup::to(upstream.endpoint()).also(limits).start().await;
    let descriptors = proxy.descriptors();
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.expect("123").await;
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
        assert_eq!(client.head().await.status(), Some(200));
        client.expect("abc").await;
        assert_eq!(client.rest().await.1, Ending::Reset, "{over:?}");
        leg.rest().await;
        assert!(why(&proxy).await.contains("`body_timeout`"));
    }
    nothing_is_left(&proxy, descriptors).await;
}

/// 10,000 connections that are opened and reset in a row, in the middle of whatever was going on, leave nothing behind.
#[tokio::test]
async fn ten_thousand_resets_leave_nothing_behind() {
    let (proxy, upstream) = Proxy::scripted().await;
    let (first, leg) = proxy.session(Over::Tls, &upstream).await;
    drop((first, leg));
    proxy.event("end").await;
    let come_and_go = async |from: usize, to: usize| {
        for n in from..to {
            let over = BOTH[n % 2];
            let mut client = Wire::new(proxy.tcp(over).await);
            match (over, n % 3) {
                (_, 0) => {}
                // The beginning of a request, or of a TLS handshake.
                (Over::Plain, 1) => client.send("GET / HTTP/1.1\r\nHo").await,
                (Over::Tls, 1) => client.send([22, 3, 1, 0, 200, 1]).await,
                (Over::Plain, _) => client.send(handshake("/")).await,
                (Over::Tls, _) => client.send(noise(n as u64, 100)).await,
            }
            client.reset();
        }
    };
    come_and_go(0, 2_000).await;
    let taken = async {
        loop {
            drop(upstream.try_accept().await);
        }
    };
    let rest = async {
        eventually("the first to be gone", || proxy.descriptors() < 60).await;
        let (memory, descriptors) = (proxy.memory_kib("VmRSS"), proxy.descriptors());
        come_and_go(2_000, 10_000).await;
        nothing_is_left(&proxy, descriptors.max(40)).await;
        let grown = proxy.memory_kib("VmRSS").saturating_sub(memory);
        assert!(grown < 2 * 1024, "the process grew by {grown} KiB over 8,000 connections");
    };
    tokio::select! {
        () = rest => {}
        () = taken => {}
    }
    assert_eq!(proxy.plain().await.ask("GET / HTTP/1.1\r\n\r\n").await, Some(400));
}
