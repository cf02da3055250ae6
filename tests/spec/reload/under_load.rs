//! Reloads while everything is busy: what they are not about does not notice them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use futures_util::{SinkExt, future};
use tokio_tungstenite::WebSocketStream;

use super::{reloaded, route, session};
use crate::support::frames::{PING, PONG, TEXT, masked};
use crate::support::{BOTH, Over, Proxy, Served, Setup, Wire, eventually, within};

const SESSIONS: usize = 500;
const RELOADS: usize = 200;
/// The first reloads may make the process grow: allocators warm up.
const WARM: usize = 20;
/// Each session says something so often, so that two cores can keep up in a debug build.
const PACE: Duration = Duration::from_millis(200);
/// And the reloads take long enough for that: one takes a few milliseconds.
const RELOAD_PACE: Duration = Duration::from_millis(40);
/// More than this would be something that each reload leaves behind.
const MOST_GROWN_KIB: u64 = 2 * 1024;

/// Exchanges numbered messages until `is_over`, and once more then; how many.
async fn converse(mut socket: WebSocketStream<Wire>, is_over: &AtomicBool) -> usize {
    let mut ticks = tokio::time::interval(PACE);
    for number in 0.. {
        ticks.tick().await;
        let is_last = is_over.load(Ordering::Relaxed);
        socket.send(format!("number {number}").into()).await.expect("the session is open");
        let answer = within("an answer", socket.next()).await.expect("no end").expect("no error");
        assert_eq!(answer.into_text().expect("text"), format!("number {number}"));
        if is_last {
            within("a close", socket.close(None)).await.expect("the session is open");
            return number + 1;
        }
    }
    unreachable!("nobody counts to the end")
}

/// Comes and goes by a listener until `is_over`: a handshake, a message, a goodbye; how often.
async fn come_and_go(proxy: &Proxy, over: Over, is_over: &AtomicBool) -> usize {
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut socket = proxy.websocket(over, "/").await;
        socket.send("hello".into()).await.expect("the session is open");
        within("an answer", socket.next()).await.expect("no end").expect("no error");
        within("a close", socket.close(None)).await.expect("the session is open");
        // tungstenite leaves when it has read the other Close.
        while within("the end", socket.next()).await.is_some_and(|message| message.is_ok()) {}
        count += 1;
    }
    count
}

/// Asks on one connection for the page of the route that is changed all the time, until `is_over`; how often.
async fn keep_asking(proxy: &Proxy, is_over: &AtomicBool) -> usize {
    let mut client = proxy.plain().await;
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        assert_eq!(client.get("/aside").await.status(), 200);
        count += 1;
    }
    count
}

/// Reloads again and again, by turns with a signal and by the admin socket. Each changes a route that is nobody's
/// business, and every tenth one brings or takes another. Memory and descriptors after the first few, and after all.
async fn reload_all_the_time(proxy: &Proxy) -> [(u64, usize); 2] {
    let more = route("/more", "page");
    let file = proxy.file("proxy.toml");
    let text = std::fs::read_to_string(&file).expect("the file is ours");
    let mut warm = (0, 0);
    let mut ticks = tokio::time::interval(RELOAD_PACE);
    for number in 0..RELOADS {
        ticks.tick().await;
        let timeout = format!("idle_timeout = \"{}s\"", 100 + number);
        let more = if number / 10 % 2 == 0 { "" } else { &more };
        let changed = text.replace("idle_timeout = \"99s\"", &timeout) + "\n" + more;
        std::fs::write(&file, changed).expect("the file is ours");
        if number % 2 == 0 {
            proxy.told("POST", "/reload").await;
        } else {
            // The word of the reload before may come after its answer, and is not of this one.
            let told = || proxy.stderr().matches(" reloaded ").count();
            eventually("word of the reloads before", || told() == number).await;
            reloaded(proxy).await;
        }
        if number + 1 == WARM {
            warm = (proxy.memory_kib("VmRSS"), proxy.descriptors());
        }
    }
    [warm, (proxy.memory_kib("VmRSS"), proxy.descriptors())]
}

/// 200 reloads in a row, under 500 sessions that talk and newcomers that come and go: nobody is closed, nothing is
/// lost or out of order, nobody is turned away, and the process does not grow.
#[tokio::test]
async fn two_hundred_reloads_under_load_disturb_nobody() {
    let echo = Served::echo().await;
    let aside = "[upstream.page]\nbuiltin = \"echo\"\n\n[[route]]\npath = \"/aside\"\nupstream = \"page\"\nidle_timeout = \"99s\"\n";
    let proxy = Setup::to(echo.endpoint()).also(aside).start().await;
    let opening = (0..SESSIONS).map(|number| proxy.websocket(BOTH[number % 2], "/"));
    let opened = stream::iter(opening).buffer_unordered(32).collect::<Vec<_>>();
    let sessions = within("the sessions to open", opened).await;

    let is_over = AtomicBool::new(false);
    let conversations = join_all(sessions.into_iter().map(|socket| converse(socket, &is_over)));
    let newcomers = join_all(BOTH.map(|over| come_and_go(&proxy, over, &is_over)));
    let reloads = async {
        let grown = reload_all_the_time(&proxy).await;
        is_over.store(true, Ordering::Relaxed);
        grown
    };
    let asking = keep_asking(&proxy, &is_over);
    // What each of them waits for has a deadline of its own.
    let (said, came, asked, grown) = future::join4(conversations, newcomers, asking, reloads).await;

    let said: usize = said.iter().sum();
    eprintln!(
        "{said} messages, {came:?} newcomers, {asked} requests, {grown:?} KiB and descriptors"
    );
    assert!(said > SESSIONS * 10 && came.iter().all(|count| *count > 10) && asked > 10);
    let [(memory, descriptors), (memory_after, descriptors_after)] = grown;
    assert!(memory_after < memory + MOST_GROWN_KIB, "the process grew: {grown:?}");
    // The newcomers have some of them at any time.
    assert!(descriptors_after.abs_diff(descriptors) <= 12, "{grown:?}");
    let total = SESSIONS + came.iter().sum::<usize>();
    let ended = || proxy.records().iter().filter(|record| record["event"] == "end").count();
    eventually("a record for each session", || ended() == total).await;
    for record in proxy.records() {
        let is_well = record["event"] != "end"
            || (record["ended_by"] == "client" && record["why"] == "closed");
        assert!(is_well && record["status"].as_u64().is_none_or(|status| status < 400), "{record}");
    }
    let status = proxy.told("GET", "/status").await;
    assert_eq!(status["config"]["reloads_total"], RELOADS, "{status}");
}

/// Handshakes on `path` until `is_over`; how many, and how many of those sessions were sent away again.
async fn shake_hands(proxy: &Proxy, is_over: &AtomicBool) -> (usize, usize) {
    let (mut opened, mut sent_away) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        let mut wire = session(proxy, "/").await;
        opened += 1;
        let mut frame = wire.frame().await;
        if frame.opcode == TEXT {
            wire.send(masked(PING, "still here?")).await;
            frame = wire.frame().await;
        }
        if frame.opcode != PONG {
            assert_eq!(frame.code(), Some(1012), "{frame:?}");
            sent_away += 1;
        }
    }
    (opened, sent_away)
}

/// One endpoint in the place of the other, again and again: a handshake finds the old one or the new one, never none.
#[tokio::test]
async fn a_handshake_always_finds_an_endpoint() {
    let (red, blue) = (Served::greeting("red").await, Served::greeting("blue").await);
    let proxy = Setup::to(red.endpoint()).start().await;
    let is_over = AtomicBool::new(false);
    let coming = join_all((0..16).map(|_| shake_hands(&proxy, &is_over)));
    let replacing = async {
        let mut pair = [red.endpoint(), blue.endpoint()];
        for _ in 0..100 {
            proxy.edit(pair[0], pair[1]);
            proxy.told("POST", "/reload").await;
            pair.reverse();
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (came, ()) = future::join(coming, replacing).await;
    let opened: usize = came.iter().map(|(opened, _)| opened).sum();
    eprintln!(
        "{opened} handshakes, {} sent away",
        came.iter().map(|(_, away)| away).sum::<usize>()
    );
    assert!(opened > 100, "{opened}");
}
