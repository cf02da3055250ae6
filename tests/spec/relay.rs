//! The relay: two legs, joined until both directions are closed; nothing changed, torn or lost.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::frames::{TEXT, masked, plain};
use crate::support::{BOTH, Ending, Over, Proxy, Served, Setup, Upstream, noise, sha256, within};

/// One message of 64 MiB, there and back, intact by its SHA-256.
#[tokio::test]
async fn a_message_of_64_mib_passes_each_way() {
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let sent = bytes::Bytes::from(noise(3, 64 << 20));
    let wanted = sha256(&sent);
    for over in BOTH {
        let mut socket = proxy.websocket(over, "/").await;
        within("the message to leave", socket.send(Message::Binary(sent.clone())))
            .await
            .expect("the proxy reads");
        let got = within("the message to come back", socket.next())
            .await
            .expect("a message")
            .expect("a good one");
        assert_eq!(sha256(got.into_data()), wanted);
    }
}

/// Both directions at once, cut into pieces of every size, each byte once and in order.
#[tokio::test]
async fn pieces_of_every_size_pass_both_ways_at_once() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let (client, leg) = proxy.session(over, &upstream).await;
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_leg, mut to_leg) = tokio::io::split(leg);
        let (up, down) = (noise(4, 4 << 20), noise(5, 4 << 20));
        let (mut up_got, mut down_got) = (vec![0; up.len()], vec![0; down.len()]);
        let all = async {
            tokio::join!(
                in_pieces(&mut to_client, &up),
                in_pieces(&mut to_leg, &down),
                async { from_leg.read_exact(&mut up_got).await.expect("all of it") },
                async { from_client.read_exact(&mut down_got).await.expect("all of it") },
            );
        };
        within("8 MiB to pass", all).await;
        assert_eq!((sha256(&up_got), sha256(&down_got)), (sha256(&up), sha256(&down)));
    }
}

/// Writes `bytes` in pieces whose lengths go through small, odd and large.
pub(crate) async fn in_pieces(to: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) {
    let mut rest = bytes;
    let mut length = 1;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        to.write_all(piece).await.expect("the proxy reads");
        to.flush().await.expect("the proxy reads");
        rest = after;
        length = length * 7 % 50_021 + 1;
    }
}

/// A client that has ended its direction still hears the upstream: FIN is half a goodbye.
#[tokio::test]
async fn a_clients_fin_leaves_the_other_direction_open() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        client.send("that is all").await;
        client.finish().await;
        assert_eq!(leg.rest().await, (b"that is all".to_vec(), Ending::Closed));
        leg.send("and my answer").await;
        client.expect("and my answer").await;
        leg.finish().await;
        client.expect_end().await;
    }
}

/// The same from the upstream's side.
#[tokio::test]
async fn an_upstreams_fin_leaves_the_other_direction_open() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        leg.send("that is all").await;
        leg.finish().await;
        client.expect("that is all").await;
        client.expect_end().await;
        client.send("and my answer").await;
        leg.expect("and my answer").await;
        client.finish().await;
        leg.expect_end().await;
    }
}

/// Half a goodbye is bounded: at `half_close_timeout` the session ends.
#[tokio::test]
async fn half_a_session_ends_at_half_close_timeout() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route("half_close_timeout = \"1s\"").start().await;
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        client.finish().await;
        leg.rest().await;
        client.rest().await;
    }
    let end = proxy.event("end").await;
    assert_eq!((&end["ended_by"], &end["why"]), (&"tidegate".into(), &"half-close timeout".into()));
}

/// A client's RST ends the upstream's leg at once, with an RST.
#[tokio::test]
async fn a_clients_reset_resets_the_upstream() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        client.send("x").await;
        leg.expect("x").await;
        client.reset();
        assert_eq!(leg.rest().await.1, Ending::Reset);
    }
    let end = proxy.event("end").await;
    assert_eq!((&end["ended_by"], &end["why"]), (&"client".into(), &"reset".into()));
}

/// An upstream's RST ends the client's leg at once, with an RST.
#[tokio::test]
async fn an_upstreams_reset_resets_the_client() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        client.send("x").await;
        leg.expect("x").await;
        leg.reset();
        assert_eq!(client.rest().await.1, Ending::Reset);
    }
    let end = proxy.event("end").await;
    assert_eq!((&end["ended_by"], &end["why"]), (&"upstream".into(), &"reset".into()));
}

/// A FIN without close_notify may be an attacker's (RFC 8446 §6.1): it is told apart from an orderly end in the log.
#[tokio::test]
async fn a_truncated_tls_leg_is_told_apart() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    let (mut client, mut leg) = proxy.session(Over::Tls, &upstream).await;
    client.send("x").await;
    leg.expect("x").await;
    client.cut();
    leg.rest().await;
    drop(leg);
    let end = proxy.event("end").await;
    assert_eq!((&end["ended_by"], &end["why"]), (&"client".into(), &"truncated".into()));
}

/// The end of TLS is an end, though it comes with the last bytes and no FIN comes at all.
#[tokio::test]
async fn a_close_notify_behind_the_last_bytes_is_an_end() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route("frames = \"off\"").start().await;
    let (mut client, mut upstream) = proxy.session(Over::Tls, &upstream).await;
    let last = [client.seal("the last"), client.seal_end()].concat();
    client.send_sealed(&last).await;
    upstream.expect("the last").await;
    upstream.expect_end().await;
}

/// What was sent before an upstream's FIN arrives, however slowly the client reads.
#[tokio::test]
async fn nothing_is_lost_before_a_fin() {
    let (proxy, upstream) = Proxy::scripted().await;
    let sent = noise(6, 8 << 20);
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        let (got, ()) = tokio::join!(client.rest(), async {
            leg.send(&sent).await;
            leg.finish().await;
            drop(leg);
        });
        assert_eq!((sha256(got.0), got.1), (sha256(&sent), Ending::Closed));
    }
}

/// A session on which nothing moves ends at `idle_timeout`, swept about once a second.
#[tokio::test]
async fn an_idle_session_ends_at_idle_timeout() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route("idle_timeout = \"1s\"").start().await;
    for over in BOTH {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        client.rest().await;
        leg.rest().await;
    }
    let end = proxy.event("end").await;
    assert_eq!((&end["ended_by"], &end["why"]), (&"tidegate".into(), &"idle timeout".into()));
}

/// Traffic in either direction keeps a session from being idle.
#[tokio::test]
async fn traffic_keeps_a_session_open() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint())
        .route("idle_timeout = \"2s\"\nframes = \"off\"")
        .start()
        .await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    for tick in 0..12 {
        ticks.tick().await;
        if tick % 2 == 0 {
            client.send("x").await;
            leg.expect("x").await;
        } else {
            leg.send("y").await;
            client.expect("y").await;
        }
    }
}

/// A reader that stops is felt by the writer; what the process holds meanwhile is a few MiB at the most.
#[tokio::test]
async fn a_reader_that_stops_costs_little_memory() {
    let (proxy, upstream) = Proxy::scripted().await;
    let flood = noise(7, 64 << 20);
    for over in BOTH {
        for client_stops in [true, false] {
            let (client, leg) = proxy.session(over, &upstream).await;
            let (mut reader, mut writer) = if client_stops { (client, leg) } else { (leg, client) };
            let before = proxy.memory_kib("VmRSS");
            let stuck = writer.send_until_stuck(&flood).await;
            assert!(stuck < flood.len(), "the writer was never stopped");
            let grown = proxy.memory_kib("VmRSS").saturating_sub(before);
            assert!(
                grown < 6 * 1024,
                "{over:?}, client stops: {client_stops}: the process grew by {grown} KiB"
            );
            let (got, ()) = tokio::join!(reader.rest(), async {
                writer.send(&flood[stuck..]).await;
                writer.finish().await;
            });
            assert_eq!(sha256(got.0), sha256(&flood));
        }
    }
}

/// More streams at once than there are workers, each with more than the kernel holds for it: all of them come to
/// their end, and whoever has little to say is heard in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn floods_at_once_all_arrive() {
    let (proxy, upstream) = Proxy::scripted().await;
    let flood = bytes::Bytes::from(noise(9, 24 << 20));
    let wanted = sha256(&flood);
    let (question, answer) = (masked(TEXT, "question"), plain(TEXT, "answer"));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    let mut floods = tokio::task::JoinSet::new();
    for _ in 0..(3 * workers).min(24) {
        let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
        let flood = flood.clone();
        floods.spawn(async move {
            let writing = async {
                client.send(&flood).await;
                client.finish().await;
            };
            let (got, ()) = tokio::join!(leg.rest(), writing);
            sha256(got.0)
        });
    }
    let exchanges = async {
        for _ in 0..50 {
            client.send(&question).await;
            leg.expect(&question).await;
            leg.send(&answer).await;
            client.expect(&answer).await;
        }
    };
    within("a word between them", exchanges).await;
    while let Some(got) = within("the next flood to arrive", floods.join_next()).await {
        assert_eq!(got.expect("nobody panicked"), wanted);
    }
}

/// While one session is stuck, another on the same worker is not.
#[tokio::test]
async fn a_stuck_session_does_not_stop_another() {
    let (proxy, upstream) = Proxy::scripted().await;
    let flood = noise(8, 64 << 20);
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let (client, mut leg) = proxy.session(Over::Tls, &upstream).await;
        leg.send_until_stuck(&flood).await;
        stuck.push((client, leg));
    }
    for over in [Over::Plain, Over::Tls, Over::Plain, Over::Tls] {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        client.send("still").await;
        leg.expect("still").await;
        leg.send("here").await;
        client.expect("here").await;
    }
}

/// A stuck session whose reader goes away for good ends on the other side too.
#[tokio::test]
async fn a_stuck_session_ends_with_its_reader() {
    let (proxy, upstream) = Proxy::scripted().await;
    let flood = noise(9, 64 << 20);
    for over in BOTH {
        let (client, mut leg) = proxy.session(over, &upstream).await;
        leg.send_until_stuck(&flood).await;
        client.reset();
        assert_eq!(leg.rest().await.1, Ending::Reset);
    }
}

/// A session has a line when it opens and one when it ends, under one id, with what went each way.
#[tokio::test]
async fn a_session_is_logged_when_it_opens_and_when_it_ends() {
    let (proxy, upstream) = Proxy::scripted().await;
    let (mut client, mut leg) = proxy.session(Over::Tls, &upstream).await;
    let open = proxy.event("open").await;
    client.send("12345").await;
    leg.expect("12345").await;
    leg.send("123").await;
    leg.finish().await;
    client.expect("123").await;
    client.expect_end().await;
    client.finish().await;
    leg.expect_end().await;
    let end = proxy.event("end").await;
    assert_eq!(open["id"], end["id"]);
    assert_eq!(
        (&open["tls"], &open["upstream"], &open["status"]),
        (&"1.3".into(), &"app".into(), &101.into())
    );
    assert!(
        upstream
            .endpoint()
            .contains(open["endpoint"].as_str().unwrap_or("?").trim_start_matches("http://"))
    );
    assert_eq!(
        (&end["client_to_upstream_bytes"], &end["upstream_to_client_bytes"]),
        (&5.into(), &3.into())
    );
    assert_eq!((&end["ended_by"], &end["why"]), (&"upstream".into(), &"closed".into()));
    assert!(open["handshake_ms"].is_number() && end["duration_ms"].is_number(), "{open} {end}");
}

/// A client that leaves in the middle of a download, politely or by a reset, takes the upstream with it, whatever that still has to say:
/// it is neither read on nor left waiting.
#[tokio::test]
async fn an_upstream_that_talks_on_hears_that_its_client_is_gone() {
    let upstream = Upstream::raw().await;
    // No timeout of the session's may be what ends it.
    let timeouts = "half_close_timeout = \"1h\"\nclose_timeout = \"1h\"";
    let proxy = Setup::to(upstream.endpoint()).route(timeouts).start().await;
    for (over, is_reset) in BOTH.into_iter().flat_map(|over| [(over, true), (over, false)]) {
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        leg.send("begin").await;
        client.expect("begin").await;
        if is_reset {
            client.reset()
        } else {
            drop(client)
        }
        let piece = vec![b'x'; 1 << 16];
        within("the upstream to be stopped", async { while leg.try_send(&piece).await.is_ok() {} })
            .await;
        let end = proxy.event("end").await;
        assert_eq!(end["ended_by"], "client", "{over:?}, reset: {is_reset}");
    }
}
