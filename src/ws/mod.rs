//! What we know of RFC 6455 beyond its handshake. No I/O.

pub mod frame;
