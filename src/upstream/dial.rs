//! Reaches an endpoint: resolves its name, connects, and speaks TLS where it wants it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::{TlsConnector, TlsStream};

use super::echo;
use super::endpoint::Endpoint;
use crate::config::{self, EndpointAddr, UpstreamTls};
use crate::transport::{Socket, Stream, set_tcp_options};

/// Why there is no connection to an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name leads nowhere.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// Nobody listens, or the way is closed.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// Whom.
        endpoint: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// The TLS handshake failed: its certificate, for example.
    #[error("TLS with {endpoint} failed")]
    Tls {
        /// With whom.
        endpoint: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// The name of the endpoint cannot be verified.
    #[error("{host} is no name that a certificate can be for; set `server_name`")]
    ServerName {
        /// The name.
        host: String,
    },
    /// Nothing came of it in time.
    #[error("{endpoint} was not reached within {limit:?}")]
    TimedOut {
        /// Whom.
        endpoint: Arc<str>,
        /// `connect_timeout`.
        limit: Duration,
    },
}

impl DialError {
    /// Whether it was time that ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }
}

/// Connects to `endpoint`. May be dropped at any time.
///
/// # Errors
///
/// [`DialError`]; the endpoint then rests for a moment.
pub async fn dial(
    endpoint: &Arc<Endpoint>,
    upstream: &config::Upstream,
) -> Result<Stream, DialError> {
    let limit = upstream.connect_timeout;
    let deadline = Instant::now() + limit;
    let dialled = match timeout_at(deadline, connect(endpoint, upstream, deadline)).await {
        Ok(connected) => connected,
        Err(_elapsed) => Err(DialError::TimedOut { endpoint: endpoint.name.clone(), limit }),
    };
    match &dialled {
        Ok(_) => endpoint.succeeded(),
        Err(_) => endpoint.failed(),
    }
    dialled
}

async fn connect(
    endpoint: &Arc<Endpoint>,
    upstream: &config::Upstream,
    deadline: Instant,
) -> Result<Stream, DialError> {
    let refused = |source| DialError::Connect { endpoint: endpoint.name.clone(), source };
    match &endpoint.address {
        EndpointAddr::Echo => {
            let (ours, theirs) = UnixStream::pair().map_err(refused)?;
            tokio::task::spawn_local(echo::serve(theirs));
            Ok(Stream::Plain(Socket::Unix(ours)))
        }
        EndpointAddr::Unix(path) => {
            let socket = UnixStream::connect(path).await.map_err(refused)?;
            Ok(Stream::Plain(Socket::Unix(socket)))
        }
        EndpointAddr::Tcp { host, port, tls } => {
            let addresses = resolve(endpoint, host, *port, upstream.resolve_every).await?;
            let limit = upstream.connect_timeout;
            let tcp =
                connect_any(&addresses, deadline).await.map_err(|error| match error.kind() {
                    io::ErrorKind::TimedOut => {
                        DialError::TimedOut { endpoint: endpoint.name.clone(), limit }
                    }
                    _ => refused(error),
                })?;
            set_tcp_options(&SockRef::from(&tcp)).map_err(refused)?;
            let socket = Socket::Tcp(tcp);
            match upstream.tls.as_ref().filter(|_| *tls) {
                Some(with) => start_tls(socket, endpoint, host, with).await,
                None => Ok(Stream::Plain(socket)),
            }
        }
    }
}

/// How long a dial waits for a fresh answer where an older one is known.
const STALE_WAIT: Duration = Duration::from_secs(1);

/// The addresses of `host`: as they were while that is fresh; afterwards asked for anew, and as
/// they were all the same where the resolver is slow or fails. One question at a time is under
/// way per endpoint.
async fn resolve(
    endpoint: &Arc<Endpoint>,
    host: &str,
    port: u16,
    fresh: Duration,
) -> Result<Vec<SocketAddr>, DialError> {
    let Some(known) = endpoint.resolved() else {
        return ask(endpoint, host, port).await;
    };
    if known.at.elapsed() < fresh || endpoint.fixed_address().is_some() {
        return Ok(known.addresses.clone());
    }
    if let Some(asking) = endpoint.begin_to_resolve() {
        let (endpoint, name) = (endpoint.clone(), host.to_owned());
        let asked = tokio::task::spawn_local(async move {
            let answer = ask(&endpoint, &name, port).await;
            drop(asking);
            answer
        });
        match timeout(STALE_WAIT, asked).await {
            Ok(Ok(Ok(addresses))) => return Ok(addresses),
            Ok(Ok(Err(error))) => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(host, ?why, "cannot resolve: the last known addresses are used");
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Ok(known.addresses.clone())
}

/// Asks the system's resolver, and remembers the answer.
async fn ask(endpoint: &Endpoint, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    let unresolved = |source| DialError::Resolve { host: host.to_owned(), source };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(unresolved)?.collect();
    if addresses.is_empty() {
        let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(unresolved(source));
    }
    endpoint.learn(addresses.clone());
    Ok(addresses)
}

/// The first of `addresses` that takes the connection; each is given its share of the time.
async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        // There are few addresses: the conversion cannot fail.
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(last)
}

async fn start_tls(
    socket: Socket,
    endpoint: &Endpoint,
    host: &str,
    with: &UpstreamTls,
) -> Result<Stream, DialError> {
    let name = match &with.server_name {
        Some(name) => name.clone(),
        None => ServerName::try_from(host.to_owned())
            .map_err(|_| DialError::ServerName { host: host.to_owned() })?,
    };
    let tls = TlsConnector::from(with.client.clone())
        .connect(name, socket)
        .await
        .map_err(|source| DialError::Tls { endpoint: endpoint.name.clone(), source })?;
    Ok(Stream::Tls(Box::new(TlsStream::Client(tls))))
}
