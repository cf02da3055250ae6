//! One record per request: made first, filled on the way, written when its last holder is gone.
//! So there is one line for every path, also when a task is cancelled or panics.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use http::uri::Authority;
use time::OffsetDateTime;

use super::access_log::WorkerLog;
use super::line::{Line, SessionLine};
use super::metrics::{Carried, RouteCounters, Shard, TlsVersion};
use super::redact;
use crate::admin::snapshot::SessionInfo;
use crate::config::LogFormat;
use crate::ws::close::Said;
use crate::ws::tracker::{Counts, Violation};

/// What is known of a client connection before its first request.
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// The peer's address.
    pub client: SocketAddr,
    /// The same as text: it is formatted once, as that takes half as long as a whole line.
    client_text: Box<str>,
    /// The listener's address, as text.
    listener: Arc<str>,
    /// The TLS connection, if there is one.
    pub tls: Option<TlsFacts>,
}

impl ClientFacts {
    /// Of a client that came to this listener, so far without TLS.
    pub fn new(client: SocketAddr, listener: Arc<str>) -> Self {
        Self { client, client_text: client.to_string().into(), listener, tls: None }
    }
}

/// What is known of a client's TLS connection.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// The version spoken.
    pub version: TlsVersion,
    /// Whether it resumed an earlier session.
    pub resumed: bool,
    /// The subject of the client's certificate, if it has shown one.
    pub subject: Option<Box<str>>,
}

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndedBy {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
    /// We did.
    Tidegate,
}

impl EndedBy {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Tidegate => "tidegate",
        }
    }
}

/// A side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
}

impl Side {
    /// The one across.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

impl From<Side> for EndedBy {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Upstream => Self::Upstream,
        }
    }
}

/// The record of one request, and of the session that may come of it.
#[derive(Debug, Clone)]
pub struct Record(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Rc<WorkerLog>,
    facts: Rc<ClientFacts>,
    id: u64,
    began: Instant,
    /// Towards the upstream: the request's body, or what the client says in the session.
    to_upstream: Sums,
    /// Towards the client: the answer's body, or what the upstream says in the session.
    to_client: Sums,
    told: RefCell<Told>,
}

// There is one for every session.
const _: () = assert!(size_of::<Inner>() <= 328);

/// What went one way.
#[derive(Debug, Default)]
struct Sums {
    bytes: Cell<u64>,
    frames: Cell<Counts>,
    /// What of it has been counted for the route already.
    carried: Cell<Carried>,
}

/// What has been found out on the way.
#[derive(Debug, Default)]
struct Told {
    asked: Asked,
    status: Option<u16>,
    route: Option<Arc<RouteCounters>>,
    upstream: Option<Arc<str>>,
    endpoint: Option<Arc<str>>,
    is_handshake: bool,
    subprotocol: Option<Box<str>>,
    /// When its session began, if it is one.
    opened: Option<Instant>,
    client_side: SideFacts,
    upstream_side: SideFacts,
    /// `None` for as long as a session is well.
    outcome: Option<Box<Outcome>>,
}

/// What was asked for: one text, since sessions keep theirs for long.
#[derive(Debug, Default)]
struct Asked {
    /// The method, the host and the path, one behind the other. Empty where nothing was asked.
    text: Box<str>,
    host_at: usize,
    path_at: usize,
}

/// What one side of a session did and was sent beyond what was relayed.
#[derive(Debug, Default)]
struct SideFacts {
    pings: u64,
    round_trip: Option<Duration>,
}

/// What went wrong, and how it ended.
#[derive(Debug, Default)]
struct Outcome {
    reason: Option<String>,
    ended: Option<(EndedBy, String)>,
    client_close: CloseFacts,
    upstream_close: CloseFacts,
    protocol_error: Option<String>,
}

/// What one side of a session said in its Close, and was told in one of ours.
#[derive(Debug, Default)]
struct CloseFacts {
    said: Option<Said>,
    told: Option<u16>,
}

impl Asked {
    fn new(method: &Method, host: &str, path: &str) -> Self {
        let host_at = method.as_str().len();
        let text = [method.as_str(), host, path].concat().into();
        Self { text, host_at, path_at: host_at + host.len() }
    }

    fn method(&self) -> Option<&str> {
        Some(&self.text[..self.host_at]).filter(|method| !method.is_empty())
    }

    fn host(&self) -> &str {
        &self.text[self.host_at..self.path_at]
    }

    fn path(&self) -> &str {
        &self.text[self.path_at..]
    }
}

impl Told {
    fn outcome(&mut self) -> &mut Outcome {
        self.outcome.get_or_insert_default()
    }

    fn ended(&self) -> Option<&(EndedBy, String)> {
        self.outcome.as_ref()?.ended.as_ref()
    }
}

impl Outcome {
    fn close(&mut self, side: Side) -> &mut CloseFacts {
        match side {
            Side::Client => &mut self.client_close,
            Side::Upstream => &mut self.upstream_close,
        }
    }
}

/// Ids count up from a number drawn at the start, so that they do not repeat over restarts.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Draws the number that ids count up from.
pub fn seed_ids(seed: u64) {
    NEXT_ID.store(seed, Ordering::Relaxed);
}

impl Record {
    /// The record of a request that is about to be read or served.
    pub fn begin(log: &Rc<WorkerLog>, facts: &Rc<ClientFacts>) -> Self {
        Self(Rc::new(Inner {
            log: log.clone(),
            facts: facts.clone(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            began: Instant::now(),
            to_upstream: Sums::default(),
            to_client: Sums::default(),
            told: RefCell::default(),
        }))
    }

    /// The id under which the log speaks of it.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// What was asked for. Secrets in the query are left out.
    pub fn asked(&self, method: &Method, host: Option<&Authority>, path_and_query: &str) {
        let path = self.0.log.redacted(path_and_query);
        let host = host.map_or("", Authority::as_str);
        self.0.told.borrow_mut().asked = Asked::new(method, host, &path);
    }

    /// Which route was taken, and who counts for it.
    pub fn routed(&self, route: &Arc<RouteCounters>, upstream: &Arc<str>) {
        let mut told = self.0.told.borrow_mut();
        told.route = Some(route.clone());
        told.upstream = Some(upstream.clone());
    }

    /// It is a WebSocket handshake.
    pub fn is_handshake(&self) {
        self.0.told.borrow_mut().is_handshake = true;
    }

    /// It was refused by ourselves, for a reason from a short list.
    pub fn refused(&self, reason: &'static str) {
        self.0.log.metrics().refused(self.0.log.worker(), reason);
    }

    /// Which endpoint is asked; a later one replaces it.
    pub fn endpoint(&self, endpoint: &Arc<str>) {
        self.0.told.borrow_mut().endpoint = Some(endpoint.clone());
    }

    /// What was answered.
    pub fn answered(&self, status: u16) {
        self.0.told.borrow_mut().status = Some(status);
    }

    /// Why it went wrong, for a person.
    pub fn reason(&self, reason: impl fmt::Display) {
        let mut told = self.0.told.borrow_mut();
        told.outcome().reason.get_or_insert_with(|| reason.to_string());
    }

    /// The handshake is done, and a session begins: writes the line that says so. From here on
    /// bytes are the session's.
    pub fn opened(&self, subprotocol: Option<String>) {
        let inner = &self.0;
        let now = Instant::now();
        let took = now.duration_since(inner.began);
        {
            let mut told = inner.told.borrow_mut();
            told.opened = Some(now);
            told.subprotocol = subprotocol.map(|name| redact::subprotocol(&name).into());
        }
        inner.count(|counters| counters.shook_hands(101, took));
        inner.write("open", now);
    }

    /// Who ended the session and why; the first to say so is right.
    pub fn ended(&self, by: EndedBy, why: impl fmt::Display) {
        let mut told = self.0.told.borrow_mut();
        told.outcome().ended.get_or_insert_with(|| (by, why.to_string()));
    }

    fn sums(&self, source: Side) -> &Sums {
        match source {
            Side::Client => &self.0.to_upstream,
            Side::Upstream => &self.0.to_client,
        }
    }

    /// So many more bytes of one side went on to the other.
    pub fn relayed(&self, source: Side, bytes: u64) {
        let sum = &self.sums(source).bytes;
        sum.set(sum.get() + bytes);
    }

    /// So many messages and control frames of one side, in all, went on to the other.
    pub fn counted(&self, source: Side, counts: Counts) {
        self.sums(source).frames.set(counts);
    }

    fn tell(&self, side: Side, tell: impl FnOnce(&mut SideFacts)) {
        let mut told = self.0.told.borrow_mut();
        tell(match side {
            Side::Client => &mut told.client_side,
            Side::Upstream => &mut told.upstream_side,
        });
    }

    /// Bytes both ways so far.
    pub fn bytes(&self) -> u64 {
        self.0.to_upstream.bytes.get() + self.0.to_client.bytes.get()
    }

    /// Counts for the route what its session carried since the last time; how many bytes.
    pub fn bring_up(&self) -> u64 {
        self.0.bring_up()
    }

    /// What a side said in its Close; it says only one.
    pub fn said_close(&self, side: Side, said: Said) {
        self.0.told.borrow_mut().outcome().close(side).said.get_or_insert(said);
    }

    /// Which code we sent to a side in a Close of our own.
    pub fn told_close(&self, side: Side, code: Option<u16>) {
        self.0.told.borrow_mut().outcome().close(side).told = code;
        self.0.count(|counters| counters.told_code(side, code.unwrap_or(NO_CODE)));
    }

    /// We sent a Ping to a side.
    pub fn pinged(&self, side: Side) {
        self.tell(side, |facts| facts.pings += 1);
        self.0.count(|counters| counters.pinged(side));
    }

    /// How long a side took to answer our last Ping that it answered.
    pub fn round_trip(&self, side: Side, round_trip: Duration) {
        self.tell(side, |facts| facts.round_trip = Some(round_trip));
        self.0.count(|counters| counters.round_trip(side, round_trip));
    }

    /// What a side did against RFC 6455; the first time counts.
    pub fn violated(&self, side: Side, violation: Violation) {
        let name = match side {
            Side::Client => "client",
            Side::Upstream => "upstream",
        };
        let is_first = {
            let mut told = self.0.told.borrow_mut();
            let known = &mut told.outcome().protocol_error;
            let is_first = known.is_none();
            known.get_or_insert_with(|| format!("{name}: {violation}"));
            is_first
        };
        if is_first {
            self.0.count(|counters| counters.violated(side));
        }
    }

    /// The session as the admin interface shows it; what only its worker knows is left empty.
    pub fn info(&self) -> SessionInfo {
        let inner = &self.0;
        let told = inner.told.borrow();
        let text = |name: &Option<Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
        let age = told.opened.map_or(Duration::ZERO, |opened| opened.elapsed());
        let (up, down) = (&inner.to_upstream, &inner.to_client);
        SessionInfo {
            id: format!("{:016x}", inner.id),
            client: inner.facts.client_text.to_string(),
            listener: inner.facts.listener.to_string(),
            tls: inner.facts.tls.as_ref().map(|tls| tls.version.name().to_owned()),
            host: told.asked.host().to_owned(),
            path: told.asked.path().to_owned(),
            route: told.route.as_ref().map_or_else(String::new, |route| route.name.to_string()),
            upstream: text(&told.upstream),
            endpoint: text(&told.endpoint),
            subprotocol: told.subprotocol.as_deref().map(str::to_owned),
            state: String::new(),
            opened: time_text(SystemTime::now() - age),
            age_s: seconds(age),
            idle_s: 0.0,
            client_to_upstream_bytes: up.bytes.get(),
            upstream_to_client_bytes: down.bytes.get(),
            client_to_upstream_messages: up.frames.get().messages,
            upstream_to_client_messages: down.frames.get().messages,
            bytes_per_s: 0.0,
            client_rtt_ms: told.client_side.round_trip.map(millis),
            upstream_rtt_ms: told.upstream_side.round_trip.map(millis),
        }
    }

    /// Who ended the session and why, once that is known.
    pub fn end(&self) -> Option<(EndedBy, String)> {
        self.0.told.borrow().ended().cloned()
    }

    /// The client's address.
    pub fn client(&self) -> SocketAddr {
        self.0.facts.client
    }
}

/// What an application sees where a Close has no code (RFC 6455 §7.1.5).
const NO_CODE: u16 = 1005;
/// And where there was no Close at all.
const NO_CLOSE: u16 = 1006;

/// The reasons for which sessions end, as a metric may have them; the log says more.
const WHYS: [&str; 23] = [
    "closed",
    "gone",
    "truncated",
    "reset",
    "lost",
    "ping timeout",
    "idle timeout",
    "half-close timeout",
    "close timeout",
    "max_age",
    "max_frame",
    "max_message",
    "message_rate",
    "byte_rate",
    "protocol error",
    "drain",
    "route drained",
    "route removed",
    "endpoint drained",
    "endpoint removed",
    "closed by the operator",
    "gone before its handshake was answered",
    "cut",
];

/// The word of the list that a reason begins with.
fn why_label(why: &str) -> &'static str {
    let beginning = why.split(": ").next().unwrap_or_default();
    WHYS.into_iter().find(|known| *known == beginning).unwrap_or("other")
}

impl Inner {
    fn count(&self, count: impl FnOnce(&Shard)) {
        if let Ok(told) = self.told.try_borrow()
            && let Some(route) = &told.route
        {
            count(route.of(self.log.worker()));
        }
    }

    fn bring_up(&self) -> u64 {
        let mut bytes = 0;
        self.count(|counters| {
            for (source, sums) in
                [(Side::Client, &self.to_upstream), (Side::Upstream, &self.to_client)]
            {
                let mut carried = sums.carried.get();
                bytes += carried.bring_up(counters, source, sums.bytes.get(), sums.frames.get());
                sums.carried.set(carried);
            }
        });
        bytes
    }

    /// Its end, in numbers.
    fn count_end(&self, now: Instant) {
        let Ok(told) = self.told.try_borrow() else { return };
        let Some(opened) = told.opened else {
            let (status, took) = (told.status.unwrap_or(0), now.duration_since(self.began));
            self.count(|counters| match told.is_handshake {
                true => counters.shook_hands(status, took),
                false => counters.answered(status, took),
            });
            return;
        };
        self.bring_up();
        self.count(|counters| {
            // There is one by now.
            let Some(outcome) = &told.outcome else { return };
            if let Some((by, why)) = &outcome.ended {
                counters.ended(*by, why_label(why), now.duration_since(opened));
            }
            for (side, facts) in
                [(Side::Client, &outcome.client_close), (Side::Upstream, &outcome.upstream_close)]
            {
                let code = facts.said.as_ref().map(|said| said.code.unwrap_or(NO_CODE));
                counters.said_code(side, code.unwrap_or(NO_CLOSE));
            }
        });
    }

    fn write(&self, event: &'static str, now: Instant) {
        let Ok(told) = self.told.try_borrow() else { return };
        let line = || self.line(event, now, &told);
        match self.log.format() {
            LogFormat::Off => {}
            LogFormat::Text => self.log.line(|out| out.extend(line().as_text().as_bytes())),
            LogFormat::Json => self.log.line(|out| line().add_json(out)),
        }
    }

    fn line<'a>(&'a self, event: &'static str, now: Instant, told: &'a Told) -> Line<'a> {
        let (is_open, is_end) = (event == "open", event == "end");
        let since = told.opened.filter(|_| is_end).unwrap_or(self.began);
        let received = self.to_upstream.bytes.get();
        let sent = self.to_client.bytes.get();
        let outcome = told.outcome.as_deref();
        Line {
            time: self.log.now(),
            event,
            id: self.id,
            client: &self.facts.client_text,
            listener: &self.facts.listener,
            tls: self.facts.tls.as_ref().map(|tls| tls.version.name()),
            resumed: self.facts.tls.as_ref().map(|tls| tls.resumed),
            client_subject: self.facts.tls.as_ref().and_then(|tls| tls.subject.as_deref()),
            method: told.asked.method(),
            host: told.asked.host(),
            path: told.asked.path(),
            status: told.status,
            route: told.route.as_ref().map(|route| &*route.name),
            upstream: told.upstream.as_deref(),
            endpoint: told.endpoint.as_deref(),
            subprotocol: told.subprotocol.as_deref(),
            handshake: told.opened.map(|opened| opened.duration_since(self.began)),
            duration: (!is_open).then(|| now.duration_since(since)),
            received_bytes: (!is_open && !is_end).then_some(received),
            sent_bytes: (!is_open && !is_end).then_some(sent),
            session: outcome.filter(|_| is_end).and_then(|outcome| self.session(told, outcome)),
            reason: outcome.and_then(|outcome| outcome.reason.as_deref()),
        }
    }

    fn session<'a>(&self, told: &'a Told, outcome: &'a Outcome) -> Option<SessionLine<'a>> {
        let (by, why) = outcome.ended.as_ref()?;
        let (up, down) = (self.to_upstream.frames.get(), self.to_client.frames.get());
        let (client, upstream) = (&told.client_side, &told.upstream_side);
        let (client_close, upstream_close) = (&outcome.client_close, &outcome.upstream_close);
        Some(SessionLine {
            client_to_upstream_bytes: self.to_upstream.bytes.get(),
            upstream_to_client_bytes: self.to_client.bytes.get(),
            client_to_upstream_messages: up.messages,
            upstream_to_client_messages: down.messages,
            client_to_upstream_fragments: up.fragments,
            upstream_to_client_fragments: down.fragments,
            client_to_upstream_pings: up.pings,
            upstream_to_client_pings: down.pings,
            client_to_upstream_pongs: up.pongs,
            upstream_to_client_pongs: down.pongs,
            pings_to_client: client.pings,
            pings_to_upstream: upstream.pings,
            client_rtt: client.round_trip,
            upstream_rtt: upstream.round_trip,
            client_close_code: client_close.said.as_ref().and_then(code_seen),
            client_close_reason: client_close.said.as_ref().and_then(reason_given),
            upstream_close_code: upstream_close.said.as_ref().and_then(code_seen),
            upstream_close_reason: upstream_close.said.as_ref().and_then(reason_given),
            close_code_to_client: client_close.told,
            close_code_to_upstream: upstream_close.told,
            ended_by: *by,
            why,
            protocol_error: outcome.protocol_error.as_deref(),
        })
    }
}

fn code_seen(said: &Said) -> Option<u16> {
    Some(said.code.unwrap_or(NO_CODE))
}

fn reason_given(said: &Said) -> Option<&str> {
    Some(said.reason.as_str()).filter(|reason| !reason.is_empty())
}

impl Drop for Inner {
    fn drop(&mut self) {
        let told = self.told.get_mut();
        let is_session = told.opened.is_some();
        if is_session {
            let cancelled = || (EndedBy::Tidegate, "its task was cancelled".into());
            told.outcome().ended.get_or_insert_with(cancelled);
        } else if told.status.is_none() {
            told.outcome().reason.get_or_insert_with(|| "the client went away".into());
        }
        let now = Instant::now();
        self.count_end(now);
        self.write(if is_session { "end" } else { "request" }, now);
    }
}

/// RFC 3339 in UTC, to the second.
pub fn time_text(time: SystemTime) -> String {
    let now = OffsetDateTime::from(time);
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second) = now.to_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Seconds with three digits behind the point.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// Milliseconds with three digits behind the point.
pub(super) fn millis(duration: Duration) -> f64 {
    micros(duration) as f64 / 1e3
}

/// Microseconds, to the nearest one.
pub(super) fn micros(duration: Duration) -> u64 {
    (duration.as_secs_f64() * 1e6).round() as u64
}
