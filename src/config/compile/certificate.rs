//! `[[certificate]]`: files that are there are read and checked here.

use std::path::Path;
use std::time::SystemTime;

use toml::Spanned;

use crate::config::fault::{Faults, Place};
use crate::config::file::{self, Text};
use crate::config::{CertificateSource, KeyPermissions, SelfSigned};
use crate::route::pattern::HostPattern;
use crate::tls::certificate::Certificate;
use crate::tls::key_file;

const DEFAULT_CHAIN: &str = "certs/server.crt";
const DEFAULT_KEY: &str = "certs/server.key";
const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

pub(super) fn certificates(
    file: &file::File,
    folder: &Path,
    key_permissions: KeyPermissions,
    faults: &mut Faults,
) -> Option<Vec<CertificateSource>> {
    if file.certificate.is_empty() {
        let tls = file.listener.is_empty() || file.listener.iter().any(|l| l.tls == Some(true));
        let names = DEFAULT_NAMES.map(str::to_owned).to_vec();
        let default =
            SelfSigned { chain: folder.join(DEFAULT_CHAIN), key: folder.join(DEFAULT_KEY), names };
        if !tls {
            return Some(Vec::new());
        }
        let source = CertificateSource::SelfSigned(default);
        check_keys(&source, None, key_permissions, faults)?;
        return Some(vec![source]);
    }
    let compiled: Vec<Option<CertificateSource>> = file
        .certificate
        .iter()
        .map(|written| {
            let source = certificate(written, folder, faults)?;
            let place = written.key.as_ref().map(Spanned::span);
            check_keys(&source, place, key_permissions, faults).map(|()| source)
        })
        .collect();
    compiled.into_iter().collect()
}

/// Says of private keys that they are open to others.
fn check_keys(
    source: &CertificateSource,
    place: Place,
    key_permissions: KeyPermissions,
    faults: &mut Faults,
) -> Option<()> {
    let mut exposed = source.keys().into_iter().filter_map(|key| key_file::check(&key).err());
    match key_permissions {
        KeyPermissions::Warn => {
            exposed.for_each(|exposed| faults.warn(place.clone(), &exposed, exposed.way_out()));
            Some(())
        }
        KeyPermissions::Refuse => match exposed.next() {
            Some(exposed) => {
                faults.error(place, &exposed, exposed.way_out());
                None
            }
            None => Some(()),
        },
    }
}

fn certificate(
    written: &file::Certificate,
    folder: &Path,
    faults: &mut Faults,
) -> Option<CertificateSource> {
    let mut path = |text: &Option<Text>, key: &str| {
        if text.is_none() && written.is_whole {
            faults.error(
                written.place.clone(),
                format_args!("this certificate has no `{key}`"),
                format_args!("add `{key} = \"certs/…\"`, a PEM file"),
            );
        }
        text.as_ref().map(|text| folder.join(text.get_ref()))
    };
    let chain = path(&written.chain, "chain");
    let key = path(&written.key, "key");
    let (chain, key) = (chain?, key?);
    if let Some(names) = &written.self_signed {
        let names: Vec<Option<String>> =
            names.get_ref().iter().map(|name| faults.keep(name, certificate_name)).collect();
        let names = names.into_iter().collect::<Option<Vec<_>>>()?;
        if names.is_empty() {
            let place = written.self_signed.as_ref().map(Spanned::span);
            faults.error(place, "a certificate for no name", "write [\"localhost\"], for example");
            return None;
        }
        return Some(CertificateSource::SelfSigned(SelfSigned { chain, key, names }));
    }
    match Certificate::load(&chain, &key, SystemTime::now()) {
        Ok(certificate) => Some(CertificateSource::Loaded(Box::new(certificate))),
        Err(error) => {
            let at = if error.is_about_the_key() { &written.key } else { &written.chain };
            let way_out = if chain.exists() || key.exists() {
                ""
            } else {
                "put the files there, or add `self_signed = [\"localhost\"]` to have them made"
            };
            faults.error(at.as_ref().map(Spanned::span), error, way_out);
            None
        }
    }
}

fn certificate_name(text: &str) -> Result<String, String> {
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    match HostPattern::parse(text) {
        Ok(HostPattern::Exact(_) | HostPattern::Wildcard(_)) => Ok(text.to_ascii_lowercase()),
        _ if is_address => Ok(text.to_owned()),
        _ => Err(format!(
            "`{text}` is no name for a certificate: write a host name or an IP address without \
             brackets"
        )),
    }
}
