//! Our own answers. Only here does a failure become a status; each has a short text that names
//! the reason, for clients show little more than the number, and the log has the rest.

use std::fmt::{self, Write as _};

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, UPGRADE, VIA,
};
use http::{Response, StatusCode};

use super::body::ResponseBody;
use super::framing::{FramingError, UnknownCoding};
use super::handshake::{AnswerError, HandshakeError, SEC_WEBSOCKET_VERSION};
use super::origin::OriginError;
use super::target::{HostError, NoPlace};
use crate::listener::limits::Full;
use crate::random::random;
use crate::route::Ambiguous;
use crate::telemetry::record::{Record, Side};
use crate::upstream::dial::DialError;

/// Why a request is not carried out. The text of each is the answer's body.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request is not HTTP as we speak it.
    #[error("the request is malformed: {0}")]
    Malformed(String),
    /// Its head takes too long.
    #[error("the request's head did not come in time")]
    SlowHead,
    /// Its head is too large.
    #[error("the request's head is too large")]
    LargeHead,
    /// Its target is too long.
    #[error("the request's target is too long")]
    LongTarget,
    /// Its host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Its target.
    #[error(transparent)]
    Target(#[from] NoPlace),
    /// The host is not one of the certificate that the client was shown.
    #[error("this connection is not for `{host}`: its certificate was chosen for `{sni}`")]
    Misdirected {
        /// The host asked for.
        host: String,
        /// The name asked for in TLS.
        sni: String,
    },
    /// CONNECT is for forward proxies.
    #[error("CONNECT is not served: this is a reverse proxy")]
    Connect,
    /// Plain HTTP where TLS is spoken.
    #[error("this port speaks TLS: ask for https:// or wss://")]
    PlainOnTls,
    /// No route is for it.
    #[error("no route is for this host and path")]
    NoRoute,
    /// The route that its path is for cannot be told.
    #[error(transparent)]
    Path(#[from] Ambiguous),
    /// The handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It comes from a page that may not.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Its body is coded in a way that we cannot undo.
    #[error(transparent)]
    Coding(#[from] UnknownCoding),
    /// Its body stopped coming.
    #[error("the request's body did not come in time")]
    SlowBody,
    /// A plain request that should come by TLS, at this place. The place may have secrets in its
    /// query, so the text, which is logged, does not name it.
    #[error("this is served by https")]
    Redirect(String),
    /// A plain handshake that should come by TLS; browsers do not follow redirects of those.
    #[error("this WebSocket is served at {0}")]
    UseTls(String),
    /// One too many.
    #[error("{}", full(*.0))]
    Full(Full),
    /// The process, or this worker, accepts nothing new.
    #[error("the proxy is shutting down")]
    Draining,
    /// This route, or every endpoint of its upstream, is being drained.
    #[error("{0} is being drained")]
    Drained(Drained),
    /// The endpoint was not reached.
    #[error("{}", unreached(.0))]
    Unreached(#[source] DialError),
    /// It hung up, or what it said is not HTTP.
    #[error("the upstream closed the connection or answered nonsense")]
    Broken(#[source] hyper::Error),
    /// It closed the connection before any answer, and so did all that were tried.
    #[error("the upstream closed the connection without an answer")]
    Unanswered,
    /// It answered a handshake in a wrong way.
    #[error("the upstream does not speak WebSocket: {0}")]
    Answer(AnswerError),
    /// It said in an ambiguous way where its answer ends.
    #[error("the upstream's message is ambiguous: {0}")]
    Framing(FramingError),
    /// It switched protocols and was not asked to.
    #[error("the upstream switched protocols without being asked")]
    UnaskedSwitch,
    /// It took too long.
    #[error("the upstream did not answer in time")]
    Slow,
}

/// What takes no new sessions for the time being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// The route.
    Route,
    /// Every endpoint behind it.
    Endpoints,
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "this route",
            Self::Endpoints => "every endpoint of this route",
        })
    }
}

fn full(full: Full) -> &'static str {
    match full {
        Full::Connections => "the proxy is full: too many connections",
        Full::Address => "too many connections from this address",
        Full::Sessions => "the proxy is full: too many WebSockets",
        Full::Handshakes => "too many handshakes at once",
    }
}

fn unreached(error: &DialError) -> &'static str {
    if error.is_timeout() {
        "the upstream was not reached in time"
    } else {
        "the upstream cannot be reached"
    }
}

impl Refusal {
    /// The status it is told with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_)
            | Self::Host(_)
            | Self::Target(_)
            | Self::Path(_)
            | Self::PlainOnTls => StatusCode::BAD_REQUEST,
            Self::Handshake(HandshakeError::Version(_)) | Self::UseTls(_) => {
                StatusCode::UPGRADE_REQUIRED
            }
            Self::Handshake(_) => StatusCode::BAD_REQUEST,
            Self::SlowHead | Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::Coding(_) => StatusCode::NOT_IMPLEMENTED,
            Self::LargeHead => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::LongTarget => StatusCode::URI_TOO_LONG,
            Self::Misdirected { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Redirect(_) => StatusCode::PERMANENT_REDIRECT,
            Self::Full(Full::Address) => StatusCode::TOO_MANY_REQUESTS,
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Full(Full::Connections | Full::Sessions | Full::Handshakes)
            | Self::Draining
            | Self::Drained(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreached(error) if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreached(_)
            | Self::Unanswered
            | Self::Broken(_)
            | Self::Answer(_)
            | Self::Framing(_)
            | Self::UnaskedSwitch => StatusCode::BAD_GATEWAY,
            Self::Slow => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What it is counted as.
    fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::SlowHead => "slow_head",
            Self::LargeHead => "large_head",
            Self::LongTarget => "long_target",
            Self::Host(_) => "host",
            Self::Misdirected { .. } => "misdirected",
            Self::Connect => "connect",
            Self::PlainOnTls => "plain_on_tls",
            Self::NoRoute => "no_route",
            Self::Path(_) => "path",
            Self::Target(_) => "target",
            Self::Handshake(_) => "handshake",
            Self::Coding(_) => "transfer_coding",
            Self::SlowBody => "slow_body",
            Self::Redirect(_) | Self::UseTls(_) => "use_tls",
            Self::Full(Full::Connections) => "connections",
            Self::Full(Full::Address) => "connections_per_ip",
            Self::Full(Full::Sessions) => "sessions",
            Self::Full(Full::Handshakes) => "handshake_rate",
            Self::Origin(_) => "origin",
            Self::Draining | Self::Drained(_) => "draining",
            Self::Unreached(_) => "upstream_unreached",
            Self::Broken(_) | Self::Unanswered => "upstream_broken",
            Self::Answer(_) | Self::Framing(_) | Self::UnaskedSwitch => "upstream_answer",
            Self::Slow => "upstream_slow",
        }
    }

    /// Whether the client's connection ends with the answer.
    fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::SlowHead
                | Self::SlowBody
                | Self::Coding(_)
                | Self::Target(_)
                | Self::LargeHead
                | Self::LongTarget
                | Self::PlainOnTls
                | Self::Connect
                | Self::Draining
                | Self::Full(Full::Connections | Full::Address)
                | Self::Handshake(HandshakeError::Body)
        )
    }

    /// What the answer says besides its text.
    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = match self {
            Self::Handshake(HandshakeError::Version(_)) => {
                vec![(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))]
            }
            Self::UseTls(_) => vec![(UPGRADE, HeaderValue::from_static("TLS/1.2, HTTP/1.1"))],
            Self::Redirect(to) => {
                HeaderValue::from_str(to).map(|to| (LOCATION, to)).into_iter().collect()
            }
            Self::Connect => vec![(ALLOW, HeaderValue::from_static("GET, HEAD, POST"))],
            Self::Full(_) | Self::Draining | Self::Drained(_) => vec![(RETRY_AFTER, retry_after())],
            _ => Vec::new(),
        };
        if self.ends_connection() {
            headers.push((CONNECTION, HeaderValue::from_static("close")));
        }
        headers
    }

    fn text(&self) -> String {
        format!("{} {}\n", self.status().as_u16(), self)
    }
}

/// The error and everything below it, in one line, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

/// Seconds from 1 to 8: whoever was refused together should not come back together.
fn retry_after() -> HeaderValue {
    HeaderValue::from(1 + random() % 8)
}

/// Answers a request with a refusal and puts it on record.
pub fn with(refusal: &Refusal, record: &Record) -> Response<ResponseBody> {
    record.answered(refusal.status().as_u16());
    record.refused(refusal.label());
    record.reason(chain(refusal));
    let mut response = Response::new(ResponseBody::own(Bytes::from(refusal.text())));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(VIA, HeaderValue::from_static("1.1 tidegate"));
    headers.extend(refusal.headers());
    response
}

/// `Retry-After`, as hyper writes the names of our other answers.
fn in_title_case(name: &HeaderName) -> String {
    let mut is_start = true;
    name.as_str()
        .chars()
        .map(|c| {
            let c = if is_start { c.to_ascii_uppercase() } else { c };
            is_start = c == '-';
            c
        })
        .collect()
}

/// The same answer in bytes, for a connection on which nothing else will be said: where HTTP
/// itself broke down.
pub fn in_bytes(refusal: &Refusal, record: &Record) -> Vec<u8> {
    record.answered(refusal.status().as_u16());
    record.refused(refusal.label());
    record.reason(chain(refusal));
    let text = refusal.text();
    let mut answer = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n",
        refusal.status(),
        text.len()
    );
    for (name, value) in refusal.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let _ = write!(answer, "{}: {value}\r\n", in_title_case(&name));
    }
    record.relayed(Side::Upstream, text.len() as u64);
    let _ = write!(answer, "\r\n{text}");
    answer.into_bytes()
}
