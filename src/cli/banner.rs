//! What a person at a terminal is shown when the proxy is up: where it is, and how to try it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use crate::config::EndpointAddr;
use crate::lifecycle::assembly::Opened;
use crate::lifecycle::control::Control;

/// Shows it, where there is a person to see it.
pub(super) fn show(control: &Control) {
    if io::stdout().is_terminal() {
        // A terminal that has gone away needs no banner.
        let _ = writeln!(io::stdout(), "{}", text(control));
    }
}

fn text(control: &Control) -> String {
    let open = control.listeners();
    let running = control.running();
    let mut text = format!("\nTidegate {} is up\n\n", env!("CARGO_PKG_VERSION"));
    for open in &open {
        let (http, ws) = if open.config.tls { ("https", "wss") } else { ("http", "ws") };
        let place = place(open.address, open.config.tls);
        let _ = writeln!(
            text,
            "  {:<28}  {}",
            format!("{http}://{place}/"),
            format_args!("{ws}://{place}/")
        );
    }
    let own_ca = control.own_ca();
    try_it(&mut text, &open, own_ca.as_deref());
    if let Some(certificate) = running.certificates.certificates().first() {
        let until = certificate.facts.not_after.date();
        let _ = writeln!(text, "\n  Certificate   {}, until {until}", certificate.path.display());
    }
    if let Some(ca) = own_ca {
        let _ = writeln!(
            text,
            "  Local CA      {}: made here, so browsers warn until they are told to trust it",
            ca.display()
        );
    }
    let is_trial = running
        .upstreams
        .iter()
        .any(|upstream| upstream.config.endpoints.contains(&EndpointAddr::Echo));
    if is_trial {
        let _ = writeln!(
            text,
            "  Your backend  the built-in echo answers for now; in {}, replace\n                \
             builtin = \"echo\"  by  endpoints = [\"http://127.0.0.1:3000\"]",
            control.source().path.display()
        );
    }
    text
}

fn try_it(text: &mut String, open: &[Opened], own_ca: Option<&Path>) {
    let tls = open.iter().find(|open| open.config.tls);
    let Some(shown) = tls.or(open.first()) else { return };
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
