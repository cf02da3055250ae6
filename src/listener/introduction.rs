//! Hears from a load balancer for whom it has connected: reads the PROXY protocol header in front
//! of everything else, TLS included, and says whom to believe.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::limits::{Admission, Limits};
use super::proxy_protocol::{Addresses, Header, HeaderError, LONGEST, Parsed, parse};
use crate::config::ProxyProtocol;
use crate::http::headers;
use crate::proxy::{Arrival, Place, Worker};

/// Has a trusted peer say for whom it comes: from then on, that is the client. `None` where the
/// connection is to be closed.
pub async fn introduce(
    mut socket: TcpStream,
    arrival: Arrival,
    place: Place,
    worker: &Rc<Worker>,
) -> Option<(TcpStream, Arrival, Place)> {
    let limit = worker.running.load().per_connection.header_timeout;
    let rule = arrival.entrance.proxy_protocol;
    let heard = tokio::select! {
        // First, so that nobody is given up who has spoken.
        biased;
        heard = timeout(limit, hear(&mut socket, rule, arrival.is_trusted)) => {
            heard.unwrap_or(Err(Unintroduced::TimedOut))
        }
        () = worker.drain.leaving_after(|| true) => return None,
    };
    match heard {
        Ok(Heard::Unknown) => Some((socket, Arrival { is_trusted: false, ..arrival }, place)),
        Ok(Heard::Client(addresses)) => {
            let limits = &worker.running.load().limits;
            let (arrival, place) = arrival.of_client(addresses, place, limits)?;
            Some((socket, arrival, place))
        }
        Ok(Heard::Nothing) => Some((socket, arrival, place)),
        Err(error) => {
            if !matches!(error, Unintroduced::Silent) {
                place.counters.shard().unintroduced();
            }
            tracing::debug!(peer = %arrival.client, %error, "a connection is closed");
            None
        }
    }
}

impl Arrival {
    /// The same, now that a trusted peer has said for which client it comes: the limits, and what
    /// is believed, are that client's. `None` where not even a refusal is to be had any more.
    fn of_client(
        mut self,
        addresses: Addresses,
        mut place: Place,
        limits: &Arc<Limits>,
    ) -> Option<(Self, Place)> {
        self.client = addresses.client;
        self.came_to = addresses.destination;
        self.is_trusted = headers::is_trusted(self.client.ip(), &self.entrance.trusted);
        if !self.is_trusted {
            place.permit = match limits.attribute(place.permit, self.client.ip()) {
                Admission::Admitted(permit) => permit,
                Admission::Refused(full, permit) => {
                    self.refusal = Some(full);
                    permit
                }
                Admission::Dropped => return None,
            };
        }
        Some((self, place))
    }
}

/// Why a connection is closed before its first byte was served.
#[derive(Debug, thiserror::Error)]
enum Unintroduced {
    /// Nobody said that it may speak for others, and here only those are served who do.
    #[error("it is not within `trusted`, and `proxy_protocol` is \"require\"")]
    Stranger,
    /// It is trusted, and began with something else.
    #[error("it sent no PROXY header, and `proxy_protocol` is \"require\"")]
    Missing,
    /// It left without a byte, as health checks do that only look whether somebody accepts.
    #[error("it left without a word")]
    Silent,
    /// It left before there was a header.
    #[error("it left before its PROXY header was complete")]
    Left,
    /// It took longer than `limits.header_timeout`.
    #[error("it sent no PROXY header in time")]
    TimedOut,
    /// What it sent is none.
    #[error("its PROXY header is wrong: {0}")]
    Wrong(#[from] HeaderError),
    /// The connection broke.
    #[error("its PROXY header cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// What a peer says of the connection.
enum Heard {
    /// It is its own.
    Nothing,
    /// It is somebody's whose address it does not tell: what is said on it is a stranger's.
    Unknown,
    /// It is this client's.
    Client(Addresses),
}

/// What a peer that `is_trusted` says of the connection, of which nothing is read but the header.
/// The future has a buffer of 4 KiB in it, and waits for as long as the peer does.
///
/// # Errors
///
/// [`Unintroduced`]: the connection is to be closed.
async fn hear(
    tcp: &mut TcpStream,
    rule: ProxyProtocol,
    is_trusted: bool,
) -> Result<Heard, Unintroduced> {
    match (rule, is_trusted) {
        // Whatever a stranger says of others is for HTTP or TLS to refuse.
        (ProxyProtocol::Off, _) | (ProxyProtocol::Accept, false) => Ok(Heard::Nothing),
        (ProxyProtocol::Require, false) => Err(Unintroduced::Stranger),
        (ProxyProtocol::Accept | ProxyProtocol::Require, true) => match read(tcp).await? {
            Some(Header::Proxied(addresses)) => Ok(Heard::Client(addresses)),
            Some(Header::Unknown) => Ok(Heard::Unknown),
            Some(Header::Local) => Ok(Heard::Nothing),
            None if rule == ProxyProtocol::Require => Err(Unintroduced::Missing),
            None => Ok(Heard::Nothing),
        },
    }
}

/// Reads the header at the front of `tcp`, or nothing at all where there is none: then every byte
/// is still there for whoever comes next.
async fn read(tcp: &mut TcpStream) -> Result<Option<Header>, Unintroduced> {
    let mut front = [0; LONGEST];
    let mut seen = 0;
    loop {
        let ready = tcp.ready(Interest::READABLE).await?;
        // What arrived is only looked at, since until it is complete it might be no header; so the
        // socket stays readable, and tokio must be told that it is more that we wait for.
        let more = tcp.try_io(Interest::READABLE, || {
            let (len, _) = recv(&*tcp, &mut front[..], RecvFlags::PEEK)?;
            if len > seen { Ok(len) } else { Err(ErrorKind::WouldBlock.into()) }
        });
        match more {
            Ok(len) => seen = len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if ready.is_read_closed() {
                    let has_spoken = seen > 0;
                    return Err(if has_spoken { Unintroduced::Left } else { Unintroduced::Silent });
                }
                continue;
            }
            Err(error) if seen == 0 && error.kind() == ErrorKind::ConnectionReset => {
                return Err(Unintroduced::Silent);
            }
            Err(error) => return Err(error.into()),
        }
        match parse(&front[..seen])? {
            Parsed::Complete(header, len) => {
                tcp.read_exact(&mut front[..len]).await?;
                return Ok(Some(header));
            }
            Parsed::Absent => return Ok(None),
            Parsed::Incomplete => {}
        }
    }
}
