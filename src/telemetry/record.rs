//! One record per request: made first, filled on the way, written when its last holder is gone.
//! So there is one line for every path, also when a task is cancelled or panics.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde::Serialize;

use super::access_log::WorkerLog;
use super::redact;
use crate::config::LogFormat;

/// What is known of a client connection before its first request.
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// The peer's address.
    pub client: SocketAddr,
    /// The listener's address.
    pub listener: SocketAddr,
    /// The TLS connection, if there is one.
    pub tls: Option<TlsFacts>,
}

/// What is known of a client's TLS connection.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// "1.2" or "1.3".
    pub version: &'static str,
    /// Whether it resumed an earlier session.
    pub resumed: bool,
    /// The name the client asked for (SNI), in lower case.
    pub sni: Option<String>,
}

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
    /// We did.
    Tidegate,
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
    /// Towards the upstream: the request's body, or the session's bytes.
    to_upstream_bytes: Cell<u64>,
    /// Towards the client: the answer's body, or the session's bytes.
    to_client_bytes: Cell<u64>,
    is_session: Cell<bool>,
    told: RefCell<Told>,
}

/// What has been found out on the way.
#[derive(Debug, Default)]
struct Told {
    method: Option<Method>,
    host: String,
    path: String,
    status: Option<u16>,
    route: Option<Arc<str>>,
    upstream: Option<Arc<str>>,
    endpoint: Option<Arc<str>>,
    reason: Option<String>,
    subprotocol: Option<String>,
    handshake: Option<Duration>,
    opened: Option<Instant>,
    ended: Option<(EndedBy, String)>,
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
            to_upstream_bytes: Cell::new(0),
            to_client_bytes: Cell::new(0),
            is_session: Cell::new(false),
            told: RefCell::default(),
        }))
    }

    /// The id under which the log speaks of it.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// What was asked for. Secrets in the query are left out.
    pub fn asked(&self, method: &Method, host: &str, path_and_query: &str) {
        let mut told = self.0.told.borrow_mut();
        told.method = Some(method.clone());
        told.host = host.to_owned();
        told.path = redact::query(path_and_query, self.0.log.redact());
    }

    /// Which route was taken.
    pub fn routed(&self, route: &Arc<str>, upstream: &Arc<str>) {
        let mut told = self.0.told.borrow_mut();
        told.route = Some(route.clone());
        told.upstream = Some(upstream.clone());
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
        self.0.told.borrow_mut().reason.get_or_insert_with(|| reason.to_string());
    }

    /// The handshake is done, and a session begins: writes the line that says so. From here on
    /// bytes are the session's.
    pub fn opened(&self, subprotocol: Option<String>) {
        let inner = &self.0;
        {
            let mut told = inner.told.borrow_mut();
            told.handshake = Some(inner.began.elapsed());
            told.opened = Some(Instant::now());
            told.subprotocol = subprotocol;
        }
        inner.is_session.set(true);
        inner.write("open");
    }

    /// Who ended the session and why; the first to say so is right.
    pub fn ended(&self, by: EndedBy, why: impl fmt::Display) {
        self.0.told.borrow_mut().ended.get_or_insert_with(|| (by, why.to_string()));
    }

    /// So many bytes went towards the upstream.
    pub fn add_to_upstream(&self, bytes: u64) {
        self.0.to_upstream_bytes.set(self.0.to_upstream_bytes.get() + bytes);
    }

    /// So many bytes went towards the client.
    pub fn add_to_client(&self, bytes: u64) {
        self.0.to_client_bytes.set(self.0.to_client_bytes.get() + bytes);
    }
}

/// A line of the access log as JSON; the fields of an event that do not apply are absent.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'a str,
    id: String,
    client: SocketAddr,
    listener: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subprotocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_to_upstream_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_to_client_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<EndedBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Inner {
    fn write(&self, event: &str) {
        let Ok(told) = self.told.try_borrow() else { return };
        let line = self.line(event, &told);
        self.log.line(|out| match self.log.format() {
            LogFormat::Text => out.extend_from_slice(line.as_text().as_bytes()),
            // Numbers and strings only, into memory: nothing in it can fail.
            LogFormat::Json => drop(serde_json::to_writer(out, &line)),
        });
    }

    fn line<'a>(&'a self, event: &'a str, told: &'a Told) -> Line<'a> {
        let (is_open, is_end) = (event == "open", event == "end");
        let since = told.opened.filter(|_| is_end).unwrap_or(self.began);
        let to_upstream = Some(self.to_upstream_bytes.get());
        let to_client = Some(self.to_client_bytes.get());
        Line {
            time: self.log.now(),
            event,
            id: format!("{:016x}", self.id),
            client: self.facts.client,
            listener: self.facts.listener,
            tls: self.facts.tls.as_ref().map(|tls| tls.version),
            resumed: self.facts.tls.as_ref().map(|tls| tls.resumed),
            method: told.method.as_ref().map(Method::as_str),
            host: &told.host,
            path: &told.path,
            status: told.status,
            route: told.route.as_deref(),
            upstream: told.upstream.as_deref(),
            endpoint: told.endpoint.as_deref(),
            subprotocol: told.subprotocol.as_deref(),
            handshake_ms: told.handshake.map(millis),
            duration_ms: (!is_open).then(|| millis(since.elapsed())),
            received_bytes: to_upstream.filter(|_| !is_open && !is_end),
            sent_bytes: to_client.filter(|_| !is_open && !is_end),
            client_to_upstream_bytes: to_upstream.filter(|_| is_end),
            upstream_to_client_bytes: to_client.filter(|_| is_end),
            ended_by: told.ended.as_ref().map(|(by, _)| *by),
            why: told.ended.as_ref().map(|(_, why)| why.as_str()),
            reason: told.reason.as_deref(),
        }
    }
}

impl Line<'_> {
    /// The same for eyes: what matters first, absent things left out.
    fn as_text(&self) -> String {
        let mut parts = vec![self.time.clone(), format!("{:<7}", self.event), self.id.clone()];
        parts.push(self.client.to_string());
        if let Some(method) = self.method {
            parts.push(format!("{method} {}{}", self.host, self.path));
        }
        parts.extend(self.status.map(|status| status.to_string()));
        parts.extend(self.endpoint.map(|endpoint| format!("-> {endpoint}")));
        parts.extend(self.tls.map(|version| format!("TLS {version}")));
        parts.extend(self.subprotocol.map(|name| format!("subprotocol {name}")));
        let took = self.duration_ms.or(self.handshake_ms);
        parts.extend(took.map(|millis| format!("{millis}ms")));
        let bytes = self.received_bytes.zip(self.sent_bytes);
        let bytes = bytes.or(self.client_to_upstream_bytes.zip(self.upstream_to_client_bytes));
        parts.extend(bytes.map(|(up, down)| format!("up {up}B down {down}B")));
        if let (Some(by), Some(why)) = (self.ended_by, self.why) {
            parts.push(format!("ended by {}: {why}", format!("{by:?}").to_ascii_lowercase()));
        }
        parts.extend(self.reason.map(|reason| format!("({reason})")));
        parts.join(" ")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let is_session = self.is_session.get();
        {
            let told = self.told.get_mut();
            if is_session && told.ended.is_none() {
                told.ended = Some((EndedBy::Tidegate, "its task was cancelled".into()));
            }
            if !is_session && told.status.is_none() {
                told.reason.get_or_insert_with(|| "the client went away".into());
            }
        }
        self.write(if is_session { "end" } else { "request" });
    }
}

/// Milliseconds with three digits behind the point.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
