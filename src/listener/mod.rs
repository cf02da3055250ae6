//! The client's way in: sockets (`bind`), the loop that accepts (`accept`), and how many may come
//! (`limits`).

pub mod accept;
pub mod bind;
pub mod limits;

use std::net::SocketAddr;

use ipnet::IpNet;

/// How the connections of one listener are treated.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Whether TLS is terminated here.
    pub tls: bool,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted: Vec<IpNet>,
    /// The https port that every request is sent to, if it is.
    pub redirect_to: Option<u16>,
}
