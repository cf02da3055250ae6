//! How sessions end, and what each side and the log are told of it: a matrix of endings, each with the exact fields of its record.

use serde_json::{Value, json};

use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, TEXT, close, masked, plain, with_first_byte,
};
use crate::support::{BOTH, Ending, Over, Proxy, Setup, Upstream, Wire, noise, sha256};

/// A session with both ends in the test's hand, on a proxy of its own.
struct Scene {
    proxy: Proxy,
    client: Wire,
    upstream: Wire,
}

impl Scene {
    async fn with(over: Over, keys: &str) -> Scene {
        let upstream = Upstream::raw().await;
        let proxy = Setup::to(upstream.endpoint()).route(keys).start().await;
        let (client, upstream) = proxy.session(over, &upstream).await;
        Scene { proxy, client, upstream }
    }

    /// Both ends leave. Checks what the record says of how the session ended: just these fields, of those that only some ends have.
    async fn ends(self, wanted: Value) {
        let told = self.record(|field| ENDINGS.contains(&field)).await;
        assert_eq!(told, wanted);
    }

    /// The same for these fields alone.
    async fn tells(self, wanted: Value) {
        let told = self.record(|field| wanted.get(field).is_some()).await;
        assert_eq!(told, wanted);
    }

    /// The fields of the record at the end that are wanted.
    async fn record(self, is_wanted: impl Fn(&str) -> bool) -> Value {
        let Scene { proxy, client, upstream } = self;
        drop((client, upstream));
        let mut end = proxy.event("end").await;
        end.as_object_mut().expect("a line is an object").retain(|field, _| is_wanted(field));
        end
    }
}

/// The fields of a record that say how a session ended.
const ENDINGS: [&str; 10] = [
    "client_close_code",
    "client_close_reason",
    "upstream_close_code",
    "upstream_close_reason",
    "close_code_to_client",
    "close_code_to_upstream",
    "ended_by",
    "why",
    "protocol_error",
    "reason",
];

/// The client closes: RFC 6455 §7.1.2. Its Close goes through as it is, and so does the answer.
#[tokio::test]
async fn the_client_closes() {
    for over in BOTH {
        let mut scene = Scene::with(over, "").await;
        let goodbye = masked(CLOSE, close(4001, "bye"));
        scene.client.send(&goodbye).await;
        scene.upstream.expect(&goodbye).await;
        let answer = plain(CLOSE, close(4001, ""));
        scene.upstream.send(&answer).await;
        scene.upstream.finish().await;
        scene.client.expect(&answer).await;
        scene.client.expect_end().await;
        scene.client.finish().await;
        scene.upstream.expect_end().await;
        let wanted = json!({
            "client_close_code": 4001, "client_close_reason": "bye", "upstream_close_code": 4001,
            "ended_by": "client", "why": "closed",
        });
        scene.ends(wanted).await;
    }
}

/// A client that has said Close has its end with the answer, whenever the upstream closes: RFC 6455 §7.1.1. That one is
/// still waited for, and what it says meanwhile goes nowhere: §1.4.
#[tokio::test]
async fn a_clients_end_comes_with_the_second_close() {
    for over in BOTH {
        let mut scene = Scene::with(over, "close_timeout = \"1h\"").await;
        scene.client.send(masked(CLOSE, close(1000, ""))).await;
        scene.upstream.expect(masked(CLOSE, close(1000, ""))).await;
        scene.upstream.send(plain(CLOSE, close(1000, ""))).await;
        scene.client.expect(plain(CLOSE, close(1000, ""))).await;
        scene.client.expect_end().await;
        scene.upstream.send(plain(BINARY, noise(31, 1 << 20))).await;
        scene.upstream.finish().await;
        scene.client.finish().await;
        scene.upstream.expect_end().await;
        scene
            .tells(json!({ "ended_by": "client", "why": "closed", "upstream_to_client_bytes": 4 }))
            .await;
    }
}

/// The upstream closes. A Close without a code is one that applications see as 1005: RFC 6455 §7.1.5.
#[tokio::test]
async fn the_upstream_closes() {
    for over in BOTH {
        let mut scene = Scene::with(over, "").await;
        scene.upstream.send(plain(CLOSE, "")).await;
        scene.client.expect(plain(CLOSE, "")).await;
        scene.client.send(masked(CLOSE, "")).await;
        scene.upstream.expect(masked(CLOSE, "")).await;
        scene.upstream.finish().await;
        scene.client.expect_end().await;
        let wanted = json!({
            "client_close_code": 1005, "upstream_close_code": 1005,
            "ended_by": "upstream", "why": "closed",
        });
        scene.ends(wanted).await;
    }
}

/// Both close at once, and each Close goes through: RFC 6455 §7.1.3. Who was first is who was heard first.
#[tokio::test]
async fn both_close_at_once() {
    for over in BOTH {
        let mut scene = Scene::with(over, "").await;
        let (theirs, ours) = (plain(CLOSE, close(1000, "")), masked(CLOSE, close(4000, "")));
        tokio::join!(scene.upstream.send(&theirs), scene.client.send(&ours));
        scene.client.expect(&theirs).await;
        scene.upstream.expect(&ours).await;
        scene.upstream.finish().await;
        scene.client.expect_end().await;
        scene.client.finish().await;
        let wanted = json!({
            "client_close_code": 4000, "upstream_close_code": 1000, "why": "closed",
        });
        scene.tells(wanted).await;
    }
}

/// A Close that is not answered is not waited for longer than `close_timeout`.
#[tokio::test]
async fn a_close_that_is_not_answered() {
    for over in BOTH {
        let mut scene = Scene::with(over, "close_timeout = \"200ms\"").await;
        scene.client.send(masked(CLOSE, close(1000, ""))).await;
        scene.upstream.expect(masked(CLOSE, close(1000, ""))).await;
        scene.client.expect_end().await;
        scene.upstream.expect_end().await;
        scene
            .ends(json!({ "client_close_code": 1000, "ended_by": "client", "why": "closed" }))
            .await;
    }
}

/// The client leaves without a Close: the upstream is told 1001 before the FIN, and its answer still goes to the client.
#[tokio::test]
async fn the_client_leaves_without_a_close() {
    for over in BOTH {
        let mut scene = Scene::with(over, "").await;
        scene.client.send(masked(TEXT, "last words")).await;
        scene.client.finish().await;
        scene.upstream.expect(masked(TEXT, "last words")).await;
        scene.upstream.expect_close(1001).await;
        scene.upstream.expect_end().await;
        scene.upstream.send(plain(CLOSE, close(1001, ""))).await;
        scene.client.expect_close(1001).await;
        scene.upstream.finish().await;
        scene.client.expect_end().await;
        let wanted = json!({
            "upstream_close_code": 1001, "close_code_to_upstream": 1001,
            "ended_by": "client", "why": "gone",
        });
        scene.ends(wanted).await;
    }
}

/// The upstream leaves without a Close: the client is told 1014, bad gateway, and not left with 1006.
#[tokio::test]
async fn the_upstream_leaves_without_a_close() {
    for over in BOTH {
        let mut scene = Scene::with(over, "").await;
        scene.upstream.send(plain(TEXT, "last words")).await;
        scene.upstream.finish().await;
        scene.client.expect(plain(TEXT, "last words")).await;
        scene.client.expect_close(1014).await;
        scene.client.expect_end().await;
        scene.client.send(masked(CLOSE, close(1014, ""))).await;
        scene.upstream.expect_close(1014).await;
        scene.client.finish().await;
        scene.upstream.expect_end().await;
        let wanted = json!({
            "client_close_code": 1014, "close_code_to_client": 1014,
            "ended_by": "upstream", "why": "gone",
        });
        scene.ends(wanted).await;
    }
}

/// The client resets: the upstream is told at once, by a Close and a FIN.
#[tokio::test]
async fn the_client_resets() {
    for over in BOTH {
        let Scene { proxy, client, mut upstream } = Scene::with(over, "").await;
        client.reset();
        upstream.expect_close(1001).await;
        upstream.expect_end().await;
        let scene = Scene { client: proxy.plain().await, proxy, upstream };
        let wanted =
            json!({ "close_code_to_upstream": 1001, "ended_by": "client", "why": "reset" });
        scene.ends(wanted).await;
    }
}

/// The upstream resets: the client is told at once, by a Close and a FIN.
#[tokio::test]
async fn the_upstream_resets() {
    for over in BOTH {
        let Scene { proxy, mut client, upstream } = Scene::with(over, "").await;
        upstream.reset();
        client.expect_close(1014).await;
        client.expect_end().await;
        let scene = Scene { upstream: proxy.plain().await, proxy, client };
        let wanted =
            json!({ "close_code_to_client": 1014, "ended_by": "upstream", "why": "reset" });
        scene.ends(wanted).await;
    }
}

/// In the middle of a frame nothing can be said (RFC 6455 §5.4): a reset there is passed on as one.
#[tokio::test]
async fn one_side_resets_in_the_middle_of_a_frame() {
    for over in BOTH {
        let Scene { proxy, mut client, mut upstream } = Scene::with(over, "").await;
        let begun = &masked(BINARY, [7; 1000])[..500];
        client.send(begun).await;
        upstream.expect(begun).await;
        client.reset();
        assert_eq!(upstream.rest().await, (Vec::new(), Ending::Reset));
        let scene = Scene { client: proxy.plain().await, proxy, upstream };
        scene.ends(json!({ "ended_by": "client", "why": "reset" })).await;
    }
}

/// A FIN in the middle of a frame is passed on as it is; one in the middle of a header leaves that out, which nobody could read.
#[tokio::test]
async fn a_torn_frame_ends_in_a_fin_and_a_torn_header_in_a_close() {
    for over in BOTH {
        let mut scene = Scene::with(over, "").await;
        let begun = &plain(BINARY, [7; 1000])[..500];
        scene.upstream.send(begun).await;
        scene.upstream.finish().await;
        scene.client.expect(begun).await;
        scene.client.expect_end().await;

        let mut scene = Scene::with(over, "").await;
        scene.upstream.send(&plain(BINARY, [7; 1000])[..3]).await;
        scene.upstream.finish().await;
        scene.client.expect_close(1014).await;
        scene.client.expect_end().await;
    }
}

/// Silence ends a session with 1001 on both sides; the client's answer is what the upstream gets.
#[tokio::test]
async fn an_idle_session() {
    for over in BOTH {
        let mut scene = Scene::with(over, "idle_timeout = \"100ms\"").await;
        scene.client.expect_close(1001).await;
        scene.client.send(masked(CLOSE, close(1001, ""))).await;
        scene.upstream.expect(masked(CLOSE, close(1001, ""))).await;
        scene.upstream.send(plain(CLOSE, close(1001, ""))).await;
        scene.client.expect_end().await;
        scene.upstream.expect_end().await;
        let wanted = json!({
            "client_close_code": 1001, "upstream_close_code": 1001, "close_code_to_client": 1001,
            "ended_by": "tidegate", "why": "idle timeout",
        });
        scene.ends(wanted).await;
    }
}

/// A session that is too old ends with 1001, traffic or not. A client that does not answer does not keep the upstream from being told.
#[tokio::test]
async fn a_session_that_is_too_old() {
    for over in BOTH {
        let mut scene = Scene::with(over, "max_age = \"100ms\"\nclose_timeout = \"300ms\"").await;
        scene.client.expect_close(1001).await;
        scene.upstream.expect_close(1001).await;
        scene.client.expect_end().await;
        scene.upstream.expect_end().await;
        let wanted = json!({
            "close_code_to_client": 1001, "close_code_to_upstream": 1001,
            "ended_by": "tidegate", "why": "max_age",
        });
        scene.ends(wanted).await;
    }
}

/// When the process stops, the client hears 1001 first. What it says before its own Close arrives, in order, and then that Close.
#[tokio::test]
async fn a_drain() {
    for over in BOTH {
        let mut scene = Scene::with(over, "").await;
        scene.proxy.drain();
        scene.client.expect_close(1001).await;
        scene.client.send(masked(TEXT, "one more thing")).await;
        scene.upstream.expect(masked(TEXT, "one more thing")).await;
        scene.client.send(masked(CLOSE, close(1001, "going"))).await;
        scene.upstream.expect(masked(CLOSE, close(1001, "going"))).await;
        scene.upstream.send(plain(TEXT, "too late")).await;
        scene.upstream.send(plain(CLOSE, close(1001, ""))).await;
        scene.client.expect_end().await;
        scene.upstream.expect_end().await;
        let wanted = json!({
            "client_close_code": 1001, "client_close_reason": "going", "upstream_close_code": 1001,
            "close_code_to_client": 1001, "ended_by": "tidegate", "why": "drain",
            "client_to_upstream_messages": 1, "upstream_to_client_messages": 0,
        });
        scene.tells(wanted).await;
    }
}

/// A Close of ours waits for the end of a frame that is under way, and follows it (RFC 6455 §5.4).
#[tokio::test]
async fn a_close_waits_for_the_end_of_a_frame() {
    for over in BOTH {
        let mut scene = Scene::with(over, "max_age = \"200ms\"").await;
        let frame = plain(BINARY, [7; 1000]);
        scene.upstream.send(&frame[..500]).await;
        scene.client.expect(&frame[..500]).await;
        scene.proxy.record(|record| record["event"] == "open").await;
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        scene.upstream.send(&frame[500..]).await;
        scene.upstream.send(plain(TEXT, "behind it")).await;
        scene.client.expect(&frame[500..]).await;
        scene.client.expect_close(1001).await;
        scene.client.send(masked(CLOSE, close(1001, ""))).await;
        scene.upstream.expect_close(1001).await;
        scene.upstream.finish().await;
        scene.client.expect_end().await;
    }
}

/// A Close of ours waits for the end of a message too: between fragments it would be legal (RFC 6455 §5.4), and strict
/// endpoints all the same take it for an error of the sender's.
#[tokio::test]
async fn a_close_waits_for_the_end_of_a_message() {
    for over in BOTH {
        let keys = "max_age = \"200ms\"\nclose_timeout = \"1h\"";
        let mut scene = Scene::with(over, keys).await;
        let first = with_first_byte(TEXT, b"first, ", false);
        scene.upstream.send(&first).await;
        scene.client.expect(&first).await;
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        scene.upstream.send(plain(CONTINUATION, "last")).await;
        scene.client.expect(plain(CONTINUATION, "last")).await;
        scene.client.expect_close(1001).await;
    }
}

/// A message that never ends is not waited for: at `close_timeout` the Close stands between its fragments.
#[tokio::test]
async fn a_message_that_never_ends_is_not_waited_for() {
    for over in BOTH {
        let keys = "max_age = \"100ms\"\nclose_timeout = \"200ms\"";
        let mut scene = Scene::with(over, keys).await;
        let first = with_first_byte(TEXT, b"first, ", false);
        scene.upstream.send(&first).await;
        scene.client.expect(&first).await;
        scene.client.expect_close(1001).await;
        scene.client.expect_end().await;
        scene.upstream.expect_close(1001).await;
    }
}

/// A frame that never ends leaves no place for a Close: at `close_timeout` the session is cut, and the record says why.
#[tokio::test]
async fn a_frame_that_never_ends_leaves_no_place_for_a_close() {
    for over in BOTH {
        let mut scene = Scene::with(over, "max_age = \"100ms\"\nclose_timeout = \"200ms\"").await;
        let begun = &plain(BINARY, [7; 1000])[..500];
        scene.upstream.send(begun).await;
        scene.client.expect(begun).await;
        scene.client.expect_end().await;
        scene.upstream.expect_close(1001).await;
        scene.upstream.expect_end().await;
        let wanted = json!({
            "close_code_to_upstream": 1001, "ended_by": "tidegate", "why": "max_age",
            "reason": "a frame in flight left no place for a Close",
        });
        scene.ends(wanted).await;
    }
}

/// A frame beyond `max_frame` ends in 1009 for the side that sent it and 1001 for the other, before any of it goes on.
#[tokio::test]
async fn a_frame_that_is_too_large() {
    for over in BOTH {
        let mut scene = Scene::with(over, "max_frame = \"1KiB\"").await;
        scene.client.send(masked(BINARY, [1; 1024])).await;
        scene.upstream.expect(masked(BINARY, [1; 1024])).await;
        scene.client.send(masked(BINARY, [1; 1025])).await;
        scene.upstream.expect_close(1001).await;
        scene.upstream.send(plain(TEXT, "an answer")).await;
        scene.upstream.send(plain(CLOSE, close(1001, ""))).await;
        scene.client.expect(plain(TEXT, "an answer")).await;
        scene.client.expect_close(1009).await;
        scene.client.expect_end().await;
        scene.upstream.expect_end().await;
        let wanted = json!({
            "close_code_to_client": 1009, "close_code_to_upstream": 1001, "ended_by": "tidegate",
            "why": "max_frame", "client_to_upstream_messages": 1,
        });
        scene.tells(wanted).await;
    }
}

/// `max_message` adds up the fragments of a message (RFC 6455 §5.4), in either direction.
#[tokio::test]
async fn a_message_that_is_too_large() {
    for over in BOTH {
        let mut scene = Scene::with(over, "max_message = \"1KiB\"\nclose_timeout = \"1h\"").await;
        let fragments = [
            with_first_byte(BINARY, &[1; 1000], false),
            plain(0x0, [2; 24]),
            with_first_byte(BINARY, &[3; 1000], false),
        ];
        for fragment in &fragments {
            scene.upstream.send(fragment).await;
            scene.client.expect(fragment).await;
        }
        scene.upstream.send(plain(0x0, [4; 25])).await;
        scene.upstream.expect_close(1009).await;
        scene.client.expect_close(1001).await;
        let wanted = json!({
            "close_code_to_client": 1001, "close_code_to_upstream": 1009, "ended_by": "tidegate",
            "why": "max_message", "upstream_to_client_messages": 1,
            "upstream_to_client_fragments": 3,
        });
        scene.tells(wanted).await;
    }
}

/// `over_rate = "close"` ends a client that is too quick with 1008.
#[tokio::test]
async fn a_client_that_is_too_quick() {
    for over in BOTH {
        for (keys, why) in
            [("message_rate = \"3/h\"", "message_rate"), ("byte_rate = \"32B/h\"", "byte_rate")]
        {
            let mut scene = Scene::with(over, &format!("{keys}\nover_rate = \"close\"")).await;
            for number in ["1", "2", "3"] {
                scene.client.send(masked(TEXT, number)).await;
                scene.upstream.expect(masked(TEXT, number)).await;
            }
            scene.client.send(masked(TEXT, "and this is too much")).await;
            scene.upstream.expect_close(1001).await;
            scene.upstream.finish().await;
            scene.client.expect_close(1008).await;
            let wanted = json!({
                "close_code_to_client": 1008, "close_code_to_upstream": 1001,
                "ended_by": "tidegate", "why": why,
            });
            scene.tells(wanted).await;
        }
    }
}

/// Slow is not dead: as long as a side takes what was sent to it before its Close, it has its time, however short that is.
/// Whether the end is among what the kernel has no room for depends on the length: many are tried.
#[tokio::test]
async fn a_slow_reader_gets_everything_and_its_close() {
    let upstream = Upstream::raw().await;
    let setup = Setup::to(upstream.endpoint()).route("close_timeout = \"100ms\"");
    let proxy = setup.start().await;
    let mut readers = Vec::new();
    for number in 0..24 {
        let mut client = proxy.slow_reader_over(BOTH[number % 2]).await;
        let (_, mut leg) = proxy.open(&mut client, &upstream).await;
        let bulk = plain(BINARY, noise(number as u64, (4 << 20) + number * 40_000));
        let sent = [bulk, plain(CLOSE, close(4000, "done"))].concat();
        let wanted = (sent.len(), sha256(&sent));
        let talking = tokio::spawn(async move {
            leg.send(&sent).await;
            leg.finish().await;
            leg.rest().await;
        });
        readers.push(tokio::spawn(async move {
            let mut got = Vec::new();
            while got.len() < wanted.0 {
                let piece = client.some().await;
                assert!(!piece.is_empty(), "the end came after {} of {}", got.len(), wanted.0);
                got.extend(piece);
                tokio::time::sleep(std::time::Duration::from_millis(4)).await;
            }
            assert_eq!(sha256(&got), wanted.1);
            client.expect_end().await;
            drop(client);
            talking.await.expect("all of it is taken");
        }));
    }
    for reader in readers {
        reader.await.expect("it got everything");
    }
}

/// A drain does not interfere with a Close that is under way.
#[tokio::test]
async fn a_drain_leaves_a_close_alone_that_is_under_way() {
    for over in BOTH {
        let mut scene = Scene::with(over, "").await;
        scene.client.send(masked(CLOSE, close(1000, ""))).await;
        scene.upstream.expect(masked(CLOSE, close(1000, ""))).await;
        scene.proxy.drain();
        scene.proxy.draining().await;
        scene.upstream.send(plain(TEXT, "last")).await;
        scene.upstream.send(plain(CLOSE, close(4321, ""))).await;
        scene.upstream.finish().await;
        scene.client.expect(plain(TEXT, "last")).await;
        scene.client.expect_close(4321).await;
        scene.client.expect_end().await;
        let wanted = json!({
            "client_close_code": 1000, "upstream_close_code": 4321,
            "ended_by": "client", "why": "closed",
        });
        scene.ends(wanted).await;
    }
}

/// What a throttle holds back arrives before the end does: at a drain, and when the client resets.
#[tokio::test]
async fn what_a_throttle_holds_back_arrives_before_the_end() {
    let sent = [masked(BINARY, [1; 5_000]), masked(BINARY, [2; 5_000])].concat();
    for keys in ["message_rate = \"1/h\"", "byte_rate = \"1KiB/h\""] {
        for over in BOTH {
            let mut scene = Scene::with(over, keys).await;
            scene.client.send(&sent).await;
            // The first of it is through: the rest is held back.
            let first = scene.upstream.take(1000).await;
            scene.proxy.drain();
            scene.client.expect_close(1001).await;
            scene.client.send(masked(CLOSE, close(1001, ""))).await;
            let rest = scene.upstream.take(sent.len() - 1000).await;
            assert_eq!(sha256([first, rest].concat()), sha256(&sent), "{keys}");
            scene.upstream.expect_close(1001).await;
        }
    }
    let mut scene = Scene::with(Over::Plain, "byte_rate = \"5KiB/s\"").await;
    scene.client.send(&sent).await;
    let first = scene.upstream.take(1000).await;
    scene.client.reset();
    let rest = scene.upstream.take(sent.len() - 1000).await;
    assert_eq!(sha256([first, rest].concat()), sha256(&sent));
    scene.upstream.expect_close(1001).await;
}

/// A client that was refused and talks on is not read for ever, while the upstream has its time to answer.
#[tokio::test]
async fn a_client_that_was_refused_is_not_read_for_ever() {
    let flood = noise(8, 64 << 20);
    let keys = "max_frame = \"1KiB\"\nclose_timeout = \"1h\"";
    let mut scene = Scene::with(Over::Plain, keys).await;
    scene.client.send(masked(BINARY, [1; 2000])).await;
    scene.upstream.expect_close(1001).await;
    let stuck = scene.client.send_until_stuck(&flood).await;
    assert!(stuck < flood.len(), "all of it was read");
    scene.upstream.send(plain(CLOSE, close(1001, ""))).await;
    scene.client.expect_close(1009).await;
}
