//! Our side towards clients: one rustls configuration for all TLS listeners.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use rustls::version::{TLS12, TLS13};

use super::store::Store;
use crate::config;

/// The keys of session tickets, drawn afresh and changed every few hours.
///
/// # Errors
///
/// A failure of the random number generator.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    Ticketer::new()
}

/// Builds the configuration: certificates by SNI, session tickets, ALPN `http/1.1`.
///
/// # Errors
///
/// What rustls says; with our provider and versions it has nothing to say.
pub fn config(
    tls: &config::Tls,
    store: Arc<Store>,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions: &[_] = if tls.allow_tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = ticketer;
    // Tickets resume without memory of ours, so a cache of sessions would only cost it.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
