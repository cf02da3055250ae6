//! Frames larger than what is read at once, than any buffer of ours, and than what the kernel holds: what holds for
//! small ones holds for them.

use serde_json::json;

use crate::frames::session;
use crate::relay::in_pieces;
use crate::support::frames::{BINARY, CONTINUATION, PING, TEXT, masked, plain};
use crate::support::{BOTH, Ending, noise, sha256, within};

/// Around all that a relay might take for a limit.
const LENGTHS: [usize; 22] = [
    100_000, 10, 65_536, 0, 70_000, 4_082, 4_096, 16_384, 20_480, 20_481, 300_000, 1, 32_768,
    49_152, 126, 1_200_000, 65_535, 2_000, 262_144, 131_072, 5, 60_000,
];

/// Large frames and small ones by turns, a Ping before each, both ways at once and in pieces of every size: each byte
/// arrives once and in order, and every message is counted.
#[tokio::test]
async fn large_and_small_frames_pass_both_ways() {
    for over in BOTH {
        for keys in ["", "frames = \"enforce\"", "frames = \"off\""] {
            let (proxy, mut client, mut leg) = session(over, keys).await;
            let speech = |frame: fn(u8, &[u8]) -> Vec<u8>, seed: u64| {
                let frames = LENGTHS.iter().zip(seed..).map(|(length, seed)| {
                    [frame(PING, b"and"), frame(BINARY, &noise(seed, *length))].concat()
                });
                frames.collect::<Vec<_>>().concat()
            };
            let up = speech(|opcode, payload| masked(opcode, payload), 100);
            let down = speech(|opcode, payload| plain(opcode, payload), 200);
            {
                let (mut from_client, mut to_client) = tokio::io::split(&mut client);
                let (mut from_leg, mut to_leg) = tokio::io::split(&mut leg);
                let all = async {
                    tokio::join!(
                        in_pieces(&mut to_client, &up),
                        in_pieces(&mut to_leg, &down),
                        arrives(&mut from_leg, &up),
                        arrives(&mut from_client, &down),
                    )
                };
                within("both to pass", all).await;
            }
            drop((client, leg));
            let end = proxy.event("end").await;
            let count = if keys.contains("off") { None } else { Some(LENGTHS.len()) };
            for (way, bytes) in
                [("client_to_upstream", up.len()), ("upstream_to_client", down.len())]
            {
                assert_eq!(end[format!("{way}_bytes")], bytes, "{over:?} {keys}: {end}");
                if let Some(count) = count {
                    assert_eq!(end[format!("{way}_messages")], count, "{over:?} {keys}: {end}");
                    assert_eq!(end[format!("{way}_pings")], count, "{over:?} {keys}: {end}");
                }
            }
        }
    }
}

async fn arrives(from: &mut (impl tokio::io::AsyncReadExt + Unpin), wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    from.read_exact(&mut got).await.expect("all of it");
    assert_eq!(sha256(&got), sha256(wanted));
}

const FRAME: usize = 6 << 20;

/// A Close of ours comes behind the frame that is under way, however large (RFC 6455 §5.4).
#[tokio::test]
async fn a_close_waits_for_the_end_of_a_large_frame() {
    for over in BOTH {
        let (proxy, mut client, mut leg) = session(over, "").await;
        let frame = plain(BINARY, noise(1, FRAME));
        let (first, last) = frame.split_at(FRAME / 2);
        let (got, ()) = tokio::join!(client.take(first.len()), leg.send(first));
        assert_eq!(sha256(&got), sha256(first));
        let told = proxy.told("POST", "/sessions/close?all=true&code=4005").await;
        assert_eq!(told["sessions"], 1, "{told}");
        let (got, ()) = tokio::join!(client.take(last.len()), async {
            leg.send(last).await;
            leg.send(plain(TEXT, "behind it")).await;
        });
        assert_eq!(sha256(&got), sha256(last));
        client.expect_close(4005).await;
    }
}

/// What a side has said of a frame before it resets the connection or ends it arrives, and then the same end.
#[tokio::test]
async fn an_end_in_a_large_frame_is_passed_on_behind_it() {
    for over in BOTH {
        for (is_client, is_reset) in [(true, true), (true, false), (false, true), (false, false)] {
            let (proxy, client, leg) = session(over, "").await;
            let (mut from, mut to) = if is_client { (client, leg) } else { (leg, client) };
            let frame = if is_client { masked } else { plain }(BINARY, &noise(2, FRAME));
            let begun = &frame[..FRAME / 2];
            let (got, ()) = tokio::join!(to.take(begun.len()), from.send(begun));
            assert_eq!(sha256(&got), sha256(begun), "{over:?}");
            let ended_by = if is_client { "client" } else { "upstream" };
            let why = if is_reset {
                from.reset();
                "reset"
            } else {
                from.finish().await;
                "gone"
            };
            let (rest, ending) = to.rest().await;
            let wanted = if is_reset { Ending::Reset } else { Ending::Closed };
            assert_eq!((rest.len(), ending), (0, wanted), "{over:?} {ended_by} {why}");
            drop(to);
            let end = proxy.event("end").await;
            let told = json!({ "ended_by": end["ended_by"], "why": end["why"] });
            assert_eq!(told, json!({ "ended_by": ended_by, "why": why }), "{over:?}: {end}");
        }
    }
}

/// A reader that stops in the middle of frames costs little, and gets all of them when it goes on.
#[tokio::test]
async fn a_reader_that_stops_gets_all_of_them_later() {
    for over in BOTH {
        let (proxy, mut client, mut leg) = session(over, "").await;
        let frames: Vec<_> = (0..40).map(|seed| plain(BINARY, noise(seed, 1 << 20))).collect();
        let speech = frames.concat();
        let before = proxy.memory_kib("VmRSS");
        let stuck = leg.send_until_stuck(&speech).await;
        assert!(stuck < speech.len(), "the writer was never stopped");
        let grown = proxy.memory_kib("VmRSS").saturating_sub(before);
        assert!(grown < 6 * 1024, "{over:?}: the process grew by {grown} KiB");
        // The other direction is not held up.
        let word = masked(TEXT, "meanwhile");
        client.send(&word).await;
        leg.expect(&word).await;
        let (got, ()) = tokio::join!(client.take(speech.len()), leg.send(&speech[stuck..]));
        assert_eq!(sha256(&got), sha256(&speech));
    }
}

/// A violation behind a large frame is found where it is.
#[tokio::test]
async fn a_violation_behind_a_large_frame_is_found() {
    for over in BOTH {
        let (_proxy, mut client, mut leg) = session(over, "frames = \"enforce\"").await;
        let frame = masked(BINARY, noise(3, FRAME));
        let sent = [frame.clone(), masked(CONTINUATION, "of nothing")].concat();
        let (got, ()) = tokio::join!(leg.take(frame.len()), client.send(&sent));
        assert_eq!(sha256(&got), sha256(&frame));
        leg.expect_close(1001).await;
    }
}
