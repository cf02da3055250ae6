//! Certificates of clients: whose signature on them is believed, and how they are verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};

use super::identity::Identity;
use super::pem::{self, PemError};

/// The CAs whose clients are let in.
#[derive(Debug, Clone)]
pub struct Authorities {
    /// Where they were read from.
    pub path: PathBuf,
    roots: Arc<RootCertStore>,
    requesting: Arc<dyn ClientCertVerifier>,
    requiring: Arc<dyn ClientCertVerifier>,
}

/// Why a file has no CAs that clients could be verified by.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The file.
    #[error("the CAs of clients cannot be used: {0}")]
    Pem(#[from] PemError),
    /// One of its certificates.
    #[error(
        "the CAs of clients cannot be used: certificate {number} in {path} is malformed",
        path = path.display()
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Which one, counted from 1.
        number: usize,
        /// What rustls says of it.
        source: rustls::Error,
    },
    /// What rustls says of all of them.
    #[error("the CAs of clients cannot be used: {path}: {source}", path = path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What rustls says.
        source: VerifierBuilderError,
    },
}

impl Authorities {
    /// Reads the certificates of a PEM file, at least one.
    ///
    /// # Errors
    ///
    /// [`AuthoritiesError`], which names the file.
    pub fn load(path: &Path) -> Result<Self, AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        for (index, certificate) in pem::certificates(path)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|source| AuthoritiesError::Malformed {
                path: path.into(),
                number: index + 1,
                source,
            })?;
        }
        let roots = Arc::new(roots);
        let unusable = |source| AuthoritiesError::Unusable { path: path.into(), source };
        let builder =
            || WebPkiClientVerifier::builder_with_provider(roots.clone(), super::provider());
        let requesting = builder().allow_unauthenticated().build().map_err(unusable)?;
        let requiring = builder().build().map_err(unusable)?;
        Ok(Self {
            path: path.into(),
            requesting: Arc::new(Passable(requesting)),
            requiring: Arc::new(Passable(requiring)),
            roots,
        })
    }

    /// Whether the same CAs are believed, whatever file they are from.
    pub fn are_those_of(&self, other: &Self) -> bool {
        self.roots.roots == other.roots.roots
    }

    /// Lets in who has no certificate, and nobody with a bad one.
    pub(super) fn requesting(&self) -> Arc<dyn ClientCertVerifier> {
        self.requesting.clone()
    }

    /// Lets in nobody without a certificate.
    pub(super) fn requiring(&self) -> Arc<dyn ClientCertVerifier> {
        self.requiring.clone()
    }
}

/// Verifies as webpki does, and that the certificate can be passed on to an upstream.
#[derive(Debug)]
struct Passable(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Passable {
    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        match Identity::read(end_entity, now) {
            Ok(_) => Ok(verified),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
