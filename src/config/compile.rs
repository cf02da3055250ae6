//! From what was written to what is meant: names become references, text becomes values, every
//! default is decided, and all faults are gathered.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Uri};
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use toml::Spanned;

use super::fault::{Faults, did_you_mean};
use super::file::{self, Text};
use super::units::{ByteSize, duration};
use super::{
    Balance, CertificateSource, Config, Drain, EndpointAddr, Limits, Listener, Log, LogFormat,
    Route, SelfSigned, Tls, Upstream, UpstreamTls,
};
use crate::route::pattern::{HostPattern, PathPattern};
use crate::tls::certificate::Certificate;
use crate::tls::client::{self, Trust};

const HANDSHAKE_TIMEOUT_TLS: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
const RETRIES: usize = 1;
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES: ByteSize = ByteSize::kib(32);
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

const DEFAULT_LISTENERS: [(&str, &str, bool); 2] =
    [("[::]:80", "[::]:8080", false), ("[::]:443", "[::]:8443", true)];
const DEFAULT_CHAIN: &str = "certs/server.crt";
const DEFAULT_KEY: &str = "certs/server.key";
const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Compiles a file whose paths are relative to `folder`. Faults may have been noted even where
/// a configuration is returned: then it must not be used.
pub(super) fn compile(file: &file::File, folder: &Path, faults: &mut Faults) -> Option<Config> {
    let listeners = listeners(file, faults);
    let upstreams: Vec<Option<Upstream>> = file
        .upstream
        .iter()
        .map(|(name, written)| upstream(name, written, folder, faults))
        .collect();
    let names: Vec<&str> = file.upstream.iter().map(|(name, _)| name.get_ref().as_str()).collect();
    let routes = routes(file, &names, faults);
    let certificates = certificates(file, folder, faults);
    let tls = tls(&file.tls, faults);
    let limits = limits(&file.limits, faults);
    let drain =
        Drain { timeout: faults.keep_or(DRAIN_TIMEOUT, file.drain.timeout.as_ref(), duration)? };
    let log = log(&file.log, folder, faults);
    Some(Config {
        listeners: listeners?,
        tls: tls?,
        certificates: certificates?,
        upstreams: upstreams.into_iter().collect::<Option<_>>()?,
        routes: routes?,
        limits: limits?,
        drain,
        log: log?,
    })
}

impl Faults {
    /// What `read` makes of a written value; its error is noted at the value's place.
    fn keep<T, E: Display>(
        &mut self,
        written: &Text,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match read(written.get_ref()) {
            Ok(value) => Some(value),
            Err(error) => {
                let text = error.to_string();
                // "what is wrong: how it is written right" keeps its two halves apart.
                match text.split_once(": ") {
                    Some((wrong, way_out)) => self.error(Some(written.span()), wrong, way_out),
                    None => self.error(Some(written.span()), text, ""),
                }
                None
            }
        }
    }

    /// The same, with a default for what was not written.
    fn keep_or<T, E: Display>(
        &mut self,
        default: T,
        written: Option<&Text>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match written {
            Some(written) => self.keep(written, read),
            None => Some(default),
        }
    }

    /// A number that counts something: `least` at the least.
    fn count(&mut self, written: Option<&Spanned<i64>>, least: usize) -> Option<Option<usize>> {
        let Some(written) = written else { return Some(None) };
        match usize::try_from(*written.get_ref()) {
            Ok(count) if count >= least => Some(Some(count)),
            _ => {
                self.error(
                    Some(written.span()),
                    format_args!("{} is no number of these", written.get_ref()),
                    format_args!("write {least} or more"),
                );
                None
            }
        }
    }
}

fn listeners(file: &file::File, faults: &mut Faults) -> Option<Vec<Listener>> {
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

fn tls(written: &file::Tls, faults: &mut Faults) -> Option<Tls> {
    let allow_tls12 = faults.keep_or(true, written.min_version.as_ref(), |text| match text {
        "1.2" => Ok(true),
        "1.3" => Ok(false),
        other => {
            Err(format!("`{other}` is no version of TLS that is spoken here: \"1.2\" or \"1.3\""))
        }
    });
    let handshake_timeout =
        faults.keep_or(HANDSHAKE_TIMEOUT_TLS, written.handshake_timeout.as_ref(), positive);
    Some(Tls { allow_tls12: allow_tls12?, handshake_timeout: handshake_timeout? })
}

/// A duration that is waited for, so that none would mean never.
fn positive(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Ok(Duration::ZERO) => Err(format!("`{text}` leaves no time at all: write 1ms or more")),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

fn certificates(
    file: &file::File,
    folder: &Path,
    faults: &mut Faults,
) -> Option<Vec<CertificateSource>> {
    if file.certificate.is_empty() {
        let tls = file.listener.is_empty() || file.listener.iter().any(|l| l.tls == Some(true));
        let names = DEFAULT_NAMES.map(str::to_owned).to_vec();
        let default =
            SelfSigned { chain: folder.join(DEFAULT_CHAIN), key: folder.join(DEFAULT_KEY), names };
        return Some(tls.then_some(CertificateSource::SelfSigned(default)).into_iter().collect());
    }
    let compiled: Vec<Option<CertificateSource>> =
        file.certificate.iter().map(|written| certificate(written, folder, faults)).collect();
    compiled.into_iter().collect()
}

fn certificate(
    written: &file::Certificate,
    folder: &Path,
    faults: &mut Faults,
) -> Option<CertificateSource> {
    let mut path = |text: &Option<Text>, key: &str| {
        if text.is_none() {
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

fn upstream(
    name: &Text,
    written: &file::Upstream,
    folder: &Path,
    faults: &mut Faults,
) -> Option<Upstream> {
    let endpoints = endpoints(name, written, faults);
    let balance = faults.keep_or(Balance::LeastSessions, written.balance.as_ref(), |text| {
        let known = [
            ("least_sessions", Balance::LeastSessions),
            ("round_robin", Balance::RoundRobin),
            ("random", Balance::Random),
        ];
        known.iter().find(|(name, _)| *name == text).map(|(_, balance)| *balance).ok_or_else(|| {
            format!(
                "there is no balance `{text}`: \"least_sessions\", \"round_robin\" or \"random\""
            )
        })
    });
    let connect_timeout =
        faults.keep_or(CONNECT_TIMEOUT, written.connect_timeout.as_ref(), positive);
    let handshake_timeout =
        faults.keep_or(HANDSHAKE_TIMEOUT, written.handshake_timeout.as_ref(), positive);
    let resolve_every = faults.keep_or(RESOLVE_EVERY, written.resolve_every.as_ref(), duration);
    let retries = faults.count(written.retries.as_ref(), 0);
    let host = faults.keep_or(None, written.host.as_ref(), |text| {
        let is_authority = text.parse::<http::uri::Authority>().is_ok();
        HeaderValue::from_str(text)
            .ok()
            .filter(|_| is_authority)
            .map(Some)
            .ok_or_else(|| format!("`{text}` is no host: write a name and, if need be, a port"))
    });
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
        (None, Some(builtin)) => faults.keep(builtin, |text| match text {
            "echo" => Ok(vec![EndpointAddr::Echo]),
            other => Err(format!("nothing is built in as `{other}`: only \"echo\" is")),
        }),
        (Some(endpoints), None) if !endpoints.get_ref().is_empty() => {
            let compiled: Vec<Option<EndpointAddr>> =
                endpoints.get_ref().iter().map(|text| faults.keep(text, parse_endpoint)).collect();
            compiled.into_iter().collect()
        }
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
            faults.error(place, error, "");
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

fn routes(file: &file::File, upstreams: &[&str], faults: &mut Faults) -> Option<Vec<Route>> {
    if file.route.is_empty() {
        return match upstreams {
            [_] => Some(vec![Route {
                host: HostPattern::Any,
                path: PathPattern::parse("/").ok()?,
                upstream: 0,
                strict_handshake: false,
                idle_timeout: IDLE_TIMEOUT,
                close_timeout: CLOSE_TIMEOUT,
                half_close_timeout: HALF_CLOSE_TIMEOUT,
            }]),
            [] => {
                faults.error(
                    None,
                    "there is nothing to forward to",
                    "add `[upstream.app]` with `endpoints = [\"http://127.0.0.1:3000\"]`",
                );
                None
            }
            _ => {
                faults.error(
                    None,
                    "there are several upstreams and no route to choose between them",
                    "add a `[[route]]` with `path` and `upstream` for each",
                );
                None
            }
        };
    }
    let mut seen: HashMap<(HostPattern, PathPattern), ()> = HashMap::new();
    let compiled: Vec<Option<Route>> = file
        .route
        .iter()
        .map(|written| {
            let route = route(written, upstreams, faults)?;
            if seen.insert((route.host.clone(), route.path.clone()), ()).is_some() {
                let place = written.path.as_ref().or(written.host.as_ref()).map(Spanned::span);
                faults.error(
                    place.or_else(|| written.place.clone()),
                    format_args!("a second route for `{}{}`", route.host, route.path),
                    "remove one, or give it another host or path",
                );
            }
            Some(route)
        })
        .collect();
    compiled.into_iter().collect()
}

fn route(written: &file::Route, upstreams: &[&str], faults: &mut Faults) -> Option<Route> {
    let host = faults.keep_or(HostPattern::Any, written.host.as_ref(), HostPattern::parse);
    let root = PathPattern::parse("/").ok()?;
    let path = faults.keep_or(root, written.path.as_ref(), PathPattern::parse);
    let upstream = match (&written.upstream, upstreams) {
        (Some(name), _) => {
            let found = upstreams.iter().position(|known| known == name.get_ref());
            if found.is_none() {
                faults.error(
                    Some(name.span()),
                    format_args!("no upstream is named `{}`", name.get_ref()),
                    way_to_upstream(name.get_ref(), upstreams),
                );
            }
            found
        }
        (None, [_]) => Some(0),
        (None, _) => {
            faults.error(
                written.place.clone(),
                "this route does not say where to",
                "add `upstream = \"…\"`, the name of an [upstream.NAME]",
            );
            None
        }
    };
    let idle_timeout = faults.keep_or(IDLE_TIMEOUT, written.idle_timeout.as_ref(), positive);
    let close_timeout = faults.keep_or(CLOSE_TIMEOUT, written.close_timeout.as_ref(), positive);
    let half_close_timeout =
        faults.keep_or(HALF_CLOSE_TIMEOUT, written.half_close_timeout.as_ref(), positive);
    Some(Route {
        host: host?,
        path: path?,
        upstream: upstream?,
        strict_handshake: written.strict_handshake.unwrap_or(false),
        idle_timeout: idle_timeout?,
        close_timeout: close_timeout?,
        half_close_timeout: half_close_timeout?,
    })
}

fn way_to_upstream(name: &str, upstreams: &[&str]) -> String {
    let near = did_you_mean(name, upstreams.iter().copied());
    match (near.is_empty(), upstreams) {
        (false, _) => near,
        (true, []) => format!("add `[upstream.{name}]`"),
        (true, known) => format!("there is {}", known.join(", ")),
    }
}

fn limits(written: &file::Limits, faults: &mut Faults) -> Option<Limits> {
    let sessions = faults.count(written.sessions.as_ref(), 1);
    let connections = faults.count(written.connections.as_ref(), 1);
    let connections_per_ip = faults.count(written.connections_per_ip.as_ref(), 1);
    let header_timeout = faults.keep_or(HEADER_TIMEOUT, written.header_timeout.as_ref(), positive);
    let header_bytes = faults.keep_or(HEADER_BYTES, written.header_bytes.as_ref(), |text| {
        match ByteSize::parse(text) {
            Ok(size) if (ByteSize::kib(8)..=ByteSize::kib(1024)).contains(&size) => Ok(size),
            Ok(size) => Err(format!("{size} is no size for request heads: write 8KiB to 1024KiB")),
            Err(error) => Err(error.to_string()),
        }
    });
    let keep_alive = faults.keep_or(KEEP_ALIVE, written.keep_alive.as_ref(), positive);
    Some(Limits {
        sessions: sessions?,
        connections: connections?,
        connections_per_ip: connections_per_ip?,
        header_timeout: header_timeout?,
        header_bytes: header_bytes?,
        keep_alive: keep_alive?,
    })
}

fn log(written: &file::Log, folder: &Path, faults: &mut Faults) -> Option<Log> {
    let format = faults.keep_or(None, written.access.as_ref(), |text| match text {
        "text" => Ok(Some(LogFormat::Text)),
        "json" => Ok(Some(LogFormat::Json)),
        other => Err(format!("there is no access log as `{other}`: \"text\" or \"json\"")),
    });
    Some(Log {
        format: format?,
        path: written.path.as_ref().map(|text| folder.join(text.get_ref())),
        redact: written.redact.iter().map(|key| key.get_ref().to_ascii_lowercase()).collect(),
    })
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

    #[test]
    fn an_address_without_a_host_is_explained() {
        for text in [":443", "*:443", "443"] {
            assert!(address(text).expect_err(text).contains("\"[::]:443\""), "{text}");
        }
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[upstream.chat]\nendpoints = \
                    [\"http://127.0.0.1:1\", \"nope://x\"]\n[[route]]\nupstream = \
                    \"chat-v2\"\nidle_timeout = \"soon\"\n";
        let (config, report) = super::super::compile(Path::new("proxy.toml"), text);
        assert!(config.is_none());
        let errors = report.errors();
        for part in
            ["proxy.toml:4:36", "proxy.toml:6:12", "did you mean `chat`?", "proxy.toml:7:16"]
        {
            assert!(errors.contains(part), "{part} in:\n{errors}");
        }
    }
}
