//! Pings of the proxy's own: whom they find alive, whom dead, and that nobody else notices.

use std::time::Duration;

use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, masked, plain, with_first_byte,
};
use crate::support::{BOTH, Ending, Over, Proxy, Setup, Upstream};

async fn pinging(keys: &str) -> (Proxy, Upstream) {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route(keys).start().await;
    (proxy, upstream)
}

/// Each leg that is silent is pinged, as a client and as a server have to: RFC 6455 §5.5.2 and §5.1. The answers go no
/// further, the round trips are measured.
#[tokio::test]
async fn silent_legs_are_pinged() {
    for over in BOTH {
        let (proxy, upstream) = pinging("ping_after = \"20ms\"").await;
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(client.answer_ping_as_client().await);
            seen.push(leg.answer_ping_as_server().await);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 6, "every Ping has a payload of its own");
        client.send(masked(CLOSE, close(1000, ""))).await;
        // Pings that were on their way, and then the Close: no Pong of the client's.
        loop {
            let frame = leg.frame().await;
            if frame.opcode != PING {
                assert_eq!(frame.code(), Some(1000));
                break;
            }
        }
        drop((client, leg));
        let end = proxy.event("end").await;
        for (sent, round_trip) in
            [("pings_to_client", "client_rtt_ms"), ("pings_to_upstream", "upstream_rtt_ms")]
        {
            assert!(end[sent].as_u64().is_some_and(|sent| sent >= 3), "{end}");
            assert!(end[round_trip].as_f64().is_some_and(|millis| millis > 0.0), "{end}");
        }
        assert_eq!(
            (&end["client_to_upstream_pongs"], &end["client_to_upstream_bytes"]),
            (&0.into(), &8.into()),
            "{end}"
        );
    }
}

/// The peers' own Pings and Pongs pass as they are, also Pongs that nobody asked for (RFC 6455 §5.5.3).
#[tokio::test]
async fn pings_and_pongs_of_the_peers_pass() {
    for over in BOTH {
        let (proxy, upstream) = pinging("ping_after = \"1h\"").await;
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        for payload in ["", "twelve bytes", "anything else"] {
            for opcode in [PING, PONG] {
                client.send(masked(opcode, payload)).await;
                leg.expect(masked(opcode, payload)).await;
                leg.send(plain(opcode, payload)).await;
                client.expect(plain(opcode, payload)).await;
            }
        }
        drop((client, leg));
        let end = proxy.event("end").await;
        assert_eq!(
            (&end["client_to_upstream_pings"], &end["upstream_to_client_pongs"]),
            (&3.into(), &3.into()),
            "{end}"
        );
    }
}

/// A Ping goes between the fragments of a message, never into one: RFC 6455 §5.4.
#[tokio::test]
async fn a_ping_goes_between_fragments() {
    for over in BOTH {
        let (proxy, upstream) = pinging("ping_after = \"20ms\"").await;
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        let first = with_first_byte(BINARY, &[7; 1000], false);
        // The client is silent all the while, and a Ping for it is due.
        leg.send(&first[..100]).await;
        client.expect(&first[..100]).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        leg.send(&first[100..]).await;
        client.expect(&first[100..]).await;
        client.answer_ping_as_client().await;
        let last = plain(CONTINUATION, "the end");
        leg.send(&last).await;
        loop {
            let frame = client.frame().await;
            if frame.opcode != PING {
                assert_eq!(
                    (frame.opcode, frame.payload.as_slice()),
                    (CONTINUATION, b"the end".as_slice())
                );
                break;
            }
        }
    }
}

/// Half a Pong is no answer yet, but it is a sign of life; whole, it is taken out, also when it came byte by byte.
#[tokio::test]
async fn an_answer_may_come_in_pieces() {
    for over in BOTH {
        let (proxy, upstream) = pinging("ping_after = \"50ms\"").await;
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        let ping = client.frame().await;
        for byte in masked(PONG, &ping.payload) {
            client.send([byte]).await;
        }
        client.send(masked(TEXT, "alive")).await;
        loop {
            let frame = leg.frame().await;
            if frame.opcode != PING {
                assert_eq!((frame.opcode, frame.payload.as_slice()), (TEXT, b"alive".as_slice()));
                break;
            }
        }
    }
}

/// A client from which nothing comes is dead at `ping_timeout`: it is reset, the upstream hears 1001, the log says so.
#[tokio::test]
async fn a_client_that_does_not_answer_is_dead() {
    for over in BOTH {
        let (proxy, upstream) = pinging("ping_after = \"100ms\"\nping_timeout = \"300ms\"").await;
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        let closed = loop {
            let frame = leg.frame().await;
            if frame.opcode == CLOSE {
                break frame;
            }
            leg.send(plain(PONG, &frame.payload)).await;
        };
        assert_eq!(closed.code(), Some(1001));
        leg.expect_end().await;
        leg.send(plain(CLOSE, close(1001, ""))).await;
        leg.finish().await;
        assert_ne!(client.rest().await.1, Ending::Closed);
        let end = proxy.event("end").await;
        assert_eq!(
            (&end["ended_by"], &end["why"]),
            (&"client".into(), &"ping timeout".into()),
            "{end}"
        );
        assert_eq!(
            (&end["close_code_to_upstream"], &end["pings_to_client"]),
            (&1001.into(), &1.into()),
            "{end}"
        );
    }
}

/// An upstream that does not answer is as dead, and the client hears 1014.
#[tokio::test]
async fn an_upstream_that_does_not_answer_is_dead() {
    for over in BOTH {
        let (proxy, upstream) = pinging("ping_after = \"100ms\"\nping_timeout = \"300ms\"").await;
        let (mut client, leg) = proxy.session(over, &upstream).await;
        let closed = loop {
            let frame = client.frame().await;
            if frame.opcode == CLOSE {
                break frame;
            }
            client.send(masked(PONG, &frame.payload)).await;
        };
        assert_eq!(closed.code(), Some(1014));
        client.expect_end().await;
        drop((client, leg));
        let end = proxy.event("end").await;
        assert_eq!(
            (&end["ended_by"], &end["why"]),
            (&"upstream".into(), &"ping timeout".into()),
            "{end}"
        );
    }
}

/// Any byte is a sign of life: whoever talks needs to answer nothing.
#[tokio::test]
async fn whoever_talks_is_alive() {
    let (proxy, upstream) = pinging("ping_after = \"100ms\"\nping_timeout = \"2s\"").await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    let talking = async {
        for number in 0..40u8 {
            client.send(masked(BINARY, [number])).await;
            tokio::time::sleep(Duration::from_millis(75)).await;
        }
    };
    let answering = async {
        for number in 0..40u8 {
            let message = loop {
                let frame = leg.frame().await;
                if frame.opcode != PING {
                    break frame;
                }
                leg.send(plain(PONG, &frame.payload)).await;
            };
            assert_eq!(message.payload, [number]);
        }
    };
    tokio::join!(talking, answering);
}

/// A peer that is not being read, since the other one takes nothing, cannot be heard: its silence is no death.
#[tokio::test]
async fn a_peer_that_is_not_read_is_not_taken_for_dead() {
    let frame = masked(BINARY, vec![7; 64 << 20]);
    let (proxy, upstream) = pinging("ping_after = \"400ms\"\nping_timeout = \"2s\"").await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    // Until half a second has passed without a byte being taken; the upstream talks, and is alive.
    let (stuck, ()) = tokio::join!(client.send_until_stuck(&frame), async {
        for _ in 0..70 {
            leg.send(plain(PONG, "")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(stuck < frame.len(), "the upstream's side never got stuck");
    let (mut read, mut written) = (0, stuck);
    while read < frame.len() {
        let piece = frame.len().min(read + (1 << 16));
        while written < frame.len().min(piece + (1 << 16)) {
            let end = frame.len().min(written + (1 << 16));
            client.send(&frame[written..end]).await;
            written = end;
        }
        leg.expect(&frame[read..piece]).await;
        read = piece;
    }
}

/// A session is idle although it is pinged: what only the proxy says is no traffic.
#[tokio::test]
async fn pings_do_not_keep_an_idle_session_open() {
    let (proxy, upstream) = pinging("ping_after = \"20ms\"\nidle_timeout = \"300ms\"").await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    let upstream_side = tokio::spawn(async move {
        loop {
            let frame = leg.frame().await;
            if frame.opcode != PING {
                return frame.code();
            }
            leg.send(plain(PONG, &frame.payload)).await;
        }
    });
    loop {
        let frame = client.frame().await;
        if frame.opcode == CLOSE {
            assert_eq!(frame.code(), Some(1001));
            break;
        }
        client.send(masked(PONG, &frame.payload)).await;
    }
    client.send(masked(CLOSE, close(1001, ""))).await;
    assert_eq!(upstream_side.await.expect("the upstream reads to the Close"), Some(1001));
    let end = proxy.event("end").await;
    assert_eq!(
        (&end["ended_by"], &end["why"]),
        (&"tidegate".into(), &"idle timeout".into()),
        "{end}"
    );
}

/// By itself a route pings nobody.
#[tokio::test]
async fn a_route_pings_only_when_told() {
    let (proxy, upstream) = pinging("idle_timeout = \"500ms\"").await;
    let (mut client, _leg) = proxy.session(Over::Plain, &upstream).await;
    assert_eq!(client.frame().await.code(), Some(1001));
}

/// A Ping that only a frame of the other side keeps back is no sign of death: the side that stalls is asked itself.
#[tokio::test]
async fn a_stalled_upload_is_not_its_upstreams_death() {
    for over in BOTH {
        let keys = "ping_after = \"100ms\"\nping_timeout = \"2s\"";
        let (proxy, upstream) = pinging(keys).await;
        let (mut client, mut leg) = proxy.session(over, &upstream).await;
        let frame = masked(BINARY, [7; 1000]);
        client.send(&frame[..500]).await;
        // Pings may stand in front of the frame, none within.
        loop {
            let head = leg.take(2).await;
            if head[0] == 0x80 | BINARY {
                leg.expect(&frame[2..500]).await;
                break;
            }
            let payload = leg.take(usize::from(head[1] & 0x7F) + 4).await;
            leg.send(plain(PONG, unmasked(&payload))).await;
        }
        // The client cannot answer in the middle of its own frame. It is who dies, and not the upstream.
        let end = proxy.event("end").await;
        assert_eq!(
            (&end["ended_by"], &end["why"]),
            (&"client".into(), &"ping timeout".into()),
            "{end}"
        );
        assert_eq!(leg.rest().await, (Vec::new(), Ending::Reset));
    }
}

fn unmasked(payload: &[u8]) -> Vec<u8> {
    let (key, payload) = payload.split_at(4);
    payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}
