//! The configuration: what `proxy.toml` says (`file`), what it means (`compile`), and what is
//! wrong with it (`fault`). Nothing outside sees the types that mirror the file; what runs takes
//! the types of this page, where names have become references and text has become values.

mod compile;
pub mod fault;
mod file;
pub mod units;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

pub use compile::{admin_socket, parse_endpoint};
use fault::{Faults, Report};
use units::{ByteSize, Rate};

use crate::http::origin::Origins;
use crate::listener::proxy_protocol::Version;
use crate::route::pattern::{HostPattern, PathPattern};
use crate::tls::certificate::Certificate;
use crate::tls::client_auth::Authorities;
use crate::tls::self_signed;
use crate::ws::close::CloseCode;

/// A configuration as it is meant, every default decided.
#[derive(Debug)]
pub struct Config {
    /// The sockets to listen on.
    pub listeners: Vec<Listener>,
    /// What holds for every TLS listener.
    pub tls: Tls,
    /// The certificates, the default first.
    pub certificates: Vec<CertificateSource>,
    /// The upstreams; [`Route::upstream`] counts into this list.
    pub upstreams: Vec<Upstream>,
    /// The routes, in the order of the file.
    pub routes: Vec<Route>,
    /// What is bounded.
    pub limits: Limits,
    /// How the process ends.
    pub drain: Drain,
    /// Where the process can be asked and told.
    pub admin: Admin,
    /// The access log.
    pub log: Log,
}

/// One socket to listen on.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The address to bind.
    pub address: SocketAddr,
    /// Taken where `address` may not be bound.
    pub fallback: Option<SocketAddr>,
    /// The name of the socket that is used instead of binding one, where it was passed to us. No
    /// other listener has it.
    pub activation: Option<String>,
    /// Whether TLS is terminated here.
    pub tls: bool,
    /// Peers whose PROXY headers and `X-Forwarded-*` are believed.
    pub trusted: Vec<IpNet>,
    /// Whether such a peer says first for whom it comes.
    pub proxy_protocol: ProxyProtocol,
    /// Whether every request is sent to https (308; a handshake gets 426).
    pub redirect_https: bool,
    /// Whether clients are asked for a certificate. Is off without TLS.
    pub client_auth: ClientAuth,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not.
    Off,
    /// They are, and one without is let in.
    Request,
    /// They are, and one without is not.
    Require,
}

/// Whether the peers that a listener trusts begin with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does.
    Off,
    /// They may.
    Accept,
    /// They do, and nobody else is served.
    Require,
}

/// What holds for every TLS listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Whether TLS 1.2 is spoken besides 1.3.
    pub allow_tls12: bool,
    /// How long a client may take for its TLS handshake.
    pub handshake_timeout: Duration,
    /// Whose clients are let in where they are asked for a certificate. Is there if any listener
    /// asks.
    pub client_ca: Option<Authorities>,
    /// What becomes of a client that asks for a name which no certificate is for.
    pub unknown_name: UnknownName,
    /// What becomes of a private key whose file is open to others.
    pub key_permissions: KeyPermissions,
}

/// What becomes of a client that asks for a name which no certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownName {
    /// It is shown the default certificate.
    Default,
    /// It is refused.
    Refuse,
}

/// What becomes of a private key whose file is open to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPermissions {
    /// It is warned about.
    Warn,
    /// It is not used.
    Refuse,
}

/// Where a certificate comes from.
#[derive(Debug)]
pub enum CertificateSource {
    /// Read, checked, and ready to be served.
    Loaded(Box<Certificate>),
    /// To be made, or renewed, by our own small CA.
    SelfSigned(SelfSigned),
}

impl CertificateSource {
    /// The files of its private keys: that of the local CA too, where it is signed by that.
    pub fn keys(&self) -> Vec<PathBuf> {
        match self {
            Self::Loaded(known) => vec![known.key_path.clone()],
            Self::SelfSigned(own) => {
                vec![own.key.clone(), self_signed::ca_path(&own.chain).with_extension("key")]
            }
        }
    }
}

/// A certificate for a first run, signed by a CA of our own beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfSigned {
    /// Where the chain is, or will be.
    pub chain: PathBuf,
    /// Where the key is, or will be.
    pub key: PathBuf,
    /// Host names and addresses it is for.
    pub names: Vec<String>,
}

/// A named group of endpoints.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name in the file.
    pub name: String,
    /// Its endpoints, at least one.
    pub endpoints: Vec<EndpointAddr>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// How long connecting (with TLS) may take.
    pub connect_timeout: Duration,
    /// How long the answer to a request or handshake may take.
    pub handshake_timeout: Duration,
    /// How many other endpoints are tried after a failure.
    pub retries: usize,
    /// The `Host` to send; `None` keeps the client's.
    pub host: Option<HeaderValue>,
    /// How `https://` endpoints are verified; `None` where there are none.
    pub tls: Option<UpstreamTls>,
    /// How long the address of a name is believed.
    pub resolve_every: Duration,
    /// The version of the PROXY header that every connection begins with, so that it is for one
    /// client only; `None` sends none.
    pub send_proxy_protocol: Option<Version>,
    /// The addresses of this machine to dial from, in turn; empty leaves it to the system.
    pub source_addresses: Vec<IpAddr>,
}

/// How the endpoints of an upstream prove who they are.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// Trusted roots, and whether they are asked at all.
    pub client: Arc<ClientConfig>,
    /// The name to ask for and to verify; `None` takes the endpoint's own.
    pub server_name: Option<ServerName<'static>>,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointAddr {
    /// `http://host:port` or `https://host:port`
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken to it.
        tls: bool,
    },
    /// `unix:/path`
    Unix(PathBuf),
    /// The echo that is built in.
    Echo,
}

impl std::fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "https" } else { "http" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Echo => f.write_str("builtin:echo"),
        }
    }
}

/// How an upstream chooses an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest sessions and requests in flight.
    LeastSessions,
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
}

/// Which requests go where, and how they are treated there.
#[derive(Debug, Clone)]
pub struct Route {
    /// The hosts it is for.
    pub host: HostPattern,
    /// The paths it is for.
    pub path: PathPattern,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Whether a handshake without `Connection: upgrade` is an ordinary request.
    pub strict_handshake: bool,
    /// Which pages may open a WebSocket; `None` is all.
    pub origins: Option<Origins>,
    /// How long a session may be silent in both directions.
    pub idle_timeout: Duration,
    /// How long both sides may take to leave once a session is being closed.
    pub close_timeout: Duration,
    /// How long one direction may go on after the other has ended.
    pub half_close_timeout: Duration,
    /// How closely the frames of a session are followed.
    pub frames: Frames,
    /// How a leg that is silent is asked whether it is still there; `None` never asks.
    /// Is `None` with [`Frames::Off`].
    pub ping: Option<Ping>,
    /// The payload of a data frame; a larger one ends the session with Close 1009. `None` is
    /// unbounded, as it is with [`Frames::Off`].
    pub max_frame: Option<ByteSize>,
    /// The payload of all frames of a message together; a larger one ends the session with Close
    /// 1009. `None` is unbounded, as it is with [`Frames::Off`].
    pub max_message: Option<ByteSize>,
    /// How many messages a client may send. `None` is unbounded, as it is with [`Frames::Off`].
    pub message_rate: Option<Rate>,
    /// How many bytes a client may send. `None` is unbounded.
    pub byte_rate: Option<Rate>,
    /// What becomes of a client that would send more than `message_rate` or `byte_rate`.
    pub over_rate: OverRate,
    /// How old a session may become; then it is closed with 1001. `None` is as old as it likes.
    pub max_age: Option<Duration>,
    /// Whether frames are printed, for a person who debugs. Nothing in the file says so.
    pub trace: Trace,
}

/// What is printed of each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Nothing.
    Off,
    /// What its header says.
    Headers,
    /// The beginning of its payload besides.
    Payload,
}

/// How closely the frames of a session are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// They are followed; at a protocol error the session goes on as bytes that are relayed.
    Track,
    /// They are followed; a protocol error ends the session with Close 1002.
    Enforce,
    /// Bytes only.
    Off,
}

/// When a leg is taken for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// A leg that was silent for so long gets a Ping.
    pub after: Duration,
    /// A leg from which no byte came for so long after that Ping is dead.
    pub timeout: Duration,
}

/// What becomes of a client that would send more than its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverRate {
    /// It is not read until it is within its rate again: nothing is lost.
    Throttle,
    /// Its session ends with Close 1008.
    Close,
}

/// What is bounded. `None` is unbounded.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions at once.
    pub sessions: Option<usize>,
    /// Client connections at once, sessions included.
    pub connections: Option<usize>,
    /// The same from one address.
    pub connections_per_ip: Option<usize>,
    /// How long a request's head may take.
    pub header_timeout: Duration,
    /// How large a request's head may be.
    pub header_bytes: ByteSize,
    /// How long an idle connection is kept for the next request.
    pub keep_alive: Duration,
    /// How long a request's body may pause.
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub send_timeout: Duration,
    /// At which pace WebSocket handshakes go to upstreams; `None` is as they come.
    pub handshakes: Option<Pace>,
}

/// A rate, and the patience of those who are beyond it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// How many in how long.
    pub rate: Rate,
    /// How long one may wait for its turn.
    pub wait: Duration,
}

/// How sessions are sent away: when the process stops, when a route or an endpoint is drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Over how long they are sent away, one after the other.
    pub spread: Duration,
    /// When what is left is cut.
    pub timeout: Duration,
    /// The code of their Close; `None` is 1001, or 1012 where they may come again at once.
    pub close_code: Option<CloseCode>,
    /// The reason in their Close; `None` says what is being drained.
    pub reason: Option<String>,
}

/// Where the process can be asked and told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket; `None` is none.
    pub socket: Option<PathBuf>,
    /// Whether the file names it: then the process does not start without it.
    pub is_required: bool,
    /// Where it can be asked by TCP, but not told.
    pub address: Option<SocketAddr>,
}

/// The access log.
#[derive(Debug, Clone)]
pub struct Log {
    /// Text, JSON or nothing; `None` decides by whether it goes to a terminal.
    pub format: Option<LogFormat>,
    /// The file it is appended to; `None` is standard output.
    pub path: Option<PathBuf>,
    /// Query keys whose values are secret, besides the usual ones.
    pub redact: Vec<String>,
}

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For eyes.
    Text,
    /// For programs.
    Json,
    /// There is none.
    Off,
}

/// The text of the configuration file.
///
/// # Errors
///
/// Why it cannot be read, ready to be printed.
pub fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| {
        let shown = path.display();
        let way_out = if error.kind() == std::io::ErrorKind::NotFound {
            "`tidegate init` writes one, `--config PATH` names another, and \
             `tidegate --to ws://127.0.0.1:3000` runs without any"
        } else {
            "it must be a readable text file in UTF-8"
        };
        format!("error: cannot read {shown}: {error}\n  = {way_out}\n")
    })
}

/// Compiles the text of a `proxy.toml` that lies at `path`; paths inside are relative to its
/// folder. The configuration is there if the report has no error.
pub fn compile(path: &Path, text: &str) -> (Option<Config>, Report) {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut faults = Faults::default();
    let config = file::File::read(text, &mut faults)
        .and_then(|file| compile::compile(&file, folder, &mut faults));
    let report = faults.into_report(path, text);
    (config.filter(|_| report.is_usable()), report)
}
