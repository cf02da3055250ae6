//! What the admin interface tells, as JSON: the same types are written by the process and read by
//! the commands (`tidegate status`, `sessions`, `top`) that ask it.
//!
//! Counts ending in `_total` only ever grow while the process lives. Times are RFC 3339 in UTC.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The process as a whole: `GET /status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Of Tidegate.
    pub version: String,
    /// Of the process.
    pub pid: u32,
    /// `running` or `draining`.
    pub phase: String,
    /// When the process started.
    pub started: String,
    /// How long ago that was.
    pub uptime_s: f64,
    /// How many worker threads there are.
    pub workers: usize,
    /// The configuration.
    pub config: ConfigStatus,
    /// Client connections that are open, sessions included.
    pub connections: u64,
    /// Connections that were accepted.
    pub connections_total: u64,
    /// TLS handshakes with clients that succeeded, and those that did not.
    pub tls_handshakes_total: u64,
    /// See above.
    pub tls_handshake_failures_total: u64,
    /// WebSockets that are open.
    pub sessions: u64,
    /// Memory of the process that is resident, in bytes.
    pub memory_bytes: u64,
    /// CPU time that the process has used, in seconds.
    pub cpu_s: f64,
    /// Descriptors that are open.
    pub descriptors: u64,
    /// And how many may be.
    pub descriptors_max: u64,
    /// The listeners.
    pub listeners: Vec<ListenerStatus>,
    /// The certificates, the default first.
    pub certificates: Vec<CertificateStatus>,
    /// The routes in the order of the file, then those that were removed and still have sessions.
    pub routes: Vec<RouteStatus>,
    /// The upstreams.
    pub upstreams: Vec<UpstreamStatus>,
}

/// The configuration that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file.
    pub path: String,
    /// When what runs was read.
    pub loaded: String,
    /// Reloads that succeeded, and those that failed.
    pub reloads_total: u64,
    /// See above.
    pub reload_failures_total: u64,
    /// What was wrong the last time, if the last reload failed.
    pub last_failure: Option<String>,
}

/// A listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Where it listens.
    pub address: String,
    /// Whether it terminates TLS.
    pub tls: bool,
}

/// A certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The file of its chain.
    pub chain: String,
    /// The names it is for.
    pub names: Vec<String>,
    /// The end of its validity.
    pub not_after: String,
    /// How many days that is from now; negative when it is over.
    pub days_left: i64,
}

/// A route and what went over it since the process started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Host and path.
    pub route: String,
    /// Where it leads.
    pub upstream: String,
    /// `up`, `draining` (no new sessions, old ones are moved off), or `removed`.
    pub state: String,
    /// WebSockets that are open.
    pub sessions: u64,
    /// WebSockets that were opened, and those that have ended.
    pub sessions_opened_total: u64,
    /// See above.
    pub sessions_ended_total: u64,
    /// WebSocket handshakes that came to no session.
    pub handshakes_refused_total: u64,
    /// Ordinary requests that were answered, and those answered with 5xx.
    pub requests_total: u64,
    /// See above.
    pub requests_5xx_total: u64,
    /// Bytes of sessions that went on from client to upstream.
    pub client_to_upstream_bytes_total: u64,
    /// And the other way.
    pub upstream_to_client_bytes_total: u64,
    /// Messages of sessions that went on from client to upstream.
    pub client_to_upstream_messages_total: u64,
    /// And the other way.
    pub upstream_to_client_messages_total: u64,
    /// Pings of ours.
    pub pings_total: u64,
    /// Close codes by which clients ended; `1006` for those that went without a Close.
    pub client_close_codes_total: BTreeMap<String, u64>,
    /// The same of upstreams.
    pub upstream_close_codes_total: BTreeMap<String, u64>,
}

/// An upstream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub upstream: String,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its address, as it is written.
    pub endpoint: String,
    /// `up`, `resting` (it failed a moment ago) or `draining` (it gets no new sessions).
    pub state: String,
    /// Sessions and requests that it serves.
    pub in_flight: u64,
    /// How often it could not be reached.
    pub failures_total: u64,
}

/// The sessions that were asked for: `GET /sessions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionList {
    /// How many match, also where fewer are shown.
    pub total: usize,
    /// Those that are shown.
    pub sessions: Vec<SessionInfo>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The id under which the log speaks of it.
    pub id: String,
    /// The client's address and port.
    pub client: String,
    /// The listener it came by.
    pub listener: String,
    /// The version of TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// What was asked for; secrets in the query are redacted.
    pub host: String,
    /// See above.
    pub path: String,
    /// The route's host and path.
    pub route: String,
    /// The upstream's name.
    pub upstream: String,
    /// The endpoint's address.
    pub endpoint: String,
    /// The subprotocol that was agreed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subprotocol: Option<String>,
    /// `open` or `closing`.
    pub state: String,
    /// When it opened.
    pub opened: String,
    /// How long it has been open, in seconds.
    pub age_s: f64,
    /// How long nothing has gone through it, in seconds, to the last sweep.
    pub idle_s: f64,
    /// Bytes that went on from client to upstream.
    pub client_to_upstream_bytes: u64,
    /// And the other way.
    pub upstream_to_client_bytes: u64,
    /// Messages that went on from client to upstream.
    pub client_to_upstream_messages: u64,
    /// And the other way.
    pub upstream_to_client_messages: u64,
    /// Bytes both ways in a second, as of late.
    pub bytes_per_s: f64,
    /// The round trip of our last Ping to the client that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_rtt_ms: Option<f64>,
    /// The same for the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_rtt_ms: Option<f64>,
}

/// One line of `GET /sessions?watch`, a stream of JSON lines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Watched {
    /// `listed` for a session that was open already, `open` and `end` as they happen, `missed` when
    /// some could not be told because they came faster than they were read.
    pub event: String,
    /// The session, unless the event is `missed`.
    #[serde(flatten)]
    pub session: Option<SessionInfo>,
    /// How many were missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    /// Who ended it: `client`, `upstream` or `tidegate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What has been set going by `POST /sessions/close`, `/drain` or `/undrain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// What was done, for a person.
    pub text: String,
    /// How many sessions it is about.
    pub sessions: usize,
}
