//! What a person at a terminal is shown when the proxy is up: where it is, and how to try it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use crate::config::{CertificateSource, Config, EndpointAddr};
use crate::listener::bind::Bound;
use crate::tls::certificate::Certificate;
use crate::tls::self_signed;

/// What there is to show.
#[derive(Debug)]
pub(super) struct Summary(String);

impl Summary {
    /// Gathers it from what has been started.
    pub(super) fn new(
        path: &Path,
        config: &Config,
        bound: &[Bound],
        certificates: &[Certificate],
    ) -> Self {
        let mut text = format!("\nTidegate {} is up\n\n", env!("CARGO_PKG_VERSION"));
        for bound in bound {
            let (http, ws) = if bound.config.tls { ("https", "wss") } else { ("http", "ws") };
            let place = place(bound.address, bound.config.tls);
            let _ = writeln!(
                text,
                "  {:<28}  {}",
                format!("{http}://{place}/"),
                format_args!("{ws}://{place}/")
            );
        }
        let own_ca = config.certificates.iter().find_map(|source| match source {
            CertificateSource::SelfSigned(own) => Some(self_signed::ca_path(&own.chain)),
            CertificateSource::Loaded(_) => None,
        });
        try_it(&mut text, bound, own_ca.as_deref());
        if let Some(certificate) = certificates.first() {
            let until = certificate.facts.not_after.date();
            let _ =
                writeln!(text, "\n  Certificate   {}, until {until}", certificate.path.display());
        }
        if let Some(ca) = own_ca {
            let _ = writeln!(
                text,
                "  Local CA      {}: made here, so browsers warn until they are told to trust it",
                ca.display()
            );
        }
        let is_trial = config
            .upstreams
            .iter()
            .any(|upstream| upstream.endpoints.contains(&EndpointAddr::Echo));
        if is_trial {
            let _ = writeln!(
                text,
                "  Your backend  the built-in echo answers for now; in {}, replace\n                \
                 builtin = \"echo\"  by  endpoints = [\"http://127.0.0.1:3000\"]",
                path.display()
            );
        }
        Self(text)
    }

    /// Shows it, where there is a person to see it.
    pub(super) fn show(&self) {
        if io::stdout().is_terminal() {
            // A terminal that has gone away needs no banner.
            let _ = writeln!(io::stdout(), "{}", self.0);
        }
    }
}

fn try_it(text: &mut String, bound: &[Bound], own_ca: Option<&Path>) {
    let tls = bound.iter().find(|bound| bound.config.tls);
    let Some(shown) = tls.or(bound.first()) else { return };
    let place = place(shown.address, shown.config.tls);
    let _ = writeln!(text, "\n  Try it in another terminal (npm install -g wscat):");
    match (shown.config.tls, own_ca) {
        (false, _) => {
            let _ = writeln!(text, "    wscat -c ws://{place}/");
        }
        (true, None) => {
            let _ = writeln!(text, "    wscat -c wss://{place}/");
        }
        (true, Some(ca)) => {
            let _ = writeln!(text, "    wscat -n -c wss://{place}/");
            let _ = writeln!(text, "    wscat --ca {} -c wss://{place}/", ca.display());
        }
    }
}

/// The host and port that reach a listener from this machine.
fn place(address: SocketAddr, tls: bool) -> String {
    let ip = address.ip();
    let host = if ip.is_unspecified() || ip.is_loopback() {
        "localhost".to_owned()
    } else if address.is_ipv6() {
        format!("[{ip}]")
    } else {
        ip.to_string()
    };
    let default = if tls { 443 } else { 80 };
    if address.port() == default { host } else { format!("{host}:{}", address.port()) }
}
