//! Our side towards `https://` endpoints: which roots are trusted, and what is verified.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::handover::{Framed, Notary, Secured, noting};
use super::pem::{self, PemError};

/// Whom to believe that an endpoint is who it says.
#[derive(Debug)]
pub enum Trust<'a> {
    /// The roots that the system trusts.
    System,
    /// The roots of a PEM file.
    File(&'a Path),
    /// Anybody.
    Anybody,
}

/// Why no client configuration came of it.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file with the roots.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The system has no roots.
    #[error("the system has no trusted roots (install ca-certificates, or name a file in `ca`){0}")]
    NoRoots(String),
    /// What rustls says.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Builds the configuration for connections to endpoints.
///
/// # Errors
///
/// [`TrustError`] where the roots cannot be read or there are none.
pub fn config(trust: &Trust<'_>) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = super::provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::File(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in pem::certificates(path)? {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(BelieveAnybody(provider)))
        }
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Notary);
    Ok(Arc::new(config))
}

/// Makes the handshake with an endpoint that has this name.
///
/// # Errors
///
/// What the socket or rustls says.
pub async fn connect<S>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: S,
) -> io::Result<Secured<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connecting = async { TlsConnector::from(config).connect(name, Framed::new(socket)).await };
    let (connected, secrets) = noting(connecting).await;
    Ok(Secured::new(connected?, secrets))
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(TrustError::NoRoots(why));
    }
    Ok(roots)
}

/// `verify = false`: the certificate is not looked at. The signatures of the handshake still are,
/// so that at least the endpoint holds the key it shows.
#[derive(Debug)]
struct BelieveAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
