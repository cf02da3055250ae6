//! What a proxy does to headers (RFC 9110 §7.6): hop-by-hop ones end here, `Via` and
//! `X-Forwarded-*` are added, and who the client is by its certificate; everything that belongs to
//! the application passes as it came.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{Version, response};
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
    /// The peer's address, without its port.
    pub client: &'a HeaderValue,
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
    let has_te = hop == Hop::Ordinary && headers.keys().any(|name| *name == TE);
    let wants_trailers = has_te && has_token(headers, &TE, "trailers");
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
    // Most heads have none of them, and one look at the names is less than one for each of them.
    if headers.keys().any(|name| is_for_one_hop(name.as_str())) {
        remove_hop(headers);
    }
    if hop == Hop::Handshake {
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONNECTION, UPGRADE_OPTION);
        headers.insert(UPGRADE, WEBSOCKET);
    }
}

fn remove_hop(headers: &mut HeaderMap) {
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
    remove_all(headers, is_for_one_hop);
}

/// Whether a name is always one of this hop.
fn is_for_one_hop(name: &str) -> bool {
    matches!(name, "connection" | "te" | "upgrade" | "transfer-encoding")
        // The last one belongs to an upgrade to HTTP/2 (RFC 7540 §3.2.1), which is none of ours.
        || matches!(name, "keep-alive" | "proxy-connection" | "http2-settings")
}

/// Removes from a body's trailers what only a head may say (RFC 9110 §6.5.1): an upstream that takes
/// them for headers is to read nothing there that was removed from the head, or that we say.
pub fn end_hop_of_trailers(trailers: &mut HeaderMap) {
    let is_only_for_heads = |name: &str| {
        [HOST, CONTENT_LENGTH, VIA].iter().any(|known| known == name)
            || is_for_one_hop(name)
            || is_forwarding(name)
            || is_identity(name)
            || is_misread(name)
    };
    remove_all(trailers, is_only_for_heads);
}

/// A sender may name in `Connection` what it put there for us; not what the message or its routing
/// is made of, or what tells the upstream whom it serves: that would leave it with another message
/// than the one we judged (RFC 9110 §7.6.1; Apache's CVE-2022-31813 for `X-Forwarded-*`).
fn is_for_all(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, AUTHORIZATION, COOKIE, ORIGIN, VIA].contains(name)
        || name.as_str().starts_with("sec-websocket-")
        || is_forwarding(name.as_str())
        || is_identity(name.as_str())
}

/// Sets `X-Forwarded-For`, `-Proto` and `-Host`, and `X-Client-Subject` and `Client-Cert`. What an
/// untrusted peer says of the kind is dropped, and whatever a backend might take for it is in any
/// case; nobody says who a client is by a certificate that we did not see.
fn forward(headers: &mut HeaderMap, forwarded: Forwarded<'_>) {
    let Forwarded { is_trusted, identity, .. } = forwarded;
    remove_all(headers, |name| {
        is_misread(name) || is_forwarding(name) && !is_trusted || is_identity(name)
    });
    if let Some(identity) = identity {
        headers.insert(X_CLIENT_SUBJECT, identity.subject.clone());
        headers.insert(CLIENT_CERT, identity.certificate.clone());
    }
    let client = forwarded.client.clone();
    if is_trusted && headers.contains_key(&X_FORWARDED_FOR) {
        let mut chain = Vec::new();
        for before in headers.get_all(&X_FORWARDED_FOR) {
            chain.extend_from_slice(before.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(client.as_bytes());
        // Values one behind the other are one.
        headers.insert(X_FORWARDED_FOR, HeaderValue::try_from(chain).unwrap_or(client));
    } else {
        headers.insert(X_FORWARDED_FOR, client);
    }
    if !is_trusted || !headers.contains_key(&X_FORWARDED_PROTO) {
        let proto = if forwarded.is_tls { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    let is_host_told = is_trusted && headers.contains_key(&X_FORWARDED_HOST);
    if !is_host_told && !forwarded.host.is_empty() {
        headers.insert(X_FORWARDED_HOST, forwarded.host.clone());
    }
}

fn remove_all(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| is_meant(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether a name tells of the client's way to us.
fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name == "x-real-ip" || name == FORWARDED.as_str()
}

/// Whether a name tells who the client is.
fn is_identity(name: &str) -> bool {
    matches!(name, "x-client-subject" | "client-cert" | "client-cert-chain")
}

/// Many frameworks read `X_Forwarded_For` as `X-Forwarded-For`, since CGI's `HTTP_X_FORWARDED_FOR`
/// is both, `Content_Length` as a length, and some take any other character for the hyphen, too.
/// Nobody who means well writes either, and a trusted peer that sets the one may have let a
/// stranger's other pass.
fn is_misread(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.bytes().all(is_plain) {
        return false;
    }
    let read: String =
        name.bytes().map(|byte| if is_plain(byte) { char::from(byte) } else { '-' }).collect();
    is_forwarding(&read)
        || is_identity(&read)
        || read == CONTENT_LENGTH.as_str()
        || read == TRANSFER_ENCODING.as_str()
}

/// Whether a peer that is believed says that its own client came by TLS.
pub fn says_https(headers: &HeaderMap) -> bool {
    headers.get(&X_FORWARDED_PROTO).is_some_and(|proto| {
        let proto = proto.as_bytes();
        proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
    })
}

/// Whether the peer's word on its own clients is taken.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&peer))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::http) fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).expect("a header value"),
            );
        }
        map
    }

    static CLIENT: HeaderValue = HeaderValue::from_static("192.0.2.7");

    fn forwarded(host: &HeaderValue, is_trusted: bool) -> Forwarded<'_> {
        Forwarded { client: &CLIENT, is_trusted, is_tls: true, host, identity: None }
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
    fn several_lines_of_a_trusted_peer_become_one() {
        let told = [("x-forwarded-for", "\u{e9}, 198.51.100.1"), ("x-forwarded-for", "unknown")];
        let sent = sent(&told, true, Hop::Ordinary);
        let chains: Vec<_> = sent.get_all("x-forwarded-for").iter().collect();
        assert_eq!(chains, ["\u{e9}, 198.51.100.1, unknown, 192.0.2.7"]);
    }

    #[test]
    fn not_even_a_trusted_peer_says_by_a_header_who_its_client_is() {
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
        assert_eq!(sent(None), [None, None, None]);
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
        end_hop_of_trailers(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-checksum"]);
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
    fn a_handshake_goes_out_complete() {
        let sent =
            sent(&[("upgrade", "h2c, websocket"), ("te", "trailers")], false, Hop::Handshake);
        assert_eq!(sent["connection"], "Upgrade");
        assert_eq!(sent["upgrade"], "websocket");
        assert!(!sent.contains_key("te"));
    }
}
