//! How tidegate behaves, as its clients and upstreams see it: the real binary, real clients, scripted upstreams.
//!
//! Each file is about one behaviour and each test shows one sentence of it. `support` has the plumbing; a test that
//! needs no more than bytes uses [`support::Wire`], so that it reads as a transcript of the connection.

mod admin;
mod browser;
mod builtin;
mod client_certificates;
mod command_line;
mod commands;
mod configuration;
mod curl;
mod dead_peers;
mod drain;
mod endings;
mod endpoints;
mod forwarding;
mod frames;
mod handshake;
mod headers;
mod hostile_headers;
mod hostile_requests;
mod keepalive;
mod large_frames;
mod limits;
mod many;
mod memory;
mod metrics;
mod node_ws;
mod origins;
mod proxy_protocol;
mod quantities;
mod relay;
mod reload;
mod routes;
mod secrets;
mod slow_readers;
mod source_addresses;
mod strict;
mod support;
mod systemd;
mod tls;
mod tls_records;
mod tls_strict;
mod upgrade_confusion;
mod wscat;
