//! What a proxy does to headers (RFC 9110 §7.6): hop-by-hop ones end here, `Via` and
//! `X-Forwarded-*` are added, and who the client is by its certificate; everything that belongs to the application passes as it came.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::Authority;
use http::{Request, Uri, Version, response};
use ipnet::IpNet;

use super::handshake::{has_token, tokens};
use crate::tls::identity::Identity;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_CLIENT_SUBJECT: HeaderName = HeaderName::from_static("x-client-subject");
/// RFC 9440 §2.
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const PSEUDONYM: HeaderValue = HeaderValue::from_static("1.1 tidegate");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE_OPTION: HeaderValue = HeaderValue::from_static("Upgrade");

/// What a connection tells about its client, for `X-Forwarded-*`.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded<'a> {
    /// The peer's address.
    pub client: SocketAddr,
    /// Whether what the peer says of its own client is believed.
    pub is_trusted: bool,
    /// Whether the connection has TLS.
    pub is_tls: bool,
    /// The host that was asked for, with its port.
    pub host: &'a HeaderValue,
    /// Who the client is by its certificate, if it has shown one.
    pub identity: Option<&'a Identity>,
}

/// Whether the connection is to be switched, or just to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// `Connection: Upgrade` and `Upgrade: websocket` go out.
    Handshake,
    /// Neither does.
    Ordinary,
}

/// Makes the headers of a client's request those of our request to an endpoint.
pub fn to_upstream(headers: &mut HeaderMap, forwarded: Forwarded<'_>, hop: Hop) {
    let wants_trailers = hop == Hop::Ordinary && has_token(headers, &TE, "trailers");
    end_hop(headers, hop);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.append(CONNECTION, HeaderValue::from_static("TE"));
    }
    headers.append(VIA, PSEUDONYM);
    forward(headers, forwarded);
}

/// Makes the head of an endpoint's answer that of ours to the client.
pub fn to_client(head: &mut response::Parts, hop: Hop) {
    // What the endpoint speaks is its own affair; a client of HTTP/1.0 is hyper's.
    head.version = Version::HTTP_11;
    end_hop(&mut head.headers, hop);
    head.headers.append(VIA, PSEUDONYM);
}

/// Removes what was meant for this hop only (RFC 9110 §7.6.1), and says what holds on the next.
fn end_hop(headers: &mut HeaderMap, hop: Hop) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.3: it overrides the length, which is not true any more.
        headers.remove(CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> =
        tokens(headers, &CONNECTION).filter_map(|name| name.parse().ok()).collect();
    for name in named {
        // A sender may name what it put there for us; not what the message or its routing is
        // made of, which would leave the next hop with another message than the one we judged.
        if ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING, COOKIE].contains(&name) {
            headers.remove(name);
        }
    }
    for name in [CONNECTION, TE, UPGRADE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    if hop == Hop::Handshake {
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONNECTION, UPGRADE_OPTION);
        headers.insert(UPGRADE, WEBSOCKET);
    }
}

/// Sets `X-Forwarded-For`, `-Proto` and `-Host`, and `X-Client-Subject` and `Client-Cert`. What an
/// untrusted peer says of the kind is dropped, in every spelling that a backend might take for it;
/// a trusted one may say who its client is, unless it says by a certificate who it is itself.
fn forward(headers: &mut HeaderMap, forwarded: Forwarded<'_>) {
    if !forwarded.is_trusted {
        remove_like(headers, is_forwarding);
    }
    if !forwarded.is_trusted || forwarded.identity.is_some() {
        remove_like(headers, is_identity);
    }
    if let Some(identity) = forwarded.identity {
        headers.insert(X_CLIENT_SUBJECT, identity.subject.clone());
        headers.insert(CLIENT_CERT, identity.certificate.clone());
    }
    let client = forwarded.client.ip().to_string();
    let mut chain = String::new();
    for before in headers.get_all(&X_FORWARDED_FOR) {
        chain.push_str(&String::from_utf8_lossy(before.as_bytes()));
        chain.push_str(", ");
    }
    chain.push_str(&client);
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(X_FORWARDED_FOR, chain);
    }
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        let proto = if forwarded.is_tls { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    if !headers.contains_key(&X_FORWARDED_HOST) && !forwarded.host.is_empty() {
        headers.insert(X_FORWARDED_HOST, forwarded.host.clone());
    }
}

/// What a request says after its body is never who it comes from or whose it is: some backends put
/// it among the headers (RFC 9110 §6.5.1).
pub fn end_trailers(trailers: &mut HeaderMap) {
    remove_like(trailers, |name| is_forwarding(name) || is_identity(name));
}

fn remove_like(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let imitations: Vec<HeaderName> =
        headers.keys().filter(|name| is_meant(name.as_str())).cloned().collect();
    for name in imitations {
        headers.remove(name);
    }
}

fn is_forwarding(name: &str) -> bool {
    begins_like(name, "x-forwarded-") || is_like(name, "x-real-ip") || name == FORWARDED.as_str()
}

fn is_identity(name: &str) -> bool {
    ["x-client-subject", "client-cert", "client-cert-chain"].iter().any(|ours| is_like(name, ours))
}

/// Many frameworks read `X_Forwarded_For` as `X-Forwarded-For` (CGI's `HTTP_X_FORWARDED_FOR`), and
/// some take any other character for the hyphen, too.
fn begins_like(name: &str, start: &str) -> bool {
    let same =
        |ours: u8, theirs: u8| ours == theirs || (theirs == b'-' && !ours.is_ascii_alphanumeric());
    name.len() >= start.len() && name.bytes().zip(start.bytes()).all(|(a, b)| same(a, b))
}

fn is_like(name: &str, wanted: &str) -> bool {
    name.len() == wanted.len() && begins_like(name, wanted)
}

/// Whether the peer's word on its own clients is taken.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&peer))
}

/// The host of a request, with its port, and what was wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// RFC 9112 §3.2: HTTP/1.1 has one.
    #[error("the request has no Host")]
    Missing,
    /// RFC 9112 §3.2: and not several.
    #[error("the request has several Hosts")]
    Several,
    /// It is no host.
    #[error("the request's Host is malformed")]
    Malformed,
}

/// The host that a request is for: that of its target where it has one (RFC 9112 §3.2.2), else
/// its `Host`. HTTP/1.0 may do without; `None` then.
///
/// # Errors
///
/// [`HostError`] for no host, several, or none that can be read.
pub fn host_of<B>(request: &Request<B>) -> Result<Option<Authority>, HostError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HostError::Several);
    }
    if let Some(authority) = request.uri().authority() {
        return without_user(authority.clone()).map(Some);
    }
    match host {
        Some(host) => {
            let authority =
                Authority::try_from(host.as_bytes()).map_err(|_| HostError::Malformed)?;
            without_user(authority).map(Some)
        }
        None if request.version() == Version::HTTP_10 => Ok(None),
        None => Err(HostError::Missing),
    }
}

fn without_user(authority: Authority) -> Result<Authority, HostError> {
    if authority.as_str().contains('@') { Err(HostError::Malformed) } else { Ok(authority) }
}

/// A transfer coding besides `chunked`, which would have to be undone here: hyper undoes only that
/// (RFC 9112 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transfer coding besides chunked is not understood")]
pub struct UnknownCoding;

/// Whether a request's body is understood.
///
/// # Errors
///
/// [`UnknownCoding`] where it is not.
pub fn check_transfer_coding(headers: &HeaderMap) -> Result<(), UnknownCoding> {
    let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
    if tokens(headers, &TRANSFER_ENCODING).all(is_chunked) { Ok(()) } else { Err(UnknownCoding) }
}

/// The target in origin form (RFC 9112 §3.2.1), as endpoints are asked.
pub fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.and_then(|path| Uri::from(path).into()).unwrap_or_else(|| Uri::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("a header value"),
            );
        }
        map
    }

    fn forwarded(host: &HeaderValue, is_trusted: bool) -> Forwarded<'_> {
        let client = ([192, 0, 2, 7], 5).into();
        Forwarded { client, is_trusted, is_tls: true, host, identity: None }
    }

    fn sent(list: &[(&'static str, &str)], is_trusted: bool, hop: Hop) -> HeaderMap {
        let host = HeaderValue::from_static("chat.example.org");
        let mut map = headers(list);
        to_upstream(&mut map, forwarded(&host, is_trusted), hop);
        map
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        let sent = sent(
            &[
                ("connection", "close, X-Private"),
                ("connection", ",, Host, COOKIE, x-forwarded-for"),
                ("x-private", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "trailers, gzip"),
                ("upgrade", "h2c"),
                ("host", "h"),
                ("cookie", "c"),
                ("origin", "o"),
            ],
            false,
            Hop::Ordinary,
        );
        for gone in ["x-private", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(!sent.contains_key(gone), "{gone}");
        }
        for (name, value) in [
            ("host", "h"),
            ("cookie", "c"),
            ("origin", "o"),
            ("te", "trailers"),
            ("connection", "TE"),
            ("via", "1.1 tidegate"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "chat.example.org"),
        ] {
            assert_eq!(sent.get(name).expect(name), value);
        }
    }

    #[test]
    fn an_untrusted_peer_is_not_believed_in_any_spelling() {
        let forged = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-port", "1"),
            ("x-real-ip", "6.6.6.6"),
            ("x_real-ip", "6.6.6.6"),
            ("x.forwarded~for", "6.6.6.6"),
            ("x-client-subject", "CN=admin"),
            ("x_client_subject", "CN=admin"),
            ("x.client.subject", "CN=admin"),
            ("client-cert", ":AA==:"),
            ("client_cert", ":AA==:"),
            ("client-cert-chain", ":AA==:"),
            ("client_cert-chain", ":AA==:"),
            ("forwarded", "for=6.6.6.6"),
        ];
        let sent = sent(&forged, false, Hop::Ordinary);
        assert_eq!(sent.len(), 4, "{sent:?}");
        assert_eq!(sent["x-forwarded-for"], "192.0.2.7");
    }

    #[test]
    fn a_trusted_peer_is_added_to_what_it_says() {
        let told = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "outer.example.org"),
        ];
        let sent = sent(&told, true, Hop::Ordinary);
        assert_eq!(sent["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
        assert_eq!(sent["x-forwarded-proto"], "http");
        assert_eq!(sent["x-forwarded-host"], "outer.example.org");
    }

    #[test]
    fn a_trusted_peer_says_who_its_client_is_unless_it_shows_a_certificate_itself() {
        let told = [("x-client-subject", "CN=inner"), ("client_cert", ":AA==:")];
        let host = HeaderValue::from_static("chat.example.org");
        let own = Identity {
            subject: HeaderValue::from_static("CN=outer"),
            certificate: HeaderValue::from_static(":BB==:"),
        };
        let sent = |identity| {
            let mut map = headers(&told);
            let forwarded = Forwarded { identity, ..forwarded(&host, true) };
            to_upstream(&mut map, forwarded, Hop::Ordinary);
            ["x-client-subject", "client-cert", "client_cert"]
                .map(|name| map.get(name).map(|value| value.to_str().expect("ASCII").to_owned()))
        };
        assert_eq!(sent(None), [Some("CN=inner".into()), None, Some(":AA==:".into())]);
        assert_eq!(sent(Some(&own)), [Some("CN=outer".into()), Some(":BB==:".into()), None]);
    }

    #[test]
    fn nobody_says_in_a_trailer_who_it_is() {
        let mut trailers = headers(&[
            ("client-cert", ":AA==:"),
            ("x_client_subject", "CN=admin"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-checksum", "7"),
        ]);
        end_trailers(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-checksum"]);
    }

    #[test]
    fn a_handshake_goes_out_complete() {
        let sent =
            sent(&[("upgrade", "h2c, websocket"), ("te", "trailers")], false, Hop::Handshake);
        assert_eq!(sent["connection"], "Upgrade");
        assert_eq!(sent["upgrade"], "websocket");
        assert!(!sent.contains_key("te"));
    }

    #[test]
    fn the_host_is_the_targets_or_the_headers() {
        let request = |uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            host_of(&request.body(()).expect("a request"))
        };
        let host = |text: &str| Ok(Some(text.parse::<Authority>().expect("an authority")));
        assert_eq!(request("/", &["a:80"]), host("a:80"));
        assert_eq!(request("http://b/", &["a"]), host("b"));
        assert_eq!(request("/", &[]), Err(HostError::Missing));
        assert_eq!(request("/", &["a", "a"]), Err(HostError::Several));
        assert_eq!(request("/", &["a/b"]), Err(HostError::Malformed));
        assert_eq!(request("/", &["user@a"]), Err(HostError::Malformed));
    }

    #[test]
    fn a_target_is_sent_in_origin_form() {
        for (given, sent) in [("http://a/b?c", "/b?c"), ("/b", "/b"), ("*", "*"), ("http://a", "/")]
        {
            assert_eq!(origin_form(&given.parse().expect("a target")).to_string(), sent);
        }
    }
}
