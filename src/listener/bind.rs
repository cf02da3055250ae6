//! Binds the listening sockets: one per listener and worker, all of one listener on the same
//! address with `SO_REUSEPORT`, so that the kernel spreads connections over the workers. Of a socket
//! that was passed to us there is only one: the workers share it, and the first to come accepts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::inherited::{Inherited, NotListening};
use crate::config;
use crate::transport::set_tcp_options;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// One listener, bound for every worker.
#[derive(Debug)]
pub struct Bound {
    /// Where clients reach it.
    pub address: SocketAddr,
    /// One socket for each worker.
    pub sockets: Vec<TcpListener>,
    /// The name under which it was passed to this process; `None` if it was bound here.
    pub passed_as: Option<String>,
    /// Why it is not where it was asked to be, with the way out.
    pub warning: Option<String>,
}

/// A listener's address could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "cannot listen on {address}: the address is in use; stop whatever listens there \
         (`ss -ltnp 'sport = :{port}'` shows it) or change `address`",
        port = address.port()
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Ports below 1024 take a privilege.
    #[error("cannot listen on {address}: {}", privilege_hint(*address))]
    NotPermitted {
        /// The address.
        address: SocketAddr,
    },
    /// It was passed to us, and is something else.
    #[error(transparent)]
    NotListening(#[from] NotListening),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

fn privilege_hint(address: SocketAddr) -> String {
    let program = std::env::current_exe()
        .map_or_else(|_| "tidegate".into(), |path| path.display().to_string());
    format!(
        "ports below 1024 are not for everybody. To have port {port}, one of: \
         `sudo setcap cap_net_bind_service=+ep {program}`; \
         `sudo sysctl net.ipv4.ip_unprivileged_port_start={port}`; or run under systemd with \
         AmbientCapabilities=CAP_NET_BIND_SERVICE",
        port = address.port()
    )
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address },
            _ => Self::Other { address, source },
        }
    }
}

/// Binds a listener for `workers` workers, at its fallback where its address is not to be had. A
/// socket of its name that was passed to us is taken instead, wherever that listens. `ours` are
/// addresses that this process still listens on and is about to leave: they are in nobody's way.
///
/// # Errors
///
/// [`BindError`] for the address, or for both; or for what was passed.
pub fn bind(
    listener: &config::Listener,
    inherited: &mut Inherited,
    workers: usize,
    ours: &[SocketAddr],
) -> Result<Bound, BindError> {
    if let Some(name) = &listener.activation
        && let Some(socket) = inherited.take(name)?
    {
        return adopt(socket, name, workers)
            .map_err(|source| BindError::Other { address: listener.address, source });
    }
    let (sockets, warning) = match bind_all(listener.address, workers, ours) {
        Ok(sockets) => (sockets, None),
        Err(error) => match listener.fallback {
            Some(fallback) => {
                let sockets = bind_all(fallback, workers, ours)?;
                (sockets, Some(format!("{error}. Listening on {fallback} instead")))
            }
            None => return Err(error),
        },
    };
    let address = match sockets.first().map(TcpListener::local_addr) {
        Some(Ok(address)) => address,
        _ => listener.address,
    };
    Ok(Bound { address, sockets, passed_as: None, warning })
}

fn adopt(socket: TcpListener, name: &str, workers: usize) -> io::Result<Bound> {
    let address = socket.local_addr()?;
    set_tcp_options(&SockRef::from(&socket))?;
    socket.set_nonblocking(true)?;
    let sockets = (0..workers).map(|_| socket.try_clone()).collect::<io::Result<_>>()?;
    Ok(Bound { address, sockets, passed_as: Some(name.to_owned()), warning: None })
}

fn bind_all(
    address: SocketAddr,
    workers: usize,
    ours: &[SocketAddr],
) -> Result<Vec<TcpListener>, BindError> {
    let failed = |source| BindError::new(address, source);
    let address = usable(address);
    if ours.iter().any(|ours| ours.port() == address.port()) {
        return (0..workers).map(|_| listen(address).map_err(failed)).collect();
    }
    // With SO_REUSEPORT a second process of the same user would be let in too, and would get half
    // of the connections: ask without it first.
    let probe = socket(address).and_then(|socket| socket.bind(&address.into()).map(|()| socket));
    let exact = match probe.map_err(failed)?.local_addr().map(|bound| bound.as_socket()) {
        Ok(Some(bound)) => bound,
        _ => address,
    };
    (0..workers).map(|_| listen(exact).map_err(failed)).collect()
}

/// `[::]` means every address, also where the machine has no IPv6.
fn usable(address: SocketAddr) -> SocketAddr {
    let is_any_v6 = address.is_ipv6() && address.ip().is_unspecified();
    if is_any_v6 && Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_err() {
        return SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
    }
    address
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    set_tcp_options(&SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
