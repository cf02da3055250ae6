//! TLS: certificates and how they are chosen (`pem`, `certificate`, `key_file`, `store`,
//! `self_signed`), the two sides we play (`server` towards clients, `client` towards endpoints),
//! clients that show certificates (`client_auth`, `identity`), and the record layer of a relay
//! (`records`), to which a connection comes by way of `handover`. The handshake is tokio-rustls's;
//! which engine works behind `records` is nobody else's business.

pub mod certificate;
pub mod client;
pub mod client_auth;
pub mod handover;
pub mod identity;
pub mod key_file;
mod pem;
pub mod records;
pub mod self_signed;
pub mod server;
pub mod store;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The one cryptographic provider: aws-lc-rs, post-quantum key exchange first.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
