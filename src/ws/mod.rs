//! What we know of RFC 6455 beyond its handshake. No I/O, and no clock: `now` is an argument.
//!
//! `frame` reads and writes headers, `tracker` follows them through one direction of a session,
//! and `passage` says what of a piece of it goes on, and where something of ours may be put in
//! between. `close`, `keepalive` and `limits` are what the relay decides by.

pub mod close;
pub mod frame;
pub mod keepalive;
pub mod limits;
pub mod passage;
#[cfg(test)]
mod speech;
pub mod tracker;
