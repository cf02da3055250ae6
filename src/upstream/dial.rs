//! Reaches an endpoint: resolves its name, connects, says for whom, and speaks TLS where it wants
//! it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::endpoint::Endpoint;
use super::source::{ConnectError, Sources};
use super::{Upstream, echo};
use crate::config::{self, EndpointAddr, UpstreamTls};
use crate::listener::proxy_protocol::{Addresses, Header, encode};
use crate::tls;
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
    /// Every port of ours that a connection to it could have is taken.
    #[error(
        "no local port is left to connect to {endpoint} from: add a source address to \
         upstream.{upstream}.source_addresses"
    )]
    NoPort {
        /// Whom.
        endpoint: Arc<str>,
        /// The name of its upstream.
        upstream: Arc<str>,
    },
    /// It was to be dialled from an address that this machine does not have.
    #[error(
        "cannot connect to {endpoint} from {from}, which is no address of this machine: mend \
         upstream.{upstream}.source_addresses"
    )]
    NotOurs {
        /// Whom.
        endpoint: Arc<str>,
        /// The name of its upstream.
        upstream: Arc<str>,
        /// The address.
        from: IpAddr,
    },
    /// It was to be dialled from addresses of the other family.
    #[error(
        "cannot connect to {endpoint} at {to} from an address of the other family: add one of its \
         own to upstream.{upstream}.source_addresses"
    )]
    OtherFamily {
        /// Whom.
        endpoint: Arc<str>,
        /// The name of its upstream.
        upstream: Arc<str>,
        /// Where its name leads.
        to: IpAddr,
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

    /// Whether the fault lies with this machine or its configuration.
    fn is_ours(&self) -> bool {
        matches!(self, Self::NoPort { .. } | Self::NotOurs { .. } | Self::OtherFamily { .. })
    }
}

/// Connects to `endpoint` for the client of these `addresses`. May be dropped at any time.
///
/// # Errors
///
/// [`DialError`]; the endpoint then rests for a moment.
pub async fn dial(
    endpoint: &Arc<Endpoint>,
    upstream: &Upstream,
    addresses: Addresses,
) -> Result<Stream, DialError> {
    let limit = upstream.config.connect_timeout;
    let deadline = Instant::now() + limit;
    let connecting = connect(endpoint, upstream, addresses, deadline);
    let dialled = match timeout_at(deadline, connecting).await {
        Ok(connected) => connected,
        Err(_elapsed) => Err(DialError::TimedOut { endpoint: endpoint.name.clone(), limit }),
    };
    match &dialled {
        Ok(_) => endpoint.succeeded(),
        Err(error) => {
            // Ours to mend, whatever becomes of the request. Once in each rest, not for each dial.
            if error.is_ours() && !endpoint.is_resting() {
                tracing::error!("{error}");
            }
            endpoint.failed();
        }
    }
    dialled
}

async fn connect(
    endpoint: &Arc<Endpoint>,
    upstream: &Upstream,
    addresses: Addresses,
    deadline: Instant,
) -> Result<Stream, DialError> {
    let config = &upstream.config;
    let refused = |source| DialError::Connect { endpoint: endpoint.name.clone(), source };
    match &endpoint.address {
        EndpointAddr::Echo => {
            let (ours, theirs) = UnixStream::pair().map_err(refused)?;
            tokio::task::spawn_local(echo::serve(theirs));
            Ok(Stream::Plain(Socket::Unix(ours)))
        }
        EndpointAddr::Unix(path) => {
            let mut socket = Socket::Unix(UnixStream::connect(path).await.map_err(refused)?);
            announce(&mut socket, config, addresses).await.map_err(refused)?;
            Ok(Stream::Plain(socket))
        }
        EndpointAddr::Tcp { host, port, tls } => {
            let places = resolve(endpoint, host, *port, config.resolve_every).await?;
            let connected = connect_any(&places, &upstream.sources, deadline).await;
            let tcp = connected.map_err(|error| unconnected(error, endpoint, upstream))?;
            set_tcp_options(&SockRef::from(&tcp)).map_err(refused)?;
            let mut socket = Socket::Tcp(tcp);
            announce(&mut socket, config, addresses).await.map_err(refused)?;
            match config.tls.as_ref().filter(|_| *tls) {
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

/// Says for whom the connection is, before anything else, to endpoints that want to know.
async fn announce(
    socket: &mut Socket,
    config: &config::Upstream,
    addresses: Addresses,
) -> io::Result<()> {
    match config.send_proxy_protocol {
        Some(version) => socket.write_all(&encode(version, Header::Proxied(addresses))).await,
        None => Ok(()),
    }
}

fn unconnected(error: ConnectError, endpoint: &Endpoint, upstream: &Upstream) -> DialError {
    let (endpoint, name) = (endpoint.name.clone(), upstream.name.clone());
    match error {
        ConnectError::NoPort => DialError::NoPort { endpoint, upstream: name },
        ConnectError::NotOurs(from) => DialError::NotOurs { endpoint, upstream: name, from },
        ConnectError::OtherFamily(to) => DialError::OtherFamily { endpoint, upstream: name, to },
        ConnectError::Io(source) if source.kind() == io::ErrorKind::TimedOut => {
            DialError::TimedOut { endpoint, limit: upstream.config.connect_timeout }
        }
        ConnectError::Io(source) => DialError::Connect { endpoint, source },
    }
}

/// The first of `addresses` that takes the connection; each is given its share of the time.
async fn connect_any(
    addresses: &[SocketAddr],
    sources: &Sources,
    deadline: Instant,
) -> Result<TcpStream, ConnectError> {
    let nowhere = io::Error::new(io::ErrorKind::NotFound, "no address");
    let mut last = ConnectError::Io(nowhere);
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        // There are few addresses: the conversion cannot fail.
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match timeout(share, sources.connect(*address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = ConnectError::Io(io::ErrorKind::TimedOut.into()),
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
    let tls = tls::client::connect(with.client.clone(), name, socket)
        .await
        .map_err(|source| DialError::Tls { endpoint: endpoint.name.clone(), source })?;
    Ok(Stream::Tls(Box::new(tls)))
}
