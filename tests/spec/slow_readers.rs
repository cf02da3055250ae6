//! Clients that read slowly: what was said to them before an end, of whatever kind, still arrives.

use std::time::Duration;

use futures_util::future::join_all;

use crate::drain::closed_to_newcomers;
use crate::support::{BOTH, Ending, Proxy, Setup, Upstream, Wire, noise, sha256};

/// The longest answer of [`stuck`].
const LONGEST: usize = 6_000_000;

/// An answer on its way to a client that has not read anything yet.
struct Answer {
    client: Wire,
    leg: Wire,
    body: Vec<u8>,
    written: usize,
}

/// Asks for answers of many lengths and reads none of them. How much the kernel holds for a reader is its own affair:
/// some lie wholly in it, some do not, and of some the last few KiB are the proxy's to hold: those are at risk.
async fn stuck(proxy: &Proxy, upstream: &Upstream, asked: &str, status: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for length in (300_000..LONGEST).step_by(75_000) {
        let mut client = proxy.slow_reader().await;
        client.send(asked).await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n")).await;
        answers.push(Answer { client, leg, body: vec![b'y'; length], written: 0 });
    }
    join_all(answers.iter_mut().map(Answer::begin)).await;
    answers
}

impl Answer {
    async fn begin(&mut self) {
        self.written = self.leg.send_until_stuck(&self.body).await;
    }

    /// Reads all of it, and returns the missing bytes.
    async fn missing(mut self) -> usize {
        let rest = &self.body[self.written..];
        let reading = async {
            self.client.head().await;
            self.client.take_or_end(self.body.len()).await.len()
        };
        let (got, _) = tokio::join!(reading, self.leg.try_send(rest));
        self.body.len() - got
    }
}

/// Reads all answers, which must be whole.
async fn arrive_whole(answers: Vec<Answer>) {
    let lengths: Vec<_> = answers.iter().map(|answer| answer.body.len()).collect();
    let missing = join_all(answers.into_iter().map(Answer::missing)).await;
    let torn: Vec<_> = lengths.iter().zip(missing).filter(|(_, missing)| *missing > 0).collect();
    assert!(torn.is_empty(), "of answers of so many bytes so many are missing: {torn:?}");
}

/// An answer to half an upload ends the connection, but not before the client has all of it: RFC 9112 §9.6.
#[tokio::test]
async fn an_early_answer_arrives_whole() {
    let (proxy, upstream) = Proxy::scripted().await;
    let asked = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\nonly this";
    let mut answers = stuck(&proxy, &upstream, asked, "413 Too Much\r\nConnection: close").await;
    for answer in &mut answers {
        answer.client.send("and this").await;
    }
    arrive_whole(answers).await;
}

/// A drain does not end a connection whose last answer is still being read, though nothing will follow it.
#[tokio::test]
async fn an_answer_that_is_being_read_survives_a_drain() {
    let (proxy, upstream) = Proxy::scripted().await;
    let asked = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answers = stuck(&proxy, &upstream, asked, "200 OK").await;
    proxy.drain();
    closed_to_newcomers(&proxy).await;
    arrive_whole(answers).await;
    assert_eq!(proxy.exited().await, 0);
}

/// `keep_alive` counts from the end of an answer, and that is when the client's kernel has it, not when the proxy has.
#[tokio::test]
async fn a_pause_longer_than_keep_alive_in_an_answer_does_not_end_it() {
    let upstream = Upstream::raw().await;
    let limits = "[limits]\nkeep_alive = \"500ms\"\nheader_timeout = \"2s\"";
    let proxy = Setup::to(upstream.endpoint()).also(limits).start().await;
    let asked = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answers = stuck(&proxy, &upstream, asked, "200 OK").await;
    // One that asks for nothing is closed at `header_timeout`: by then `keep_alive` is long over.
    proxy.plain().await.rest().await;
    arrive_whole(answers).await;
}

/// An upstream says much, its Close last, and is gone; what the client still says then cannot be delivered, and does
/// not cost it what it has not read yet.
#[tokio::test]
async fn an_upstreams_last_words_reach_a_client_that_goes_on_sending() {
    let (proxy, upstream) = Proxy::scripted().await;
    let sent = noise(10, 1_000_000);
    for over in BOTH {
        let mut client = proxy.slow_reader_over(over).await;
        let (_, mut leg) = proxy.open(&mut client, &upstream).await;
        leg.send(&sent).await;
        leg.finish().await;
        // What were still in the upstream's own kernel, its reset would take with it.
        leg.delivered().await;
        drop(leg);
        // Each is a write of its own for the proxy: the first is answered by a reset, the next fails.
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..10 {
            ticks.tick().await;
            client.send("more").await;
        }
        let (got, ending) = client.rest().await;
        assert_eq!((got.len(), ending), (sent.len(), Ending::Closed), "{over:?}");
        assert_eq!(sha256(got), sha256(&sent));
    }
}

/// An upstream's reset reaches the client behind everything that the proxy had read before it, whether the proxy learns
/// of it by reading on or, while the client reads nothing, by looking.
#[tokio::test]
async fn a_reset_does_not_overtake_what_was_read_before_it() {
    let upstream = Upstream::raw().await;
    let sent = noise(11, LONGEST);
    for pauses in [false, true] {
        let setup = Setup::to(upstream.endpoint()).also("[limits]\nheader_timeout = \"3s\"");
        let proxy = setup.start().await;
        let mut client = proxy.slow_reader().await;
        let (_, mut leg) = proxy.open(&mut client, &upstream).await;
        leg.send_until_stuck(&sent).await;
        leg.reset();
        if pauses {
            // The proxy looks at stuck sessions once a second; this is closed at `header_timeout`.
            proxy.plain().await.rest().await;
        }
        let (got, ending) = client.rest().await;
        let end = proxy.event("end").await;
        assert_eq!(end["upstream_to_client_bytes"], got.len(), "pauses: {pauses}, {end}");
        assert_eq!((sha256(&got), ending), (sha256(&sent[..got.len()]), Ending::Reset));
        assert_eq!((&end["ended_by"], &end["why"]), (&"upstream".into(), &"reset".into()));
    }
}
