//! `[upstream.NAME]` and its endpoints.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;
use toml::Spanned;

use super::{one_of, positive};
use crate::config::fault::Faults;
use crate::config::file::{self, Text};
use crate::config::units::duration;
use crate::config::{Balance, EndpointAddr, Upstream, UpstreamTls};
use crate::listener::proxy_protocol::Version;
use crate::tls::client::{self, Trust};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
const RETRIES: usize = 1;

pub(super) fn upstream(
    name: &Text,
    written: &file::Upstream,
    folder: &Path,
    faults: &mut Faults,
) -> Option<Upstream> {
    let endpoints = endpoints(name, written, faults);
    let known = [
        ("least_sessions", Balance::LeastSessions),
        ("round_robin", Balance::RoundRobin),
        ("random", Balance::Random),
    ];
    let balance = faults.keep_or(Balance::LeastSessions, written.balance.as_ref(), |text| {
        one_of("balance", &known, text)
    });
    let connect_timeout =
        faults.keep_or(CONNECT_TIMEOUT, written.connect_timeout.as_ref(), positive);
    let handshake_timeout =
        faults.keep_or(HANDSHAKE_TIMEOUT, written.handshake_timeout.as_ref(), positive);
    let resolve_every = faults.keep_or(RESOLVE_EVERY, written.resolve_every.as_ref(), duration);
    let retries = faults.number(written.retries.as_ref(), 0);
    let host = faults.keep_or(None, written.host.as_ref(), |text| {
        let is_authority = text.parse::<http::uri::Authority>().is_ok();
        HeaderValue::from_str(text)
            .ok()
            .filter(|_| is_authority)
            .map(Some)
            .ok_or_else(|| format!("`{text}` is no host: write a name and, if need be, a port"))
    });
    let send_proxy_protocol = send_proxy_protocol(written, faults);
    let source_addresses = source_addresses(name, written, endpoints.as_deref(), faults);
    let endpoints = endpoints?;
    let speaks_tls =
        |endpoint: &EndpointAddr| matches!(endpoint, EndpointAddr::Tcp { tls: true, .. });
    let tls = if endpoints.iter().any(speaks_tls) {
        Some(upstream_tls(written, folder, faults)?)
    } else {
        refuse_tls_keys(written, faults);
        None
    };
    Some(Upstream {
        name: name.get_ref().clone(),
        endpoints,
        balance: balance?,
        connect_timeout: connect_timeout?,
        handshake_timeout: handshake_timeout?,
        retries: retries?.unwrap_or(RETRIES),
        host: host?,
        tls,
        resolve_every: resolve_every?,
        send_proxy_protocol: send_proxy_protocol?,
        source_addresses: source_addresses?,
    })
}

fn endpoints(
    name: &Text,
    written: &file::Upstream,
    faults: &mut Faults,
) -> Option<Vec<EndpointAddr>> {
    match (&written.endpoints, &written.builtin) {
        (Some(_), Some(builtin)) => {
            faults.error(
                Some(builtin.span()),
                format_args!("upstream `{}` has endpoints and is built in", name.get_ref()),
                "keep `endpoints` for your own backend, or `builtin` for a trial",
            );
            None
        }
        (None, Some(builtin)) => faults.keep(builtin, |text| {
            one_of("built-in upstream", &[("echo", ())], text).map(|()| vec![EndpointAddr::Echo])
        }),
        (Some(endpoints), None) if !endpoints.get_ref().is_empty() => {
            let mut compiled: Vec<Option<EndpointAddr>> = Vec::new();
            for text in endpoints.get_ref() {
                let endpoint = faults.keep(text, parse_endpoint);
                if endpoint.is_some() && compiled.contains(&endpoint) {
                    faults.error(
                        Some(text.span()),
                        format_args!(
                            "upstream `{}` has the endpoint {} twice",
                            name.get_ref(),
                            text.get_ref()
                        ),
                        "remove one",
                    );
                }
                compiled.push(endpoint);
            }
            compiled.into_iter().collect()
        }
        // Something that could not be read was meant for it, and has been reported.
        (None, None) if !written.is_whole => None,
        (endpoints, None) => {
            let place = endpoints.as_ref().map_or_else(|| name.span(), Spanned::span);
            faults.error(
                Some(place),
                format_args!("upstream `{}` has no endpoint", name.get_ref()),
                "add `endpoints = [\"http://127.0.0.1:3000\"]` with your backend's address",
            );
            None
        }
    }
}

fn send_proxy_protocol(written: &file::Upstream, faults: &mut Faults) -> Option<Option<Version>> {
    let text = written.send_proxy_protocol.as_ref();
    let version = faults.keep_or(None, text, |text| {
        let known = [("v1", Some(Version::V1)), ("v2", Some(Version::V2))];
        one_of("version of the PROXY protocol", &known, text)
    })?;
    if version.is_some() && written.builtin.is_some() {
        faults.error(
            text.map(Spanned::span),
            "what is built in takes no PROXY headers",
            "remove this, or name your own backend in `endpoints`",
        );
    }
    Some(version)
}

/// The addresses to dial from; each must be of use for an endpoint, and each endpoint find one.
fn source_addresses(
    name: &Text,
    written: &file::Upstream,
    endpoints: Option<&[EndpointAddr]>,
    faults: &mut Faults,
) -> Option<Vec<IpAddr>> {
    let Some(list) = &written.source_addresses else { return Some(Vec::new()) };
    let mut compiled: Vec<Option<IpAddr>> = Vec::new();
    for text in list.get_ref() {
        let address = faults.keep(text, source_address);
        if address.is_some() && compiled.contains(&address) {
            faults.error(
                Some(text.span()),
                format_args!(
                    "upstream `{}` has the source address {} twice",
                    name.get_ref(),
                    text.get_ref()
                ),
                "remove one",
            );
        }
        compiled.push(address);
    }
    let sources: Vec<IpAddr> = compiled.into_iter().collect::<Option<_>>()?;
    let endpoints = endpoints?;
    let is_tcp = |endpoint: &EndpointAddr| matches!(endpoint, EndpointAddr::Tcp { .. });
    if !endpoints.iter().any(is_tcp) {
        faults.error(
            Some(list.span()),
            "no endpoint of this upstream is reached by TCP, so nothing is dialled from there",
            "remove this, or name an http:// or https:// endpoint",
        );
    }
    for endpoint in endpoints {
        let EndpointAddr::Tcp { host, .. } = endpoint else { continue };
        let is_unreachable = |ip: IpAddr| sources.iter().all(|from| from.is_ipv4() != ip.is_ipv4());
        if host.parse().is_ok_and(is_unreachable) {
            faults.error(
                Some(list.span()),
                format_args!("{endpoint} cannot be dialled from any of these"),
                "add an address of its family, IPv4 or IPv6",
            );
        }
    }
    Some(sources)
}

fn source_address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(ip),
        _ => Err(format!(
            "`{text}` is no address to dial from: write an IP address of this machine, without a \
             port"
        )),
    }
}

/// Reads `http://host:port`, `https://host`, `unix:/path`; `ws://`, `wss://` and a bare
/// `host:port` mean the same as http and https.
///
/// # Errors
///
/// What is wrong with it and how it is written right.
pub fn parse_endpoint(text: &str) -> Result<EndpointAddr, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.starts_with('/') && path.len() < 108 {
            Ok(EndpointAddr::Unix(PathBuf::from(path)))
        } else {
            Err(format!(
                "`{text}` is no Unix socket: write \"unix:\" and an absolute path of fewer than \
                 108 bytes"
            ))
        };
    }
    let wrong = || {
        format!(
            "`{text}` is no endpoint: write \"http://host:port\", \"https://host\" or \
             \"unix:/path\""
        )
    };
    if !text.contains("://") && text.contains('/') {
        return Err(wrong());
    }
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = with_scheme.parse().map_err(|_| wrong())?;
    let tls = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
        Some("http" | "ws") => false,
        Some("https" | "wss") => true,
        _ => return Err(wrong()),
    };
    if uri.path().len() > 1 || uri.query().is_some() {
        return Err(format!(
            "the endpoint `{text}` has a path: leave it out, the path comes from the request"
        ));
    }
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        return Err(format!("the endpoint `{text}` has a user: write only host and port"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || (authority.port().is_none() && has_port(authority.as_str())) {
        return Err(wrong());
    }
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(EndpointAddr::Tcp { host: host.to_owned(), port, tls })
}

/// Whether something stands where a port would: `http` takes `host:` and `host:99999` for none.
fn has_port(authority: &str) -> bool {
    authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'))
}

fn upstream_tls(
    written: &file::Upstream,
    folder: &Path,
    faults: &mut Faults,
) -> Option<UpstreamTls> {
    let verify = written.verify.as_ref().is_none_or(|verify| *verify.get_ref());
    if !verify {
        faults.warn(
            written.verify.as_ref().map(Spanned::span),
            "the endpoints' certificates are not verified: whoever sits between can read along",
            "name their CA in `ca` instead",
        );
    }
    let ca = written.ca.as_ref().map(|text| folder.join(text.get_ref()));
    let trust = match &ca {
        _ if !verify => Trust::Anybody,
        Some(path) => Trust::File(path),
        None => Trust::System,
    };
    let place = written.ca.as_ref().map(Spanned::span).or_else(|| written.place.clone());
    let client = match client::config(&trust) {
        Ok(client) => Some(client),
        Err(error) => {
            faults.error(place, error, "name a PEM file with the certificate of their CA");
            None
        }
    };
    let server_name = faults.keep_or(None, written.server_name.as_ref(), |text| {
        ServerName::try_from(text.to_owned())
            .map(Some)
            .map_err(|_| format!("`{text}` is no server name: write a host name or an IP address"))
    });
    Some(UpstreamTls { client: client?, server_name: server_name? })
}

/// Keys that would do nothing are more likely a mistake than meant so.
fn refuse_tls_keys(written: &file::Upstream, faults: &mut Faults) {
    let places = [
        ("ca", written.ca.as_ref().map(Spanned::span)),
        ("server_name", written.server_name.as_ref().map(Spanned::span)),
        ("verify", written.verify.as_ref().map(Spanned::span)),
    ];
    for (key, place) in places {
        if place.is_some() {
            faults.error(
                place,
                format_args!("`{key}` is for https:// endpoints, and this upstream has none"),
                "write https:// in `endpoints`, or remove the key",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_addresses_and_unix_sockets() {
        for (text, shown) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("ws://app:3000/", "http://app:3000"),
            ("wss://app", "https://app:443"),
            ("HTTP://[::1]:9", "http://[::1]:9"),
            ("app:3000", "http://app:3000"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(parse_endpoint(text).expect(text).to_string(), shown);
        }
        for text in [
            "",
            "http://",
            "ftp://a",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a:99999",
            "http://a:",
            "unix:run",
            "http://a b",
        ] {
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
    }
}
