//! A certificate for the first run: a small CA of our own, and a leaf that it signs.
//!
//! A CA and a leaf rather than one self-signed leaf, so that a client can be told to trust it
//! (`wscat --ca certs/ca.pem`). The CA is limited by name constraints (RFC 5280 §4.2.1.10) to the
//! names of the configuration: a CA key that lies about must not be able to vouch for the rest of
//! the world. Key files are written with mode 0600 and never overwritten.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::certificate::{Certificate, CertificateError, Facts};
use super::pem;
use crate::config::SelfSigned;

const CA_LIFE: Duration = Duration::days(2 * 365);
/// Browsers refuse leaves of more than 398 days; 90 is what public CAs have come to.
const LEAF_LIFE: Duration = Duration::days(90);
/// A leaf of ours with less than this left is made anew at the next start.
const RENEW_BEFORE: Duration = Duration::days(30);
const CA_NAME: &str = "Tidegate local CA";

/// Why there is no certificate of our own.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// A file could not be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is there could not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Half of a pair is missing.
    #[error(
        "{there} is there but {missing} is not; nothing is overwritten, so put the missing file \
         back, or remove the other one to have both made anew",
        there = there.display(), missing = missing.display()
    )]
    HalfOfAPair {
        /// The file that exists.
        there: PathBuf,
        /// The file that does not.
        missing: PathBuf,
    },
    /// A CA or key of ours can no longer be used.
    #[error(
        "{path} cannot be used to sign a certificate: {reason}; remove it and the files beside it \
         to have them made anew",
        path = path.display()
    )]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The names cannot be put into a certificate.
    #[error("no certificate can be made for {names}: {reason}")]
    Names {
        /// The names.
        names: String,
        /// Why.
        reason: String,
    },
    /// What was made, or found, cannot be served.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// What [`ensure`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The files were there and in order.
    Found,
    /// There was none, and one was made.
    Made,
    /// There was one of ours which was about to expire or lacked a name; its key was kept.
    Renewed,
}

/// Where the CA of a certificate lies: beside its chain.
pub fn ca_path(chain: &Path) -> PathBuf {
    chain.with_file_name("ca.pem")
}

/// Makes the certificate where it is missing, renews it where it is ours and due, and loads it.
///
/// # Errors
///
/// [`SelfSignedError`], which names the file and the way out.
pub fn ensure(
    wanted: &SelfSigned,
    now: SystemTime,
) -> Result<(Certificate, Outcome), SelfSignedError> {
    let (chain, key) = (&wanted.chain, &wanted.key);
    let outcome = match (chain.exists(), key.exists()) {
        (true, true) if !is_due(chain, &wanted.names, now) => Outcome::Found,
        (true, true) => {
            make(wanted, &read_key(key)?, now)?;
            Outcome::Renewed
        }
        (false, false) => {
            for folder in [chain.parent(), key.parent()].into_iter().flatten() {
                fs::create_dir_all(folder)
                    .map_err(|source| SelfSignedError::Write { path: folder.into(), source })?;
            }
            let leaf_key = new_key(key)?;
            write_new(key, leaf_key.serialize_pem().as_bytes(), PRIVATE)?;
            make(wanted, &leaf_key, now)?;
            Outcome::Made
        }
        (false, true) => {
            // A start that was cut short between the two writes, or somebody's own key.
            make(wanted, &read_key(key)?, now)?;
            Outcome::Made
        }
        (true, false) => {
            return Err(SelfSignedError::HalfOfAPair {
                there: chain.clone(),
                missing: key.clone(),
            });
        }
    };
    Ok((Certificate::load(chain, key, now)?, outcome))
}

/// Whether the leaf is one of ours and should be signed again. Somebody else's certificate is
/// left alone, whatever it says.
fn is_due(chain: &Path, names: &[String], now: SystemTime) -> bool {
    let facts = pem::certificates(chain)
        .ok()
        .and_then(|chain| chain.first().and_then(|leaf| Facts::read(leaf)));
    let Some(facts) = facts else { return false };
    let soon = OffsetDateTime::from(now) + RENEW_BEFORE;
    facts.issuer.contains(CA_NAME)
        && (facts.not_after < soon || names.iter().any(|name| !facts.cover(name)))
}

/// Signs a leaf with the CA beside it, which is made first where there is none. The leaf is for
/// the wanted names and, where the CA may sign for it, the machine's own.
fn make(wanted: &SelfSigned, leaf_key: &KeyPair, now: SystemTime) -> Result<(), SelfSignedError> {
    let ca_path = ca_path(&wanted.chain);
    let (ca, ca_key) = certificate_authority(&ca_path, &wanted.names, now)?;
    let unusable = |error: rcgen::Error| SelfSignedError::Unusable {
        path: ca_path.clone(),
        reason: error.to_string(),
    };
    let issuer = Issuer::from_ca_cert_pem(&ca, &ca_key).map_err(unusable)?;

    let mut names = wanted.names.clone();
    names.extend(own_host_name().filter(|own| {
        !names.contains(own) && ca_may_not_sign(&ca_path, std::slice::from_ref(own)).is_none()
    }));
    let mut leaf =
        CertificateParams::new(names.clone()).map_err(|error| wrong_names(&names, &error))?;
    leaf.distinguished_name = named(names.first().map_or("tidegate", String::as_str));
    (leaf.not_before, leaf.not_after) = life(now, LEAF_LIFE);
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(leaf_key, &issuer).map_err(unusable)?;

    let pem = format!("{}{ca}", leaf.pem());
    // Renewal replaces the file in one step: another process may be reading it.
    let draft = wanted.chain.with_extension("new");
    fs::write(&draft, pem)
        .and_then(|()| fs::rename(&draft, &wanted.chain))
        .map_err(|source| SelfSignedError::Write { path: wanted.chain.clone(), source })
}

/// The CA's certificate in PEM, and its key.
fn certificate_authority(
    path: &Path,
    names: &[String],
    now: SystemTime,
) -> Result<(String, KeyPair), SelfSignedError> {
    let key_path = path.with_extension("key");
    match (path.exists(), key_path.exists()) {
        (true, true) => {
            let pem = fs::read_to_string(path)
                .map_err(|source| SelfSignedError::Read { path: path.into(), source })?;
            check_authority(path, names, now)?;
            Ok((pem, read_key(&key_path)?))
        }
        (true, false) => {
            Err(SelfSignedError::HalfOfAPair { there: path.into(), missing: key_path })
        }
        (false, true) => {
            Err(SelfSignedError::HalfOfAPair { there: key_path, missing: path.into() })
        }
        (false, false) => {
            let key = new_key(&key_path)?;
            let own = own_host_name();
            let mut ca = CertificateParams::default();
            ca.distinguished_name =
                named(&format!("{CA_NAME} ({})", own.as_deref().unwrap_or("unnamed host")));
            (ca.not_before, ca.not_after) = life(now, CA_LIFE);
            ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            ca.name_constraints = Some(NameConstraints {
                permitted_subtrees: names.iter().chain(&own).map(|name| subtree(name)).collect(),
                excluded_subtrees: Vec::new(),
            });
            let ca = ca.self_signed(&key).map_err(|error| wrong_names(names, &error))?;
            write_new(&key_path, key.serialize_pem().as_bytes(), PRIVATE)?;
            write_new(path, ca.pem().as_bytes(), PUBLIC)?;
            Ok((ca.pem(), key))
        }
    }
}

/// A CA that has run out, or that may not sign for one of the names, would sign a leaf that no
/// client believes: better to say so.
fn check_authority(path: &Path, names: &[String], now: SystemTime) -> Result<(), SelfSignedError> {
    let unusable = |reason: String| SelfSignedError::Unusable { path: path.into(), reason };
    let chain = pem::certificates(path).map_err(|error| unusable(error.to_string()))?;
    let facts = chain
        .first()
        .and_then(|der| Facts::read(der))
        .ok_or_else(|| unusable("it is malformed".into()))?;
    if facts.not_after < OffsetDateTime::from(now) + LEAF_LIFE {
        return Err(unusable("it expires within 90 days".into()));
    }
    match ca_may_not_sign(path, names) {
        Some(name) => Err(unusable(format!("it may not sign for `{name}`"))),
        None => Ok(()),
    }
}

/// The first of `names` that is outside the name constraints of the CA at `path`.
fn ca_may_not_sign<'a>(path: &Path, names: &'a [String]) -> Option<&'a String> {
    let chain = pem::certificates(path).ok()?;
    let (_, ca) = X509Certificate::from_der(chain.first()?).ok()?;
    let constraints = ca.name_constraints().ok()??;
    let permitted = constraints.value.permitted_subtrees.as_deref().unwrap_or(&[]);
    names.iter().find(|name| !permitted.iter().any(|subtree| is_within(name, &subtree.base)))
}

/// Whether `name` lies within a subtree of RFC 5280 §4.2.1.10. An address there is followed by
/// its mask; ours are of single addresses.
fn is_within(name: &str, base: &GeneralName<'_>) -> bool {
    let name = name.trim_start_matches("*.");
    match (base, name.parse::<IpAddr>()) {
        (GeneralName::DNSName(base), Err(_)) => {
            name == *base || name.strip_suffix(base).is_some_and(|rest| rest.ends_with('.'))
        }
        (GeneralName::IPAddress(base), Ok(IpAddr::V4(address))) => {
            base.starts_with(&address.octets())
        }
        (GeneralName::IPAddress(base), Ok(IpAddr::V6(address))) => {
            base.starts_with(&address.octets())
        }
        _ => false,
    }
}

fn subtree(name: &str) -> GeneralSubtree {
    match name.parse::<IpAddr>() {
        Ok(address) => {
            let whole = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, whole))
        }
        Err(_) => GeneralSubtree::DnsName(name.trim_start_matches("*.").into()),
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name.push(DnType::OrganizationName, "Tidegate");
    name
}

/// From an hour ago, for clients whose clock is late.
fn life(now: SystemTime, life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::from(now);
    (now - Duration::HOUR, now - Duration::HOUR + life)
}

fn wrong_names(names: &[String], error: &rcgen::Error) -> SelfSignedError {
    SelfSignedError::Names { names: names.join(", "), reason: error.to_string() }
}

/// The machine's own name, where it is one that a certificate can carry.
fn own_host_name() -> Option<String> {
    let own = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let fits = !own.is_empty()
        && own.len() <= 63
        && own.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    fits.then_some(own)
}

fn new_key(path: &Path) -> Result<KeyPair, SelfSignedError> {
    KeyPair::generate()
        .map_err(|error| SelfSignedError::Unusable { path: path.into(), reason: error.to_string() })
}

fn read_key(path: &Path) -> Result<KeyPair, SelfSignedError> {
    let text = fs::read_to_string(path)
        .map_err(|source| SelfSignedError::Read { path: path.into(), source })?;
    KeyPair::from_pem(&text)
        .map_err(|error| SelfSignedError::Unusable { path: path.into(), reason: error.to_string() })
}

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Writes a file that must not exist yet.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), SelfSignedError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .map_err(|source| SelfSignedError::Write { path: path.into(), source })
}
