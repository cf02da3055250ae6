//! `[[listener]]` and `[tls]`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use ipnet::IpNet;

use super::positive;
use crate::config::fault::Faults;
use crate::config::file;
use crate::config::{Listener, Tls};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

const DEFAULT_LISTENERS: [(&str, &str, bool); 2] =
    [("[::]:80", "[::]:8080", false), ("[::]:443", "[::]:8443", true)];

pub(super) fn listeners(file: &file::File, faults: &mut Faults) -> Option<Vec<Listener>> {
    if file.listener.is_empty() {
        let default = |(address, fallback, tls): (&str, &str, bool)| {
            Some(Listener {
                address: address.parse().ok()?,
                fallback: fallback.parse().ok(),
                tls,
                trusted: Vec::new(),
                redirect_https: false,
            })
        };
        return DEFAULT_LISTENERS.into_iter().map(default).collect();
    }
    let mut seen: HashMap<SocketAddr, Range<usize>> = HashMap::new();
    let compiled: Vec<Option<Listener>> = file
        .listener
        .iter()
        .map(|written| {
            let trusted: Vec<Option<IpNet>> =
                written.trusted.iter().map(|text| faults.keep(text, network)).collect();
            let Some(address_text) = &written.address else {
                faults.error(
                    written.place.clone(),
                    "this listener has no address",
                    "add `address = \"[::]:443\"`, for example",
                );
                return None;
            };
            let address = faults.keep(address_text, address)?;
            if address.port() != 0 && seen.insert(address, address_text.span()).is_some() {
                faults.error(
                    Some(address_text.span()),
                    format_args!("two listeners have the address {address}"),
                    "remove one, or give it another port",
                );
            }
            let fallback = match &written.fallback {
                Some(text) => Some(faults.keep(text, self::address)?),
                None => None,
            };
            let tls = written.tls.unwrap_or(false);
            if tls && written.redirect_https == Some(true) {
                faults.error(
                    written.place.clone(),
                    "this listener speaks TLS and redirects to https, which is itself",
                    "set `redirect_https` on the plain listener",
                );
            }
            Some(Listener {
                address,
                fallback,
                tls,
                trusted: trusted.into_iter().collect::<Option<_>>()?,
                redirect_https: written.redirect_https.unwrap_or(false),
            })
        })
        .collect();
    compiled.into_iter().collect()
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let way_out = match text.rsplit_once(':') {
            Some(("" | "*", port)) => format!("for every address, write \"[::]:{port}\""),
            _ if text.parse::<u16>().is_ok() => format!("for every address, write \"[::]:{text}\""),
            _ => "write an IP address and a port, as in \"[::]:443\" or \"127.0.0.1:8443\"".into(),
        };
        format!("`{text}` is no address to listen on: {way_out}")
    })
}

fn network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse().map(|address: std::net::IpAddr| IpNet::from(address));
    text.parse().or_else(|_| single()).map_err(|_| {
        format!(
            "`{text}` is no network: write an IP address or a prefix, as in \"10.0.0.0/8\" or \
             \"::1\""
        )
    })
}

pub(super) fn tls(written: &file::Tls, faults: &mut Faults) -> Option<Tls> {
    let allow_tls12 = faults.keep_or(true, written.min_version.as_ref(), |text| match text {
        "1.2" => Ok(true),
        "1.3" => Ok(false),
        other => {
            Err(format!("`{other}` is no version of TLS that is spoken here: \"1.2\" or \"1.3\""))
        }
    });
    let handshake_timeout =
        faults.keep_or(HANDSHAKE_TIMEOUT, written.handshake_timeout.as_ref(), positive);
    Some(Tls { allow_tls12: allow_tls12?, handshake_timeout: handshake_timeout? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_host_is_explained() {
        for text in [":443", "*:443", "443"] {
            assert!(address(text).expect_err(text).contains("\"[::]:443\""), "{text}");
        }
    }
}
