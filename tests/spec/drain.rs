//! How the process leaves: nothing new, what is in flight finishes, sessions are sent away at a pace, and then it is
//! gone; and how a route or an endpoint is drained while the process stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::certificates::trusting_file;
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::programs::{node, python};
use crate::support::wire::{KEY, accept, handshake, switching};
use crate::support::{
    BOTH, Ending, Over, Proxy, Served, Setup, Upstream, Wire, eventually, within,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

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
        proxy.draining().await;
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

/// As long as a session is there, the process can be reached: it says that it is not ready, turns handshakes away for
/// a few seconds, and answers requests for the last time on their connection.
#[tokio::test]
async fn while_sessions_leave_newcomers_are_told_to_come_again() {
    let upstream = Upstream::raw().await;
    let setup = Setup::to(upstream.endpoint()).route("close_timeout = \"40s\"");
    let proxy = setup.start().await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    let mut kept = proxy.plain().await;
    let answer = async {
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    };
    let (response, ()) = tokio::join!(kept.get("/"), answer);
    assert_eq!(response.head.field("connection"), None, "{response:?}");
    assert_eq!(proxy.ask("GET", "/readyz").await, (200, "ready\n".into()));

    proxy.drain();
    client.expect_close(1001).await;
    assert_eq!(proxy.ask("GET", "/readyz").await, (503, "draining\n".into()));
    assert_eq!(proxy.ask("GET", "/livez").await.0, 200);
    assert_eq!(proxy.told("GET", "/status").await["phase"], "draining");
    assert_eq!(kept.ask(&handshake("/")).await, Some(503));
    let mut waits = Vec::new();
    while waits.len() < 20 {
        let mut newcomer = proxy.plain().await;
        newcomer.send(handshake("/")).await;
        let response = newcomer.response().await;
        response.refused(503, "shutting down");
        assert!(response.head.is("connection", "close"), "{response:?}");
        let wait = response.head.field("retry-after").expect("when to come again").to_owned();
        waits.push(wait.parse::<u64>().expect("seconds"));
    }
    assert!(waits.iter().all(|wait| (1..=8).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait != waits[0]), "no jitter: {waits:?}");
    let mut late = proxy.plain().await;
    let answer = async {
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    };
    let (response, ()) = tokio::join!(late.get("/"), answer);
    assert!(response.head.is("connection", "close"), "{response:?}");

    client.send([masked(TEXT, "last"), masked(CLOSE, close(1001, ""))].concat()).await;
    leg.expect([masked(TEXT, "last"), masked(CLOSE, close(1001, ""))].concat()).await;
    leg.send(plain(CLOSE, close(1001, ""))).await;
    leg.finish().await;
    client.expect_end().await;
    drop(client);
    assert_eq!(proxy.exited().await, 0);
}

/// Who has connected when the process leaves is answered, however many they are: nobody is reset in the queue.
#[tokio::test]
async fn whoever_waits_in_the_queue_is_answered() {
    let proxy = Setup::builtin().start().await;
    proxy.signal(Signal::STOP);
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut waiting = Vec::new();
    for _ in 0..300 {
        let mut client = proxy.plain().await;
        client.send(request).await;
        waiting.push(client);
    }
    let mut unsecured = Vec::new();
    for _ in 0..20 {
        unsecured.push(proxy.tcp(Over::Tls).await);
    }
    let trust = Arc::new(trusting_file(&proxy.file("certs/ca.pem")));
    proxy.drain();
    let secured = unsecured.into_iter().map(|tcp| async {
        let secured = Proxy::try_tls_over(tcp, &trust, "localhost").await;
        let mut client = Wire::new(secured.expect("the TLS handshake succeeds"));
        client.send(request).await;
        client
    });
    // They are polled in this order, so that each has said something by then.
    let going_on = async { proxy.signal(Signal::CONT) };
    let (secured, ()) = tokio::join!(futures_util::future::join_all(secured), going_on);
    waiting.extend(secured);
    for client in &mut waiting {
        let response = client.response().await;
        assert_eq!(response.status(), 200);
    }
    drop(waiting);
    assert_eq!(proxy.exited().await, 0);
}

/// A signal that follows an operator's drain does not cut; the one after it does.
#[tokio::test]
async fn a_signal_after_an_operators_drain_is_no_second_one() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route("close_timeout = \"40s\"").start().await;
    let (mut client, _leg) = proxy.session(Over::Plain, &upstream).await;
    proxy.told("POST", "/drain").await;
    client.expect_close(1001).await;
    proxy.drain();
    proxy.says("draining already").await;
    assert_eq!(proxy.told("GET", "/status").await["sessions"], 1);
    proxy.drain();
    assert_eq!(proxy.exited().await, 3);
}

/// The Close has the code and the reason of the configuration.
#[tokio::test]
async fn a_drain_has_the_words_of_the_configuration() {
    let upstream = Upstream::raw().await;
    let words = "[drain]\nspread = \"0s\"\nclose_code = 1012\nreason = \"be right back\"";
    let proxy = Setup::to(upstream.endpoint()).also(words).start().await;
    let (mut client, mut leg) = proxy.session(Over::Tls, &upstream).await;
    proxy.drain();
    let frame = client.frame().await;
    assert_eq!((frame.code(), &frame.payload[2..]), (Some(1012), &b"be right back"[..]));
    client.send(masked(CLOSE, close(1012, ""))).await;
    leg.expect(masked(CLOSE, close(1012, ""))).await;
    leg.send(plain(CLOSE, close(1012, ""))).await;
    client.expect_end().await;
    assert_eq!(proxy.event("end").await["close_code_to_client"], 1012);
}

/// A client that never answers holds the process up until `drain.timeout`, and not for longer.
#[tokio::test]
async fn a_client_that_does_not_answer_is_cut_at_the_deadline() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint())
        .route("close_timeout = \"10m\"")
        .also("[drain]\ntimeout = \"2s\"\nspread = \"0s\"")
        .start()
        .await;
    let (mut silent, _leg) = proxy.session(Over::Plain, &upstream).await;
    let (mut polite, mut other) = proxy.session(Over::Plain, &upstream).await;
    proxy.drain();
    silent.expect_close(1001).await;
    polite.expect_close(1001).await;
    polite.send(masked(CLOSE, close(1001, ""))).await;
    other.expect(masked(CLOSE, close(1001, ""))).await;
    other.send(plain(CLOSE, close(1001, ""))).await;
    polite.expect_end().await;
    silent.rest().await;
    let whys = || {
        let ends = proxy.records().into_iter().filter(|record| record["event"] == "end");
        ends.map(|end| end["why"].clone()).collect::<Vec<_>>()
    };
    eventually("both to be on record", || whys().len() == 2).await;
    assert_eq!(proxy.exited().await, 3);
}

/// How long after `began` each of the sessions ended, in milliseconds.
fn waits(ends: &[Value], began: SystemTime) -> Vec<i64> {
    let millis = |end: &Value| {
        let time = end["time"].as_str().expect("a time");
        let number = |range: std::ops::Range<usize>| time[range].parse::<i64>().expect("digits");
        ((number(11..13) * 60 + number(14..16)) * 60 + number(17..19)) * 1000 + number(20..23)
    };
    let began = began.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    let began = i64::try_from(began % u128::from(DAY_MS.unsigned_abs())).expect("part of a day");
    ends.iter().map(|end| (millis(end) - began).rem_euclid(DAY_MS)).collect()
}

/// How many in each of `parts` parts of `spread_ms`, and after that in the last.
fn histogram(waits: impl IntoIterator<Item = i64>, spread_ms: i64, parts: usize) -> Vec<usize> {
    let mut counts = vec![0; parts];
    for wait in waits {
        let part = usize::try_from(wait * parts as i64 / spread_ms).expect("not before");
        counts[part.min(parts - 1)] += 1;
    }
    counts
}

/// 2,000 sessions in the middle of their talk are sent away evenly: every strict client hears 1001 and finds no fault,
/// and the process leaves with the last one.
#[tokio::test]
async fn two_thousand_sessions_leave_at_an_even_pace() {
    const SESSIONS: usize = 2_000;
    let count = SESSIONS.to_string();
    let server = python("exchange.py", &["server", &count, "3000"]);
    let line = server.stdout.containing("listening on ").await;
    let port = line.rsplit(' ').next().unwrap_or_default();
    let proxy = Setup::to(&format!("http://127.0.0.1:{port}"))
        .route("close_timeout = \"40s\"")
        .also("[drain]\nspread = \"8s\"\ntimeout = \"60s\"")
        .start()
        .await;
    let ca = proxy.file("certs/ca.pem");
    let url = proxy.ws_url(Over::Plain, "");
    let arguments = ["client", &count, &url, &ca.to_string_lossy(), "1", "3000"];
    let mut client = node("exchange.js", &arguments);
    client.stdout.containing("open").await;
    client.stdout.containing("received ").await;
    let began = SystemTime::now();
    proxy.drain();
    assert_eq!(client.exited().await, 0);
    let ends = || {
        let records = proxy.records().into_iter();
        records.filter(|record| record["event"] == "end").collect::<Vec<Value>>()
    };
    eventually("all to be on record", || ends().len() == SESSIONS).await;
    let reports: Vec<Value> = client
        .stdout
        .so_far()
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .collect();
    assert_eq!(reports.len(), SESSIONS);
    for report in &reports {
        assert_eq!((&report["code"], &report["errors"]), (&1001.into(), &Value::Array(vec![])));
    }
    let ends = ends();
    let mut whys: BTreeMap<String, usize> = BTreeMap::new();
    for end in &ends {
        *whys.entry(format!("{} {}", end["why"], end["protocol_error"])).or_default() += 1;
    }
    assert_eq!(whys, BTreeMap::from([("\"drain\" null".to_owned(), SESSIONS)]));
    // 250 each; two busy cores make some of them late, and none of them early.
    let waits = waits(&ends, began);
    let first = waits.iter().min().expect("some");
    let since_signal = histogram(waits.iter().copied(), 8_000, 8);
    let since_first = histogram(waits.iter().map(|wait| wait - first), 8_000, 8);
    eprintln!("sessions that left in each second: {since_first:?}");
    let sum = |counts: &[usize], seconds| counts.iter().take(seconds).sum::<usize>();
    for seconds in 1..=8 {
        assert!(sum(&since_signal, seconds) <= seconds * 250 + 100, "early: {since_signal:?}");
        assert!(sum(&since_first, seconds) + 500 >= seconds * 250, "late: {since_first:?}");
    }
    assert_eq!(proxy.exited().await, 0);
}

/// A route that is drained sends its sessions away and takes no new ones, until that is taken back; the other route
/// does not notice.
#[tokio::test]
async fn a_route_is_drained_and_taken_back() {
    let upstream = Upstream::raw().await;
    let chat = "[[route]]\npath = \"/chat\"\nupstream = \"app\"";
    let proxy = Setup::to(upstream.endpoint()).also(chat).start().await;
    let (mut other, mut other_leg) = proxy.session(Over::Plain, &upstream).await;
    let mut client = proxy.connect(Over::Tls).await;
    client.send(handshake("/chat")).await;
    let mut leg = upstream.accept().await;
    leg.accept().await;
    client.head().await;
    // One more is on its way when the drain begins.
    let mut late = proxy.plain().await;
    late.send(handshake("/chat/late")).await;
    let mut late_leg = upstream.accept().await;
    late_leg.head().await;

    let done = proxy.told("POST", "/drain?route=/chat").await;
    assert_eq!(done["sessions"], 1);
    client.expect_close(1001).await;
    client.send(masked(CLOSE, close(1001, ""))).await;
    leg.expect(masked(CLOSE, close(1001, ""))).await;
    leg.send(plain(CLOSE, close(1001, ""))).await;
    client.expect_end().await;
    late_leg.send(switching(&accept(KEY), "")).await;
    late.response().await.refused(503, "this route is being drained");
    let mut newcomer = proxy.plain().await;
    newcomer.send(handshake("/chat")).await;
    let response = newcomer.response().await;
    response.refused(503, "this route is being drained");
    assert!(response.head.field("retry-after").is_some(), "{response:?}");
    let states = async || {
        let status = proxy.told("GET", "/status").await;
        let routes = status["routes"].as_array().expect("routes").clone();
        routes.iter().map(|route| route["state"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["up", "draining"]);
    // A reload does not take it back.
    assert!(proxy.reload().await.contains(" reloaded "));
    assert_eq!(states().await, ["up", "draining"]);
    assert_eq!(proxy.ask("GET", "/readyz").await.0, 200);
    other.send(masked(TEXT, "still here")).await;
    other_leg.expect(masked(TEXT, "still here")).await;

    proxy.told("POST", "/undrain?route=/chat").await;
    assert_eq!(states().await, ["up", "up"]);
    let mut again = proxy.plain().await;
    again.send(handshake("/chat")).await;
    upstream.accept().await.accept().await;
    assert_eq!(again.head().await.status(), Some(101));
    let end = proxy.event("end").await;
    assert_eq!((&end["why"], &end["ended_by"]), (&"route drained".into(), &"tidegate".into()));
}

/// An endpoint that is drained gets no new sessions and no requests; its sessions may come again at once (1012), and
/// find another. When all are drained, there is a 503.
#[tokio::test]
async fn an_endpoint_is_drained_and_taken_back() {
    let (one, two) = (Served::greeting("one").await, Served::greeting("two").await);
    let proxy = Setup::to_all(&[one.endpoint(), two.endpoint()]).start().await;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(proxy.websocket(Over::Plain, "/").await);
    }
    assert_eq!((one.open(), two.open()), (10, 10));
    let endpoint = one.endpoint().trim_start_matches("http://");
    let done = proxy.told("POST", &format!("/drain?upstream=app&endpoint={endpoint}")).await;
    assert_eq!(done["sessions"], 10);
    let reading = sessions.into_iter().map(|socket| tokio::spawn(closed_with(socket)));
    let reading: Vec<_> = reading.collect();
    eventually("its sessions to leave", || one.open() == 0).await;
    assert_eq!(two.open(), 10);
    for _ in 0..5 {
        sessions_of(&proxy).await;
    }
    assert_eq!((one.open(), one.accepted()), (0, 10));
    let other = two.endpoint();
    proxy.told("POST", &format!("/drain?upstream=app&endpoint={other}")).await;
    let codes = futures_util::future::join_all(reading).await;
    assert!(codes.into_iter().all(|code| code.is_ok_and(|code| code == Some(1012))));
    for request in [handshake("/"), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".into()] {
        let mut newcomer = proxy.plain().await;
        newcomer.send(request).await;
        newcomer.response().await.refused(503, "every endpoint of this route is being drained");
    }
    proxy.told("POST", &format!("/undrain?upstream=app&endpoint={endpoint}")).await;
    sessions_of(&proxy).await;
    assert_eq!(one.accepted(), 11);
    let status = proxy.told("GET", "/status").await;
    let states = status.pointer("/upstreams/0/endpoints").and_then(Value::as_array).cloned();
    let states: Vec<_> =
        states.expect("endpoints").iter().map(|endpoint| endpoint["state"].clone()).collect();
    assert_eq!(states, ["up", "draining"]);
}

/// A session that is opened and left.
async fn sessions_of(proxy: &Proxy) {
    use futures_util::StreamExt as _;
    let mut socket = proxy.websocket(Over::Plain, "/").await;
    within("a greeting", socket.next()).await.expect("a message").expect("a good one");
}

/// The code with which a session is closed.
async fn closed_with(
    mut socket: tokio_tungstenite::WebSocketStream<crate::support::Wire>,
) -> Option<u16> {
    use futures_util::StreamExt as _;
    use tokio_tungstenite::tungstenite::Message;
    let mut code = None;
    while let Some(Ok(message)) = within("a message or the end", socket.next()).await {
        if let Message::Close(Some(frame)) = message {
            code = Some(frame.code.into());
        }
    }
    code
}

/// `/drain` without a route or an endpoint is what a signal is.
#[tokio::test]
async fn the_process_is_drained_by_the_admin_interface() {
    let (proxy, upstream) = Proxy::scripted().await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    assert_eq!(proxy.told("POST", "/drain").await["sessions"], 1);
    client.expect_close(1001).await;
    assert_eq!(proxy.ask("POST", "/reload").await.0, 422);
    client.send(masked(CLOSE, close(1001, ""))).await;
    leg.expect(masked(CLOSE, close(1001, ""))).await;
    leg.send(plain(CLOSE, close(1001, ""))).await;
    client.expect_end().await;
    assert_eq!(proxy.exited().await, 0);
}
