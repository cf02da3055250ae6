//! Connects by TCP from the addresses that an upstream is to be dialled from, each in its turn, so
//! that there can be more connections than one address has ports for.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use tokio::net::{TcpSocket, TcpStream};

/// The addresses of this machine that an upstream is dialled from.
#[derive(Debug)]
pub struct Sources {
    /// As configured; empty leaves it to the system.
    addresses: Vec<IpAddr>,
    turn: AtomicUsize,
}

/// Why there is no TCP connection.
#[derive(Debug)]
pub enum ConnectError {
    /// No source address has a port left.
    NoPort,
    /// This machine does not have the source address.
    NotOurs(IpAddr),
    /// No source address is of the family of this one.
    OtherFamily(IpAddr),
    /// Anything else.
    Io(io::Error),
}

impl Sources {
    /// What was configured.
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, turn: AtomicUsize::new(0) }
    }

    /// Connects to `to` from the next source address of its family, or the one after that where
    /// that has no port left. May be dropped at any time.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]. Where the peer is what is wrong, another source is not tried.
    pub async fn connect(&self, to: SocketAddr) -> Result<TcpStream, ConnectError> {
        if self.addresses.is_empty() {
            return TcpStream::connect(to).await.map_err(|error| {
                if error.kind() == ErrorKind::AddrNotAvailable && has_source_for(to) {
                    ConnectError::NoPort
                } else {
                    ConnectError::Io(error)
                }
            });
        }
        let mut last = ConnectError::OtherFamily(to.ip());
        for from in self.in_turn(to) {
            match connect_from(from, to).await {
                // Another may have more luck.
                Err(error @ (ConnectError::NoPort | ConnectError::NotOurs(_))) => last = error,
                decided => return decided,
            }
        }
        Err(last)
    }

    /// Those of the family of `to`, beginning with the one whose turn it is.
    fn in_turn(&self, to: SocketAddr) -> impl Iterator<Item = IpAddr> {
        let fitting: Vec<IpAddr> =
            self.addresses.iter().copied().filter(|from| from.is_ipv4() == to.is_ipv4()).collect();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % fitting.len().max(1);
        let count = fitting.len();
        fitting.into_iter().cycle().skip(first).take(count)
    }
}

async fn connect_from(from: IpAddr, to: SocketAddr) -> Result<TcpStream, ConnectError> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(ConnectError::Io)?;
    // The port is chosen when it is known where the connection goes: then it need only be free for
    // connections to there (ip(7)), and other programs may have it for theirs.
    setsockopt(&socket, IpBindAddressNoPort, &true)
        .map_err(|errno| ConnectError::Io(errno.into()))?;
    socket.bind(SocketAddr::new(from, 0)).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => ConnectError::NoPort,
        ErrorKind::AddrNotAvailable => ConnectError::NotOurs(from),
        _ => ConnectError::Io(error),
    })?;
    socket.connect(to).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => ConnectError::NoPort,
        _ => ConnectError::Io(error),
    })
}

/// Whether this machine has an address from which `to` can be reached: connect(2) says the same
/// where it has none as where no port is left. Datagrams have ports of their own, and connecting
/// them sends nothing.
fn has_source_for(to: SocketAddr) -> bool {
    let any: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(to)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_of_the_family_has_its_turn() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let sources = Sources::new(vec![ip("10.0.0.1"), ip("::2"), ip("10.0.0.3")]);
        let to: SocketAddr = ([10, 0, 0, 9], 80).into();
        for order in [["10.0.0.1", "10.0.0.3"], ["10.0.0.3", "10.0.0.1"], ["10.0.0.1", "10.0.0.3"]]
        {
            let turn: Vec<IpAddr> = sources.in_turn(to).collect();
            assert_eq!(turn, order.map(ip));
        }
        let to: SocketAddr = (Ipv6Addr::LOCALHOST, 80).into();
        assert_eq!(sources.in_turn(to).collect::<Vec<_>>(), [ip("::2")]);
        let none = Sources::new(vec![ip("::2")]);
        assert_eq!(none.in_turn(([10, 0, 0, 9], 80).into()).count(), 0);
    }
}
