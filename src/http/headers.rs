//! What a proxy does to headers (RFC 9110 §7.6): hop-by-hop ones end here, `Via` and
//! `X-Forwarded-*` are added, everything that belongs to the application passes as it came.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::Authority;
use http::{Request, Uri, Version, response};
use ipnet::IpNet;

use super::handshake::{has_token, tokens};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
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
        if !is_for_all(&name) {
            headers.remove(name);
        }
    }
    for name in [CONNECTION, TE, UPGRADE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    // The last one belongs to an upgrade to HTTP/2 (RFC 7540 §3.2.1), which is none of ours.
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
    if hop == Hop::Handshake {
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONNECTION, UPGRADE_OPTION);
        headers.insert(UPGRADE, WEBSOCKET);
    }
}

/// Removes from a body's trailers what only a head may say (RFC 9110 §6.5.1): an upstream that takes
/// them for headers is to read nothing there that was removed from the head, or that we say.
pub fn end_hop_of_trailers(trailers: &mut HeaderMap) {
    let is_only_for_heads = |name: &HeaderName| {
        [HOST, CONTENT_LENGTH, CONNECTION, TE, UPGRADE, TRANSFER_ENCODING, VIA].contains(name)
            || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
            || is_misread(name.as_str())
    };
    let names: Vec<HeaderName> =
        trailers.keys().filter(|name| is_only_for_heads(name)).cloned().collect();
    for name in names {
        trailers.remove(name);
    }
}

/// A sender may name in `Connection` what it put there for us; not what the message or its routing
/// is made of, or what tells the upstream whom it serves: that would leave it with another message
/// than the one we judged (RFC 9110 §7.6.1; Apache's CVE-2022-31813 for `X-Forwarded-*`).
fn is_for_all(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, AUTHORIZATION, COOKIE, ORIGIN, VIA].contains(name)
        || name.as_str().starts_with("sec-websocket-")
        || is_forwarding(name.as_str())
}

/// Sets `X-Forwarded-For`, `-Proto` and `-Host`. What an untrusted peer says of the kind is
/// dropped, and whatever a backend might take for it is in any case.
fn forward(headers: &mut HeaderMap, forwarded: Forwarded<'_>) {
    let is_imitation = |name: &HeaderName| {
        let name = name.as_str();
        if name.contains('_') {
            is_misread(name)
        } else {
            is_forwarding(name) && !forwarded.is_trusted
        }
    };
    let imitations: Vec<HeaderName> =
        headers.keys().filter(|name| is_imitation(name)).cloned().collect();
    for name in imitations {
        headers.remove(name);
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

/// Whether a name tells of the client's way to us.
fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name == "x-real-ip" || name == FORWARDED.as_str()
}

/// Many frameworks read `X_Forwarded_For` as `X-Forwarded-For`, since CGI's `HTTP_X_FORWARDED_FOR`
/// is both, and `Content_Length` as a length. Nobody who means well writes either, and a trusted
/// peer that sets the one may have let a stranger's other pass.
fn is_misread(name: &str) -> bool {
    let read = name.replace('_', "-");
    is_forwarding(&read) || read == CONTENT_LENGTH.as_str() || read == TRANSFER_ENCODING.as_str()
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
    let host = host.map(|host| {
        let authority = Authority::try_from(host.as_bytes()).map_err(|_| HostError::Malformed)?;
        without_user(authority)
    });
    // Even where the target has one, HTTP/1.1 has this, too, and well-formed (§3.2).
    let host = host.transpose()?;
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(HostError::Missing);
    }
    match request.uri().authority() {
        Some(authority) => without_user(authority.clone()).map(Some),
        None => Ok(host),
    }
}

fn without_user(authority: Authority) -> Result<Authority, HostError> {
    if authority.as_str().contains('@') { Err(HostError::Malformed) } else { Ok(authority) }
}

/// A transfer coding besides one `chunked`, which would have to be undone here: hyper undoes only
/// that (RFC 9112 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transfer coding besides one chunked is not understood")]
pub struct UnknownCoding;

/// Whether a body is understood.
///
/// # Errors
///
/// [`UnknownCoding`] where it is not.
pub fn check_transfer_coding(headers: &HeaderMap) -> Result<(), UnknownCoding> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(UnknownCoding),
    }
}

/// An answer of which the client might make more or less than the upstream did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// RFC 9112 §6.3: this ought to be handled as an error.
    #[error("its answer has both a Content-Length and a Transfer-Encoding")]
    TwoLengths,
    /// RFC 9112 §7.
    #[error("its answer has a transfer coding besides one chunked")]
    Coding,
}

/// Checks how an upstream's answer says where it ends, and makes one length of several that are
/// the same (RFC 9110 §8.6); hyper refuses those that differ.
///
/// # Errors
///
/// [`FramingError`] for an answer that others may read in another way.
pub fn check_framing(headers: &mut HeaderMap) -> Result<(), FramingError> {
    check_transfer_coding(headers).map_err(|UnknownCoding| FramingError::Coding)?;
    let lengths: Vec<&str> = tokens(headers, &CONTENT_LENGTH).collect();
    match lengths.as_slice() {
        [] => {}
        [..] if headers.contains_key(TRANSFER_ENCODING) => return Err(FramingError::TwoLengths),
        [_] => {}
        [first, ..] => {
            if let Ok(length) = HeaderValue::from_str(first) {
                headers.insert(CONTENT_LENGTH, length);
            }
        }
    }
    Ok(())
}

/// A target that is no place on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's target is neither a path nor an http URL")]
pub struct NoPlace;

/// Checks that a target is a path or the URL of one (RFC 9112 §3.2): the third form is for CONNECT
/// alone, and other schemes are for forward proxies.
///
/// # Errors
///
/// [`NoPlace`] for everything else.
pub fn check_target(uri: &Uri) -> Result<(), NoPlace> {
    let is_http = |scheme: &str| {
        ["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    };
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => Ok(()),
        (Some(scheme), Some(_)) if is_http(scheme) => Ok(()),
        _ => Err(NoPlace),
    }
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
        Forwarded { client: ([192, 0, 2, 7], 5).into(), is_trusted, is_tls: true, host }
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
            ("forwarded", "for=6.6.6.6"),
            ("content_length", "6"),
            ("transfer_encoding", "chunked"),
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
    fn a_trusted_peer_is_not_believed_in_underscores_or_named_away() {
        let told = [
            ("connection", "x-forwarded-for, Authorization, Origin, Via, Sec-WebSocket-Key"),
            ("x-forwarded-for", "198.51.100.1"),
            ("x_forwarded_for", "6.6.6.6"),
            ("authorization", "Basic eA=="),
            ("origin", "https://a"),
            ("via", "1.0 fred"),
            ("sec-websocket-key", "k"),
            ("under_score", "passes"),
        ];
        let sent = sent(&told, true, Hop::Ordinary);
        assert_eq!(sent["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
        assert!(!sent.contains_key("x_forwarded_for"));
        for kept in ["authorization", "origin", "sec-websocket-key", "under_score"] {
            assert!(sent.contains_key(kept), "{kept}");
        }
        assert_eq!(sent.get_all("via").iter().count(), 2);
    }

    #[test]
    fn a_list_is_read_by_items() {
        let list = HeaderValue::from_bytes(b"close,\xff, ,\tX-Mine ,x-\xc3\xa9").expect("a value");
        let map = HeaderMap::from_iter([(CONNECTION, list)]);
        assert_eq!(tokens(&map, &CONNECTION).collect::<Vec<_>>(), ["close", "X-Mine"]);
    }

    #[test]
    fn a_transfer_coding_is_one_chunked() {
        let coded = |codings: &[&str]| {
            let list: Vec<_> =
                codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            check_transfer_coding(&headers(&list))
        };
        assert_eq!(coded(&[]), Ok(()));
        assert_eq!(coded(&["Chunked"]), Ok(()));
        for others in [
            ["gzip, chunked"].as_slice(),
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["identity", "chunked"],
            &["gz\u{ef}p", "chunked"],
            &[", chunked"],
            &["\"chunked\""],
            &[""],
        ] {
            assert_eq!(coded(others), Err(UnknownCoding), "{others:?}");
        }
    }

    #[test]
    fn an_answer_says_once_where_it_ends() {
        let framed = |list: &[(&'static str, &str)]| {
            let mut map = headers(list);
            check_framing(&mut map).map(|()| {
                let lengths = map.get_all(CONTENT_LENGTH).iter();
                lengths.map(|length| length.to_str().expect("digits").to_owned()).collect()
            })
        };
        let one = |length: &str| Ok(vec![length.to_owned()]);
        let (length, coding) = ("content-length", "transfer-encoding");
        assert_eq!(framed(&[]), Ok(Vec::new()));
        assert_eq!(framed(&[(length, "5")]), one("5"));
        assert_eq!(framed(&[(length, "5, 5")]), one("5"));
        assert_eq!(framed(&[(length, "5"), (length, "5")]), one("5"));
        assert_eq!(framed(&[(coding, "chunked")]), Ok(Vec::new()));
        let both = [(length, "5"), (coding, "chunked")];
        assert_eq!(framed(&both), Err(FramingError::TwoLengths));
        assert_eq!(framed(&[(coding, "gzip, chunked")]), Err(FramingError::Coding));
    }

    #[test]
    fn a_target_is_a_path_or_a_url() {
        let check = |target: &str| check_target(&target.parse().expect("a target"));
        for target in ["/", "/a?b", "*", "http://a", "https://a/b", "WS://a/", "wss://a:1/"] {
            assert_eq!(check(target), Ok(()), "{target}");
        }
        for target in ["a:80", "a", "ftp://a/b", "unix://a/b"] {
            assert_eq!(check(target), Err(NoPlace), "{target}");
        }
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
        assert_eq!(request("http://b/", &[]), Err(HostError::Missing));
        assert_eq!(request("http://b/", &["a b"]), Err(HostError::Malformed));
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
