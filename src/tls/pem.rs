//! Reads PEM files. The only place that knows rustls-pemfile, which is archived (it is a thin
//! wrapper over rustls-pki-types by now), so that leaving it will be a change to this file.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a PEM file gave nothing usable.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has no certificate.
    #[error(
        "{path} has no certificate: it should begin with -----BEGIN CERTIFICATE-----",
        path = .0.display()
    )]
    NoCertificate(PathBuf),
    /// The file has no private key.
    #[error(
        "{path} has no private key: PKCS#8, PKCS#1 (RSA) and SEC1 (EC) keys are read, without a \
         passphrase",
        path = .0.display()
    )]
    NoKey(PathBuf),
}

/// The certificates of a file, in its order.
///
/// # Errors
///
/// [`PemError`] where the file cannot be read or has none.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let unreadable = |source| PemError::Read { path: path.into(), source };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let chain: Vec<_> =
        rustls_pemfile::certs(&mut file).collect::<Result<_, _>>().map_err(unreadable)?;
    if chain.is_empty() { Err(PemError::NoCertificate(path.into())) } else { Ok(chain) }
}

/// The first private key of a file.
///
/// # Errors
///
/// [`PemError`] where the file cannot be read or has none.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let unreadable = |source| PemError::Read { path: path.into(), source };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    rustls_pemfile::private_key(&mut file)
        .map_err(unreadable)?
        .ok_or_else(|| PemError::NoKey(path.into()))
}
