//! `[[listener]]`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use super::one_of;
use super::tls::{client_auth, default_client_auth};
use crate::config::fault::Faults;
use crate::config::units::network;
use crate::config::{ClientAuth, Listener, ProxyProtocol, file};

const DEFAULT_LISTENERS: [(&str, &str, bool); 2] =
    [("[::]:80", "[::]:8080", false), ("[::]:443", "[::]:8443", true)];

pub(super) fn listeners(file: &file::File, faults: &mut Faults) -> Option<Vec<Listener>> {
    if file.listener.is_empty() {
        let default = |(address, fallback, tls): (&str, &str, bool)| {
            Some(Listener {
                address: address.parse().ok()?,
                fallback: fallback.parse().ok(),
                activation: None,
                tls,
                trusted: Vec::new(),
                proxy_protocol: ProxyProtocol::Off,
                redirect_https: false,
                client_auth: if tls { default_client_auth(file) } else { ClientAuth::Off },
            })
        };
        return DEFAULT_LISTENERS.into_iter().map(default).collect();
    }
    let mut seen: HashMap<SocketAddr, Range<usize>> = HashMap::new();
    let mut seen_names: HashSet<&str> = HashSet::new();
    let compiled: Vec<Option<Listener>> = file
        .listener
        .iter()
        .map(|written| {
            let trusted: Vec<Option<IpNet>> =
                written.trusted.iter().map(|text| faults.keep(text, network)).collect();
            let proxy_protocol = proxy_protocol(written, faults);
            let activation = faults
                .keep_or(None, written.activation.as_ref(), |text| descriptor_name(text).map(Some));
            if let Some(text) = &written.activation
                && !seen_names.insert(text.get_ref())
            {
                faults.error(
                    Some(text.span()),
                    format_args!("two listeners have the activation `{}`", text.get_ref()),
                    "give each a socket unit of its own, with its own FileDescriptorName=",
                );
            }
            let client_auth = client_auth(written, file, faults);
            let Some(address_text) = &written.address else {
                if written.is_whole {
                    faults.error(
                        written.place.clone(),
                        "this listener has no address",
                        "add `address = \"[::]:443\"`, for example",
                    );
                }
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
            let redirect = written.redirect_https.as_ref().filter(|wanted| *wanted.get_ref());
            if let Some(redirect) = redirect {
                let place = Some(redirect.span());
                if tls {
                    faults.error(
                        place,
                        "this listener speaks TLS and redirects to https, which is itself",
                        "set it on the plain listener",
                    );
                } else if !file.listener.iter().any(|other| other.tls == Some(true)) {
                    faults.error(
                        place,
                        "there is no TLS listener to redirect to",
                        "add a `[[listener]]` with `tls = true`, or remove this",
                    );
                }
            }
            Some(Listener {
                address,
                fallback,
                activation: activation?,
                tls,
                trusted: trusted.into_iter().collect::<Option<_>>()?,
                proxy_protocol: proxy_protocol?,
                redirect_https: redirect.is_some(),
                client_auth: client_auth?,
            })
        })
        .collect();
    compiled.into_iter().collect()
}

fn proxy_protocol(written: &file::Listener, faults: &mut Faults) -> Option<ProxyProtocol> {
    let known = [
        ("off", ProxyProtocol::Off),
        ("accept", ProxyProtocol::Accept),
        ("require", ProxyProtocol::Require),
    ];
    let text = written.proxy_protocol.as_ref();
    let wanted =
        faults.keep_or(ProxyProtocol::Off, text, |text| one_of("proxy_protocol", &known, text))?;
    // What could not be read in this table may have been just that.
    if wanted != ProxyProtocol::Off && written.trusted.is_empty() && written.is_whole {
        faults.error(
            text.map(Spanned::span),
            "nobody may send PROXY headers here: `trusted` is empty",
            "name the load balancer's networks, as in trusted = [\"10.0.0.0/8\"]",
        );
    }
    Some(wanted)
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

/// What systemd lets `FileDescriptorName=` be.
fn descriptor_name(text: &str) -> Result<String, String> {
    let is_allowed = |byte| (b' '..=b'~').contains(&byte) && byte != b':';
    if (1..=255).contains(&text.len()) && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no name of a socket: write its unit's FileDescriptorName=, 1 to 255 printable \
         ASCII characters without a colon"
    ))
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
