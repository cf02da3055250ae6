//! Tidegate: a TLS-terminating reverse proxy for `ws://` and `wss://`.
//!
//! This page is the map; `proxy` tells the life of a connection on one page and is where to start
//! reading. The modules follow a connection: `listener`, `tls`, `http`, `route`, `upstream`,
//! `relay`. `config` comes before the flow, `lifecycle` around it, `telemetry` and `admin` beside it;
//! `transport` is what connections are made of, `ws` what is known of frames, `cli` the program.

pub mod admin;
pub mod cli;
pub mod config;
pub mod http;
pub mod lifecycle;
pub mod listener;
pub mod proxy;
pub mod random;
pub mod relay;
pub mod route;
pub mod telemetry;
pub mod tls;
pub mod transport;
pub mod upstream;
pub mod ws;
