//! The client's way in: sockets, bound here (`bind`) or passed to us (`inherited`), the loop that
//! accepts (`accept`), how many may come (`limits`) and at which pace (`turnstile`), for whom a load
//! balancer says that it comes (`introduction`, in the words of `proxy_protocol`), and the TLS
//! handshake (`secure`).

pub mod accept;
pub mod bind;
pub mod inherited;
pub mod introduction;
pub mod limits;
pub mod proxy_protocol;
pub mod secure;
pub mod turnstile;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::config::{ClientAuth, ProxyProtocol};
use crate::telemetry::metrics::ListenerCounters;

/// How the connections of one listener are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// Where clients reach it.
    pub address: SocketAddr,
    /// The same as lines of the log have it, which is not written anew for each connection.
    pub address_text: Arc<str>,
    /// Whether TLS is terminated here.
    pub tls: bool,
    /// Peers whose PROXY headers and `X-Forwarded-*` are believed.
    pub trusted: Vec<IpNet>,
    /// Whether such a peer says first for whom it comes.
    pub proxy_protocol: ProxyProtocol,
    /// The https port that every request is sent to, if it is.
    pub redirect_to: Option<u16>,
    /// Whether clients are asked for a certificate.
    pub client_auth: ClientAuth,
}

/// A listener that is open, as its workers share it: a reload may change how connections are
/// treated from then on, and its sockets stay.
#[derive(Debug)]
pub struct Door {
    /// How the connections are treated that are accepted from now on.
    pub entrance: ArcSwap<Entrance>,
    /// What is counted for it.
    pub counters: Arc<ListenerCounters>,
    /// Whether its socket was passed to this process, by somebody who keeps it.
    pub is_passed: bool,
}
