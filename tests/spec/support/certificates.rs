//! Keys and chains for the tests, and TLS as a client sees it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use time::{Duration, OffsetDateTime};

/// A certificate authority of a test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A chain and its key, as files and as what rustls takes.
pub(crate) struct Leaf {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        Authority::named("Test CA")
    }

    pub(crate) fn named(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        Authority {
            issuer: CertifiedIssuer::self_signed(params, key).expect("a key can sign its own name"),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `names`, valid today.
    pub(crate) fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_between(names, 2020, 2100)
    }

    /// A certificate for `names`, valid from the start of one year to the start of another.
    pub(crate) fn issue_between(&self, names: &[&str], first_year: i32, last_year: i32) -> Leaf {
        let year = |year| rcgen::date_time_ymd(year, 1, 1);
        self.issue_from(names, year(first_year), year(last_year))
    }

    /// A certificate for `names` that ends in so many days.
    pub(crate) fn issue_ending_in(&self, names: &[&str], days: i64) -> Leaf {
        let end = OffsetDateTime::now_utc() + Duration::days(days);
        self.issue_from(names, end - Duration::days(90), end)
    }

    /// A certificate for a client with this subject, in the order of the encoding.
    pub(crate) fn issue_to(&self, subject: &[(DnType, &str)]) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        self.sign(params)
    }

    /// A certificate for a client that ends in so many seconds.
    pub(crate) fn issue_for_seconds(&self, seconds: i64) -> Leaf {
        let now = OffsetDateTime::now_utc();
        self.issue_from(&[], now - Duration::days(1), now + Duration::seconds(seconds))
    }

    fn issue_from(&self, names: &[&str], from: OffsetDateTime, until: OffsetDateTime) -> Leaf {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the test's names are good");
        params.distinguished_name.push(DnType::CommonName, "Test leaf");
        params.not_before = from;
        params.not_after = until;
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key can be made");
        let leaf = params.signed_by(&key, &self.issuer).expect("the authority signs");
        Leaf {
            chain_pem: leaf.pem(),
            key_pem: key.serialize_pem(),
            chain: vec![leaf.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS#8"),
        }
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client(&self) -> ClientConfig {
        trusting([self.issuer.der().clone()])
    }
}

impl Leaf {
    pub(crate) fn der(&self) -> &[u8] {
        &self.chain[0]
    }

    /// The server side of an `https://` endpoint with this certificate.
    pub(crate) fn server(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the default versions")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("the key is the chain's")
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    builder_for(rustls::DEFAULT_VERSIONS)
}

fn builder_for(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("the provider has these versions")
}

/// A client that trusts `authorities` alone.
pub(crate) fn trusting(
    authorities: impl IntoIterator<Item = CertificateDer<'static>>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).expect("an authority is a good root");
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(aws_lc_rs::default_provider()),
    );
    builder().with_webpki_verifier(verifier.build().expect("there is a root")).with_no_client_auth()
}

/// A client that trusts the certificates in a PEM file.
pub(crate) fn trusting_file(path: &Path) -> ClientConfig {
    let pem = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    trusting(rustls_pemfile::certs(&mut &*pem).map(|der| der.expect("PEM holds a certificate")))
}

/// A client that takes any certificate, for tests that look at which one came, or at something else.
pub(crate) fn trusting_anyone() -> ClientConfig {
    anyone(rustls::DEFAULT_VERSIONS)
}

/// The same, with one version of TLS only.
pub(crate) fn speaking(version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    anyone(&[version])
}

fn anyone(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    builder_for(versions)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth()
}

/// A client that takes any certificate and shows this one, if it is asked, with one version of TLS only.
pub(crate) fn showing(
    leaf: &Leaf,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    builder_for(&[version])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_auth_cert(leaf.chain.clone(), leaf.key.clone_key())
        .expect("the key is the chain's")
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Runs `openssl` in `folder`; its key formats are what people really have.
pub(crate) fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("the tests need openssl");
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes `leaf` into `folder` as `NAME.crt` and `NAME.key`, and returns the `[[certificate]]` that names them.
pub(crate) fn written(folder: &Path, name: &str, leaf: &Leaf) -> String {
    let write = |file: PathBuf, text: &str| {
        std::fs::write(file, text).expect("the test's folder can be written")
    };
    write(folder.join(format!("{name}.crt")), &leaf.chain_pem);
    write(folder.join(format!("{name}.key")), &leaf.key_pem);
    format!("[[certificate]]\nchain = \"{name}.crt\"\nkey = \"{name}.key\"\n")
}
