//! One certificate with its key: read, checked against one another and against the clock.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::InconsistentKeys;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::pem::{self, PemError};

/// A certificate that can be served, and the names that it is for.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Chain and key, as rustls wants them.
    pub key: Arc<CertifiedKey>,
    /// What is in it.
    pub facts: Facts,
    /// Where its chain was read from.
    pub path: PathBuf,
    /// And its key.
    pub key_path: PathBuf,
}

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// DNS names in lower case; a wildcard keeps its `*.`.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// Valid from.
    pub not_before: OffsetDateTime,
    /// Valid until.
    pub not_after: OffsetDateTime,
    /// Who signed it, as a distinguished name in text.
    pub issuer: String,
}

impl Facts {
    /// Whether the certificate is for `host`, a lower-case DNS name or an address
    /// (RFC 6125 §6.4.3: a wildcard stands for one whole label).
    pub fn cover(&self, host: &str) -> bool {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if let Ok(address) = address {
            return self.addresses.contains(&address);
        }
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.dns_names.iter().any(|name| {
            name == host || name.strip_prefix("*.").is_some_and(|rest| Some(rest) == parent)
        })
    }

    /// Reads them from a certificate in DER.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut dns_names = Vec::new();
        let mut addresses = Vec::new();
        if let Ok(Some(san)) = certificate.subject_alternative_name() {
            for name in &san.value.general_names {
                match name {
                    GeneralName::DNSName(name) => dns_names.push(name.to_ascii_lowercase()),
                    GeneralName::IPAddress(octets) => addresses.extend(address_from(octets)),
                    _ => {}
                }
            }
        }
        let validity = certificate.validity();
        Some(Self {
            dns_names,
            addresses,
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
            issuer: certificate.issuer().to_string(),
        })
    }
}

fn address_from(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The chain's file.
    #[error("the certificate cannot be used: {0}")]
    Chain(PemError),
    /// The key's file.
    #[error("the private key cannot be used: {0}")]
    Key(PemError),
    /// The first certificate cannot be parsed.
    #[error("the first certificate in {path} is malformed", path = .0.display())]
    Malformed(PathBuf),
    /// The key is of a kind that TLS does not know.
    #[error(
        "the private key in {path} cannot be used: {reason}; RSA of 2048 bits or more, ECDSA on \
         P-256, P-384 or P-521, and Ed25519 are",
        path = path.display()
    )]
    UnusableKey {
        /// Which file.
        path: PathBuf,
        /// What rustls says of it.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "the key in {key} does not belong to the certificate in {chain}",
        key = key.display(), chain = chain.display()
    )]
    Mismatch {
        /// The chain's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// It is over.
    #[error("the certificate in {path} expired on {on}", path = path.display())]
    Expired {
        /// Which file.
        path: PathBuf,
        /// The end of its validity.
        on: time::Date,
    },
    /// It has not begun.
    #[error("the certificate in {path} is valid only from {from}", path = path.display())]
    NotYetValid {
        /// Which file.
        path: PathBuf,
        /// The beginning of its validity.
        from: time::Date,
    },
}

impl CertificateError {
    /// Whether it is the key's file that is at fault.
    pub fn is_about_the_key(&self) -> bool {
        matches!(self, Self::Key(_) | Self::UnusableKey { .. } | Self::Mismatch { .. })
    }
}

impl Certificate {
    /// Reads a chain and its key, and checks that they belong together and are in date at `now`.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], which names the file.
    pub fn load(chain: &Path, key: &Path, now: SystemTime) -> Result<Self, CertificateError> {
        let certificates = pem::certificates(chain).map_err(CertificateError::Chain)?;
        let private_key = pem::private_key(key).map_err(CertificateError::Key)?;
        let facts = certificates
            .first()
            .and_then(|first| Facts::read(first))
            .ok_or_else(|| CertificateError::Malformed(chain.into()))?;
        let certified = CertifiedKey::from_der(certificates, private_key, &super::provider())
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    CertificateError::Mismatch { chain: chain.into(), key: key.into() }
                }
                rustls::Error::InvalidCertificate(_) => CertificateError::Malformed(chain.into()),
                other => {
                    CertificateError::UnusableKey { path: key.into(), reason: other.to_string() }
                }
            })?;
        let now = OffsetDateTime::from(now);
        if now > facts.not_after {
            let on = facts.not_after.date();
            return Err(CertificateError::Expired { path: chain.into(), on });
        }
        if now < facts.not_before {
            let from = facts.not_before.date();
            return Err(CertificateError::NotYetValid { path: chain.into(), from });
        }
        let (path, key_path) = (chain.into(), key.into());
        Ok(Self { key: Arc::new(certified), facts, path, key_path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let facts = Facts {
            dns_names: vec!["example.org".into(), "*.example.org".into()],
            addresses: vec![[127, 0, 0, 1].into(), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16])],
            not_before: OffsetDateTime::UNIX_EPOCH,
            not_after: OffsetDateTime::UNIX_EPOCH,
            issuer: String::new(),
        };
        for (host, covered) in [
            ("example.org", true),
            ("a.example.org", true),
            ("a.b.example.org", false),
            ("org", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("[::1]", true),
        ] {
            assert_eq!(facts.cover(host), covered, "{host}");
        }
    }
}
