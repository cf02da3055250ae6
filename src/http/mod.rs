//! HTTP/1.1 towards clients and endpoints. `serve` owns a client's connection until it is closed
//! or upgraded; a request is an ordinary one (`forward`) or a WebSocket handshake (`handshake`
//! checks it, `open` carries it to an endpoint and back). Only `respond` turns a failure into a
//! status.

pub mod activity;
pub mod body;
pub mod connection;
pub mod forward;
pub mod framing;
pub mod handshake;
pub mod headers;
pub mod open;
pub mod origin;
pub mod pool;
pub mod respond;
pub mod serve;
pub mod target;
