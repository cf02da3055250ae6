//! `[tls]`, and what a listener says of certificates of clients.

use std::path::Path;
use std::time::Duration;

use toml::Spanned;

use super::{one_of, positive};
use crate::config::fault::Faults;
use crate::config::file::{self, Text};
use crate::config::{ClientAuth, KeyPermissions, Tls, UnknownName};
use crate::tls::client_auth::Authorities;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn tls(file: &file::File, folder: &Path, faults: &mut Faults) -> Option<Tls> {
    let written = &file.tls;
    let allow_tls12 = faults.keep_or(true, written.min_version.as_ref(), |text| {
        one_of("safe version of TLS", &[("1.2", true), ("1.3", false)], text)
    });
    let handshake_timeout =
        faults.keep_or(HANDSHAKE_TIMEOUT, written.handshake_timeout.as_ref(), positive);
    let unknown_names = [("default", UnknownName::Default), ("refuse", UnknownName::Refuse)];
    let unknown_name =
        faults.keep_or(UnknownName::Default, written.unknown_name.as_ref(), |text| {
            one_of("way to treat an unknown name", &unknown_names, text)
        });
    let key_permissions = [("warn", KeyPermissions::Warn), ("refuse", KeyPermissions::Refuse)];
    let key_permissions =
        faults.keep_or(KeyPermissions::Warn, written.key_permissions.as_ref(), |text| {
            one_of("way to treat a key that is open to others", &key_permissions, text)
        });
    let client_ca = client_ca(file, folder, faults);
    if let Some(written) = &written.client_auth {
        read_client_auth(written, file, faults)?;
    }
    Some(Tls {
        allow_tls12: allow_tls12?,
        handshake_timeout: handshake_timeout?,
        client_ca: client_ca?,
        unknown_name: unknown_name?,
        key_permissions: key_permissions?,
    })
}

/// The CAs of clients; `Some(None)` where there are none.
fn client_ca(file: &file::File, folder: &Path, faults: &mut Faults) -> Option<Option<Authorities>> {
    let Some(written) = &file.tls.client_ca else { return Some(None) };
    let asked =
        |written: &Option<Text>| written.as_ref().is_some_and(|text| text.get_ref() != "off");
    if !asked(&file.tls.client_auth) && !file.listener.iter().any(|one| asked(&one.client_auth)) {
        faults.warn(
            Some(written.span()),
            "nobody is asked for a certificate, so whose are believed does not matter",
            "add `client_auth = \"require\"` here or to a `[[listener]]`, or remove this",
        );
    }
    match Authorities::load(&folder.join(written.get_ref())) {
        Ok(authorities) => Some(Some(authorities)),
        Err(error) => {
            let way_out =
                "name a PEM file with the certificates of the CAs that sign your clients'";
            faults.error(Some(written.span()), error, way_out);
            None
        }
    }
}

/// Whether a listener asks clients for a certificate: as it says, or else as `[tls]` does.
pub(super) fn client_auth(
    listener: &file::Listener,
    file: &file::File,
    faults: &mut Faults,
) -> Option<ClientAuth> {
    if listener.tls != Some(true) {
        if let Some(written) = &listener.client_auth {
            faults.error(
                Some(written.span()),
                "this listener has no TLS, and without it nobody shows a certificate",
                "add `tls = true`, or remove this",
            );
        }
        return Some(ClientAuth::Off);
    }
    match &listener.client_auth {
        Some(written) => read_client_auth(written, file, faults),
        None => Some(default_client_auth(file)),
    }
}

/// What `[tls]` says; what is wrong with it has been reported there.
pub(super) fn default_client_auth(file: &file::File) -> ClientAuth {
    let written = file.tls.client_auth.as_ref().map(Spanned::get_ref);
    written.and_then(|text| known(text).ok()).unwrap_or(ClientAuth::Off)
}

fn read_client_auth(written: &Text, file: &file::File, faults: &mut Faults) -> Option<ClientAuth> {
    let client_auth = faults.keep(written, known)?;
    if client_auth != ClientAuth::Off && file.tls.client_ca.is_none() {
        faults.error(
            Some(written.span()),
            "clients are asked for a certificate, and nobody's is believed",
            "add `client_ca = \"…\"` to [tls], a PEM file with the CAs that sign your clients'",
        );
        return None;
    }
    Some(client_auth)
}

fn known(text: &str) -> Result<ClientAuth, String> {
    let known = [
        ("off", ClientAuth::Off),
        ("request", ClientAuth::Request),
        ("require", ClientAuth::Require),
    ];
    one_of("way to ask for a certificate", &known, text)
}
