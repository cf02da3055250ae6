//! Chooses the certificate for a client by the name it asks for (SNI, RFC 6066 §3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{Certificate, Facts};

/// The certificates by the names inside them; the first is the default.
#[derive(Debug)]
pub struct Store {
    certificates: Vec<Certificate>,
    exact: HashMap<String, usize>,
    /// By the domain below which one label is free.
    wildcard: HashMap<String, usize>,
}

impl Store {
    /// A store of these; where two are for the same name, the first one is served.
    pub fn new(certificates: Vec<Certificate>) -> Self {
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        for (index, certificate) in certificates.iter().enumerate() {
            for name in &certificate.facts.dns_names {
                match name.strip_prefix("*.") {
                    Some(domain) => wildcard.entry(domain.to_owned()).or_insert(index),
                    None => exact.entry(name.clone()).or_insert(index),
                };
            }
        }
        Self { certificates, exact, wildcard }
    }

    /// All of them, the default first.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether a certificate is for this name.
    pub fn knows(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        self.exact.get(&name).copied().or_else(|| {
            let (_, domain) = name.split_once('.')?;
            self.wildcard.get(domain).copied()
        })
    }

    /// The certificate for a name, or the default.
    fn choose(&self, name: Option<&str>) -> Option<&Certificate> {
        let index = name.and_then(|name| self.find(name));
        self.certificates.get(index.unwrap_or(0))
    }

    /// What the certificate that a client was given for `sni` says about itself.
    pub fn facts(&self, sni: &str) -> Option<&Facts> {
        self.choose(Some(sni)).map(|certificate| &certificate.facts)
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name()).map(|certificate| certificate.key.clone())
    }
}
