//! What `frames` makes of a session: followed, enforced, or mere bytes; and a client that is throttled.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, masked, plain, with_first_byte,
};
use crate::support::{BOTH, Ending, Over, Proxy, Setup, Upstream, Wire, noise, sha256, within};

/// A session over a route with these keys: its proxy, and both its ends.
pub(crate) async fn session(over: Over, keys: &str) -> (Proxy, Wire, Wire) {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route(keys).start().await;
    let (client, leg) = proxy.session(over, &upstream).await;
    (proxy, client, leg)
}

/// What a client and a server may not send, and how the log calls it: everything of RFC 6455 §5 that a header shows.
fn violations() -> Vec<(Vec<u8>, &'static str)> {
    let last = |frames: &[Vec<u8>]| frames.concat();
    vec![
        (plain(TEXT, "x"), "a frame of the client is not masked"),
        (with_first_byte(0x80 | 0x40 | TEXT, b"x", true), "a reserved bit is set"),
        (with_first_byte(0x80 | 0x3, b"x", true), "opcode 3 is reserved"),
        (with_first_byte(0x80 | 0xF, b"x", true), "opcode 15 is reserved"),
        (with_first_byte(PING, b"x", true), "a control frame is fragmented"),
        (with_first_byte(0x80 | PONG, &[7; 126], true), "more than 125 bytes"),
        (masked(CONTINUATION, "x"), "a continuation of no message"),
        (
            last(&[with_first_byte(TEXT, b"x", true), masked(TEXT, "y")]),
            "before the last one has ended",
        ),
        (masked(CLOSE, "x"), "half a code"),
        (vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], "highest bit"),
        (vec![0x82, 0xFE, 0, 1, 1, 2, 3, 4, 5], "in more bytes than it takes"),
    ]
}

/// `enforce` ends a session at a client's violation: 1001 for the upstream, which sees nothing of it, and 1002 for the
/// client, once it has what the upstream still had to say to it.
#[tokio::test]
async fn enforce_ends_a_session_at_a_violation_of_the_clients() {
    for (bytes, named) in violations() {
        let keys = "frames = \"enforce\"\nclose_timeout = \"1h\"";
        let (proxy, mut client, mut leg) = session(Over::Plain, keys).await;
        client.send(masked(TEXT, "well")).await;
        client.send(&bytes).await;
        leg.expect(masked(TEXT, "well")).await;
        let closed = loop {
            let frame = leg.frame().await;
            if frame.opcode == CLOSE {
                break frame;
            }
            assert_eq!((frame.fin, frame.payload.as_slice()), (false, b"x".as_slice()), "{named}");
        };
        assert_eq!(closed.code(), Some(1001));
        leg.send(plain(TEXT, "the answer")).await;
        leg.send(plain(CLOSE, close(1001, ""))).await;
        client.expect(plain(TEXT, "the answer")).await;
        client.expect_close(1002).await;
        client.expect_end().await;
        leg.expect_end().await;
        drop((client, leg));
        let end = proxy.event("end").await;
        let told = end["protocol_error"].as_str().unwrap_or_default();
        assert!(told.starts_with("client: ") && told.contains(named), "{named}: {end}");
        assert_eq!((&end["ended_by"], &end["why"]), (&"tidegate".into(), &"protocol error".into()));
    }
}

/// An upstream that does not answer its Close keeps the client from its own no longer than `close_timeout`.
#[tokio::test]
async fn a_client_to_blame_is_told_at_close_timeout_at_the_latest() {
    let keys = "frames = \"enforce\"\nclose_timeout = \"300ms\"";
    let (_proxy, mut client, _leg) = session(Over::Plain, keys).await;
    client.send(plain(TEXT, "not masked")).await;
    client.expect_close(1002).await;
    client.expect_end().await;
}

/// What follows a Close is to be discarded (RFC 6455 §1.4): `enforce` discards it, and blames nobody.
#[tokio::test]
async fn enforce_discards_what_follows_a_close() {
    for over in BOTH {
        let (proxy, mut client, mut leg) = session(over, "frames = \"enforce\"").await;
        let goodbye = masked(CLOSE, close(1000, ""));
        client
            .send([&goodbye, &masked(TEXT, "late"), &goodbye, &plain(PING, "")[..]].concat())
            .await;
        leg.expect(&goodbye).await;
        leg.send(plain(CLOSE, close(1000, ""))).await;
        leg.finish().await;
        client.expect(plain(CLOSE, close(1000, ""))).await;
        client.finish().await;
        leg.expect_end().await;
        let end = proxy.event("end").await;
        assert_eq!(
            (&end["why"], &end["protocol_error"]),
            (&"closed".into(), &Value::Null),
            "{end}"
        );
    }
}

/// At an upstream's violation it is the upstream that gets 1002, and the client 1014: bad gateway.
#[tokio::test]
async fn enforce_ends_a_session_at_a_violation_of_the_upstreams() {
    for over in BOTH {
        let (proxy, mut client, mut leg) = session(over, "frames = \"enforce\"").await;
        leg.send(plain(TEXT, "well")).await;
        leg.send(masked(TEXT, "masked")).await;
        client.expect(plain(TEXT, "well")).await;
        client.expect_close(1014).await;
        leg.expect_close(1002).await;
        drop((client, leg));
        let end = proxy.event("end").await;
        assert_eq!(end["protocol_error"], "upstream: a frame of the server is masked", "{end}");
    }
}

/// `track` changes nothing about the same bytes: they arrive as they are, and so does all that follows; the log knows.
#[tokio::test]
async fn track_lets_violations_pass_unchanged() {
    for (bytes, named) in violations() {
        let (proxy, mut client, mut leg) = session(Over::Plain, "ping_after = \"1h\"").await;
        let sent = [masked(TEXT, "well"), bytes, noise(3, 100_000)].concat();
        client.send(&sent).await;
        leg.expect(&sent).await;
        let answer = noise(4, 100_000);
        leg.send(&answer).await;
        client.expect(&answer).await;
        client.finish().await;
        assert_eq!(leg.rest().await, (Vec::new(), Ending::Closed), "{named}");
        drop((client, leg));
        let end = proxy.event("end").await;
        let told = end["protocol_error"].as_str().unwrap_or_default();
        // A length that is too long written hides nothing; what comes after it is noise, though.
        let is_tolerated = named == "in more bytes than it takes";
        assert!(
            told.starts_with("client: ") && (told.contains(named) || is_tolerated),
            "{named}: {end}"
        );
    }
}

/// After a violation that was let pass a session is mere bytes, in both directions: no limit on frames is kept any more.
#[tokio::test]
async fn no_limit_outlives_a_violation() {
    for over in BOTH {
        let (_proxy, mut client, mut leg) = session(over, "max_frame = \"1KiB\"").await;
        client.send(plain(TEXT, "not masked")).await;
        leg.expect(plain(TEXT, "not masked")).await;
        let large = plain(BINARY, [7; 2000]);
        leg.send(&large).await;
        client.expect(&large).await;
    }
}

/// RSV1 has a meaning once permessage-deflate was agreed on (RFC 7692 §6), and only then.
#[tokio::test]
async fn a_reserved_bit_is_an_extensions() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route("frames = \"enforce\"").start().await;
    let mut client = proxy.plain().await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    client.send(crate::support::wire::handshake_with("/", offer)).await;
    let mut leg = upstream.accept().await;
    leg.accept_with(offer).await;
    client.head().await;
    let compressed = with_first_byte(0x80 | 0x40 | TEXT, b"\xaa\x56\x02\x00", true);
    client.send(&compressed).await;
    leg.expect(&compressed).await;
    client.send(with_first_byte(0x80 | 0x20 | TEXT, b"x", true)).await;
    leg.expect_close(1001).await;
    leg.send(plain(CLOSE, close(1001, ""))).await;
    client.expect_close(1002).await;
}

/// `off` relays bytes that look like anything: nothing is counted, nothing said.
#[tokio::test]
async fn off_relays_mere_bytes() {
    for over in BOTH {
        let (proxy, mut client, mut leg) = session(over, "frames = \"off\"").await;
        let (up, down) = (noise(5, 200_000), noise(6, 200_000));
        tokio::join!(client.send(&up), leg.send(&down), async {});
        leg.expect(&up).await;
        client.expect(&down).await;
        client.finish().await;
        leg.expect_end().await;
        leg.finish().await;
        client.expect_end().await;
        let end = proxy.event("end").await;
        assert_eq!(end["client_to_upstream_messages"], 0, "{end}");
        assert_eq!(
            (&end["why"], &end["close_code_to_upstream"]),
            (&"closed".into(), &Value::Null),
            "{end}"
        );
    }
}

/// Messages, fragments and control frames are counted each way.
#[tokio::test]
async fn messages_are_counted() {
    for over in BOTH {
        let (proxy, mut client, mut leg) = session(over, "").await;
        let sent = [
            masked(TEXT, "one"),
            with_first_byte(BINARY, b"two, ", true),
            masked(PING, "between"),
            with_first_byte(CONTINUATION, &[7; 70_000], true),
            masked(CONTINUATION, ""),
            masked(PONG, ""),
            masked(BINARY, [7; 300]),
            masked(CLOSE, close(1000, "")),
        ]
        .concat();
        // In pieces of every size, across every header.
        let mut rest = sent.as_slice();
        for length in (1..40).chain([65_536, 65_536]) {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            client.send(piece).await;
            rest = after;
        }
        leg.expect(&sent).await;
        drop((client, leg));
        let end = proxy.event("end").await;
        for (field, count) in [
            ("client_to_upstream_bytes", sent.len()),
            ("client_to_upstream_messages", 3),
            ("client_to_upstream_fragments", 3),
            ("client_to_upstream_pings", 1),
            ("client_to_upstream_pongs", 1),
            ("upstream_to_client_messages", 0),
        ] {
            assert_eq!(end[field], count, "{field}: {end}");
        }
    }
}

/// A throttled client is not read until it may go on: everything arrives, in order and whole, and later.
#[tokio::test]
async fn a_throttled_client_loses_nothing() {
    let messages: Vec<Vec<u8>> = (0..40u8).map(|number| masked(BINARY, [number; 500])).collect();
    let sent = messages.concat();
    // What may come at once is what comes in a second; the rest takes its time.
    for keys in ["message_rate = \"20/s\"", "byte_rate = \"10KiB/s\""] {
        for over in BOTH {
            let (proxy, mut client, mut leg) = session(over, keys).await;
            let start = Instant::now();
            client.send(&sent).await;
            client.finish().await;
            let arrived = within("all of it", leg.take(sent.len())).await;
            assert_eq!(sha256(&arrived), sha256(&sent));
            // A floor, not a ceiling: sooner would be no throttle.
            assert!(start.elapsed() > Duration::from_millis(800), "{keys}: {:?}", start.elapsed());
            leg.expect_close(1001).await;
            drop((client, leg));
            let end = proxy.event("end").await;
            assert_eq!(end["client_to_upstream_messages"], 40, "{end}");
        }
    }
}

/// A throttle is for one session's client: its upstream, and other sessions, are as quick as ever.
#[tokio::test]
async fn a_throttle_holds_back_nobody_else() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route("byte_rate = \"1KiB/h\"").start().await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    client.send(masked(BINARY, [7; 4096])).await;
    leg.take(1024).await;
    let (mut other, mut other_leg) = proxy.session(Over::Plain, &upstream).await;
    other.send(masked(TEXT, "quick")).await;
    other_leg.expect(masked(TEXT, "quick")).await;
    let large = plain(BINARY, vec![7; 1 << 20]);
    tokio::join!(leg.send(&large), client.expect(&large));
}

/// A message that was let through is held back by `byte_rate` alone, however long the next one would have to wait.
#[tokio::test]
async fn a_message_under_way_does_not_wait_for_the_next_ones_turn() {
    let keys = "message_rate = \"1/h\"\nbyte_rate = \"100KiB/s\"";
    let (_proxy, mut client, mut leg) = session(Over::Plain, keys).await;
    let message = masked(BINARY, noise(11, 200_000));
    client.send(&message).await;
    assert_eq!(sha256(leg.take(message.len()).await), sha256(&message));
}

/// A session whose client waits for our throttle is not idle.
#[tokio::test]
async fn a_throttled_session_is_not_idle() {
    let keys = "message_rate = \"12/m\"\nidle_timeout = \"2s\"";
    let (_proxy, mut client, mut leg) = session(Over::Plain, keys).await;
    let messages: Vec<Vec<u8>> = (0..13u8).map(|number| masked(BINARY, [number])).collect();
    client.send(messages.concat()).await;
    // The last has to wait for five seconds.
    leg.expect(messages.concat()).await;
}

/// `byte_rate` needs no frames.
#[tokio::test]
async fn mere_bytes_can_be_throttled_too() {
    let (_proxy, mut client, mut leg) =
        session(Over::Plain, "frames = \"off\"\nbyte_rate = \"10KiB/s\"").await;
    let sent = noise(9, 20 << 10);
    let start = Instant::now();
    client.send(&sent).await;
    client.finish().await;
    let (arrived, ending) = leg.rest().await;
    assert_eq!((sha256(arrived), ending), (sha256(&sent), Ending::Closed));
    assert!(start.elapsed() > Duration::from_millis(800), "{:?}", start.elapsed());
}

/// `--trace-frames` prints headers of the routes that were asked for, never payload; `--trace-payload` prints that too.
#[tokio::test]
async fn frames_are_printed_for_a_person_who_debugs() {
    for (arguments, shows_payload) in [
        (["run", "--trace-frames=/chat"].as_slice(), false),
        (&["--trace-frames", "--trace-payload"], true),
    ] {
        let upstream = Upstream::raw().await;
        let other = "[[route]]\npath = \"/chat\"\nupstream = \"app\"\nping_after = \"100ms\"";
        let setup = Setup::to(upstream.endpoint()).also(other).arguments(arguments);
        let proxy = setup.start().await;
        for path in ["/", "/chat"] {
            let mut client = proxy.plain().await;
            client.send(crate::support::wire::handshake_with(path, "")).await;
            let mut leg = upstream.accept().await;
            leg.accept().await;
            client.head().await;
            client.send(with_first_byte(TEXT, format!("secret of {path}").as_bytes(), true)).await;
            client.send(masked(CONTINUATION, "")).await;
            if path == "/chat" {
                client.answer_ping_as_client().await;
                proxy.says("tidegate > client").await;
            }
            leg.send(plain(CLOSE, close(1000, ""))).await;
            client.send(masked(CLOSE, close(1000, ""))).await;
            drop((client, leg));
            let route = format!("*{path}");
            proxy.record(|record| record["event"] == "end" && record["route"] == *route).await;
        }
        let chat = proxy
            .says("direction=\"client > upstream\" opcode=\"text\" fin=false rsv=0 len=15")
            .await;
        let all = proxy.stderr();
        assert!(chat.contains("session="), "{chat}");
        assert!(all.contains("opcode=\"ping\"") && all.contains("opcode=\"pong\""), "{all}");
        assert!(all.contains("\"upstream > client\" opcode=\"close\""), "{all}");
        assert_eq!(all.contains("secret of /chat"), shows_payload, "{all}");
        assert_eq!(all.contains("len=11"), shows_payload, "only what was asked for: {all}");
    }
}

/// A route that is not there, or has no frames, cannot be traced.
#[tokio::test]
async fn what_cannot_be_traced_is_an_error() {
    let (code, said) = Setup::builtin().arguments(&["--trace-frames=/nowhere"]).fails().await;
    assert!(code == 1 && said.contains("there is no route `/nowhere` to trace"), "{said}");
    let off = Setup::builtin().route("frames = \"off\"").arguments(&["--trace-frames"]);
    let (code, said) = off.fails().await;
    assert!(code == 1 && said.contains("are not followed"), "{said}");
}
