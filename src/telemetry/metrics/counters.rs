//! Counters, one set per worker, so that no two cores ever write to one cache line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::record::{EndedBy, Side};
use crate::ws::tracker::Counts;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increase(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// As it stands.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, counted by upper bounds.
#[derive(Debug)]
pub struct Histogram {
    /// In seconds, ascending.
    bounds: &'static [f64],
    /// One for each bound, and one for what is beyond.
    counts: Box<[Counter]>,
    sum_nanos: Counter,
}

/// For what takes a moment: a handshake, a request, a round trip.
const MOMENTS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// For what takes its time: a session.
const STAYS: [f64; 11] =
    [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 604800.0];

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, counts, sum_nanos: Counter::default() }
    }

    /// It took this long.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(at) {
            count.increase();
        }
        self.sum_nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Several histograms of one kind added up.
#[derive(Debug, Default)]
pub struct Sums {
    /// Upper bound in seconds and how many were within it but beyond the one before.
    pub buckets: Vec<(f64, u64)>,
    /// All of them in seconds.
    pub seconds: f64,
}

impl Sums {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    fn add(&mut self, histogram: &Histogram) {
        let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
        if self.buckets.is_empty() {
            self.buckets = bounds.map(|bound| (bound, 0)).collect();
        }
        for ((_, sum), count) in self.buckets.iter_mut().zip(&histogram.counts) {
            *sum += count.value();
        }
        self.seconds += Duration::from_nanos(histogram.sum_nanos.value()).as_secs_f64();
    }
}

/// What is counted for a route.
#[derive(Debug)]
pub struct RouteCounters {
    /// Host and path.
    pub name: Arc<str>,
    shards: Box<[Shard]>,
}

/// What one worker counts for a route. Aligned so that workers do not share a cache line (they are
/// fetched in pairs).
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    /// Ordinary requests by the first digit of their status; 0 for those that the client did not
    /// wait for.
    requests: [Counter; 6],
    request_time: Histogram,
    handshakes: [Counter; 6],
    handshake_time: Histogram,
    opened: Counter,
    ended: Mutex<BTreeMap<(EndedBy, &'static str), u64>>,
    session_time: Histogram,
    to_upstream: Way,
    to_client: Way,
    client: Party,
    upstream: Party,
}

/// What sessions carried in one direction.
#[derive(Debug, Default)]
struct Way {
    bytes: Counter,
    messages: Counter,
}

/// What one side of sessions did.
#[derive(Debug)]
struct Party {
    pings: Counter,
    round_trip: Histogram,
    protocol_errors: Counter,
    codes: Mutex<BTreeMap<u16, u64>>,
    codes_told: Mutex<BTreeMap<u16, u64>>,
}

impl Default for Party {
    fn default() -> Self {
        Self {
            pings: Counter::default(),
            round_trip: Histogram::new(&MOMENTS),
            protocol_errors: Counter::default(),
            codes: Mutex::default(),
            codes_told: Mutex::default(),
        }
    }
}

fn count<K: Ord>(counts: &Mutex<BTreeMap<K, u64>>, key: K) {
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
}

/// The label of a close code: the number where RFC 6455 or IANA's registry knows it; a peer may
/// send any, and must not make a series of each.
fn code_label(code: u16) -> u16 {
    match code {
        1000..=1015 => code,
        3000..=3999 => 3000,
        4000..=4999 => 4000,
        _ => 0,
    }
}

impl Shard {
    fn new() -> Self {
        Self {
            requests: Default::default(),
            request_time: Histogram::new(&MOMENTS),
            handshakes: Default::default(),
            handshake_time: Histogram::new(&MOMENTS),
            opened: Counter::default(),
            ended: Mutex::default(),
            session_time: Histogram::new(&STAYS),
            to_upstream: Way::default(),
            to_client: Way::default(),
            client: Party::default(),
            upstream: Party::default(),
        }
    }

    fn way(&self, source: Side) -> &Way {
        match source {
            Side::Client => &self.to_upstream,
            Side::Upstream => &self.to_client,
        }
    }

    fn party(&self, side: Side) -> &Party {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }

    /// An ordinary request was answered.
    pub fn answered(&self, status: u16, took: Duration) {
        if let Some(class) = self.requests.get(usize::from(status / 100)) {
            class.increase();
        }
        self.request_time.observe(took);
    }

    /// A handshake was answered; with 101, a session begins.
    pub fn shook_hands(&self, status: u16, took: Duration) {
        if let Some(class) = self.handshakes.get(usize::from(status / 100)) {
            class.increase();
        }
        self.handshake_time.observe(took);
        if status == 101 {
            self.opened.increase();
        }
    }

    /// A session has ended. `why` is from a short list.
    pub fn ended(&self, by: EndedBy, why: &'static str, lasted: Duration) {
        count(&self.ended, (by, why));
        self.session_time.observe(lasted);
    }

    /// Sessions carried so much more from `source` to the other side.
    pub fn carried(&self, source: Side, bytes: u64, messages: u64) {
        let way = self.way(source);
        way.bytes.add(bytes);
        way.messages.add(messages);
    }

    /// A side ended with this code: 1005 is a Close without one, 1006 none at all.
    pub fn said_code(&self, side: Side, code: u16) {
        count(&self.party(side).codes, code_label(code));
    }

    /// A side was sent a Close of ours with this code.
    pub fn told_code(&self, side: Side, code: u16) {
        count(&self.party(side).codes_told, code_label(code));
    }

    /// We sent a Ping to a side.
    pub fn pinged(&self, side: Side) {
        self.party(side).pings.increase();
    }

    /// And it answered after so long.
    pub fn round_trip(&self, side: Side, took: Duration) {
        self.party(side).round_trip.observe(took);
    }

    /// A side broke RFC 6455.
    pub fn violated(&self, side: Side) {
        self.party(side).protocol_errors.increase();
    }
}

impl RouteCounters {
    pub(super) fn new(name: &str, workers: usize) -> Self {
        Self { name: name.into(), shards: (0..workers.max(1)).map(|_| Shard::new()).collect() }
    }

    /// Those of one worker.
    pub fn of(&self, worker: usize) -> &Shard {
        &self.shards[worker % self.shards.len()]
    }

    fn sum(&self, of: impl Fn(&Shard) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| of(shard).value()).sum()
    }

    fn sums(&self, of: impl Fn(&Shard) -> &Histogram) -> Sums {
        let mut sums = Sums::default();
        self.shards.iter().for_each(|shard| sums.add(of(shard)));
        sums
    }

    fn map<K: Ord + Copy>(
        &self,
        of: impl Fn(&Shard) -> &Mutex<BTreeMap<K, u64>>,
    ) -> BTreeMap<K, u64> {
        let mut sums = BTreeMap::new();
        for shard in &self.shards {
            for (key, count) in &*of(shard).lock().unwrap_or_else(PoisonError::into_inner) {
                *sums.entry(*key).or_default() += count;
            }
        }
        sums
    }

    /// Ordinary requests by the first digit of their status.
    pub fn requests(&self, class: usize) -> u64 {
        self.sum(|shard| &shard.requests[class])
    }

    /// How long they took.
    pub fn request_time(&self) -> Sums {
        self.sums(|shard| &shard.request_time)
    }

    /// Handshakes by the first digit of their status.
    pub fn handshakes(&self, class: usize) -> u64 {
        self.sum(|shard| &shard.handshakes[class])
    }

    /// How long they took.
    pub fn handshake_time(&self) -> Sums {
        self.sums(|shard| &shard.handshake_time)
    }

    /// Sessions that were opened.
    pub fn opened(&self) -> u64 {
        self.sum(|shard| &shard.opened)
    }

    /// Sessions that have ended, by whom and why.
    pub fn ended(&self) -> BTreeMap<(EndedBy, &'static str), u64> {
        self.map(|shard| &shard.ended)
    }

    /// How long they lasted.
    pub fn session_time(&self) -> Sums {
        self.sums(|shard| &shard.session_time)
    }

    /// Sessions that are open. What is read first can only be too small: never below zero.
    pub fn open(&self) -> u64 {
        let ended: u64 = self.ended().values().sum();
        self.opened().saturating_sub(ended)
    }

    /// Bytes of sessions from `source` to the other side.
    pub fn bytes(&self, source: Side) -> u64 {
        self.sum(|shard| &shard.way(source).bytes)
    }

    /// And messages.
    pub fn messages(&self, source: Side) -> u64 {
        self.sum(|shard| &shard.way(source).messages)
    }

    /// Close codes that a side ended with.
    pub fn codes(&self, side: Side) -> BTreeMap<u16, u64> {
        self.map(|shard| &shard.party(side).codes)
    }

    /// Close codes that a side was sent by us.
    pub fn codes_told(&self, side: Side) -> BTreeMap<u16, u64> {
        self.map(|shard| &shard.party(side).codes_told)
    }

    /// Pings of ours to a side.
    pub fn pings(&self, side: Side) -> u64 {
        self.sum(|shard| &shard.party(side).pings)
    }

    /// Their round trips.
    pub fn round_trips(&self, side: Side) -> Sums {
        self.sums(|shard| &shard.party(side).round_trip)
    }

    /// Sessions in which a side broke RFC 6455.
    pub fn protocol_errors(&self, side: Side) -> u64 {
        self.sum(|shard| &shard.party(side).protocol_errors)
    }
}

/// What is counted for a listener.
#[derive(Debug)]
pub struct ListenerCounters {
    /// Where it listens.
    pub address: SocketAddr,
    shards: Box<[ListenerShard]>,
}

/// What one worker counts for a listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ListenerShard {
    accepted: Counter,
    closed: Counter,
    /// By version, then whether the session was resumed.
    handshakes: [[Counter; 2]; 2],
    failures: Counter,
    unintroduced: Counter,
}

/// The versions of TLS that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    V12,
    /// 1.3
    V13,
}

impl TlsVersion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V12, Self::V13];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        }
    }
}

impl ListenerShard {
    /// A connection was accepted.
    pub fn accepted(&self) {
        self.accepted.increase();
    }

    /// And is over.
    pub fn closed(&self) {
        self.closed.increase();
    }

    /// A TLS handshake succeeded.
    pub fn secured(&self, version: TlsVersion, is_resumed: bool) {
        self.handshakes[version as usize][usize::from(is_resumed)].increase();
    }

    /// A TLS handshake did not.
    pub fn not_secured(&self) {
        self.failures.increase();
    }

    /// A connection was closed for want of a PROXY header that could be believed.
    pub fn unintroduced(&self) {
        self.unintroduced.increase();
    }
}

impl ListenerCounters {
    pub(super) fn new(address: SocketAddr, workers: usize) -> Self {
        Self { address, shards: (0..workers.max(1)).map(|_| ListenerShard::default()).collect() }
    }

    /// Those of one worker.
    pub fn of(&self, worker: usize) -> &ListenerShard {
        &self.shards[worker % self.shards.len()]
    }

    fn sum(&self, of: impl Fn(&ListenerShard) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| of(shard).value()).sum()
    }

    /// Connections that were accepted.
    pub fn accepted(&self) -> u64 {
        self.sum(|shard| &shard.accepted)
    }

    /// Connections that are open.
    pub fn open(&self) -> u64 {
        let closed = self.sum(|shard| &shard.closed);
        self.accepted().saturating_sub(closed)
    }

    /// TLS handshakes that succeeded.
    pub fn handshakes(&self, version: TlsVersion, is_resumed: bool) -> u64 {
        self.sum(|shard| &shard.handshakes[version as usize][usize::from(is_resumed)])
    }

    /// TLS handshakes that did not.
    pub fn failures(&self) -> u64 {
        self.sum(|shard| &shard.failures)
    }

    /// Connections that were closed for want of a PROXY header that could be believed.
    pub fn unintroduced(&self) -> u64 {
        self.sum(|shard| &shard.unintroduced)
    }
}

/// What a session had carried when it was last looked at; the rest is added by the next look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    bytes: u64,
    messages: u64,
}

impl Carried {
    /// Adds what has come on top to `shard`; how many bytes that was.
    pub fn bring_up(&mut self, shard: &Shard, source: Side, bytes: u64, counts: Counts) -> u64 {
        let more = bytes.saturating_sub(self.bytes);
        let messages = counts.messages.saturating_sub(self.messages);
        if more > 0 || messages > 0 {
            shard.carried(source, more, messages);
        }
        *self = Self { bytes, messages: counts.messages };
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_as_long_as_a_bound_is_within_it() {
        let histogram = Histogram::new(&MOMENTS);
        for millis in [0, 1, 2, 30_000, 31_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut sums = Sums::default();
        sums.add(&histogram);
        sums.add(&histogram);
        assert_eq!(sums.count(), 10);
        assert_eq!((sums.buckets[0], sums.buckets[1]), ((0.001, 4), (0.0025, 2)));
        assert_eq!((sums.buckets[13], sums.buckets[14]), ((30.0, 2), (f64::INFINITY, 2)));
        assert!((sums.seconds - 2.0 * 61.003).abs() < 1e-6);
    }

    #[test]
    fn a_peer_cannot_make_a_series_of_every_code() {
        let counters = RouteCounters::new("*/", 2);
        for code in 0..=u16::MAX {
            counters.of(usize::from(code)).said_code(Side::Client, code);
        }
        let codes = counters.codes(Side::Client);
        assert_eq!(codes.len(), 16 + 3);
        assert_eq!(codes.values().sum::<u64>(), 65536);
    }
}
