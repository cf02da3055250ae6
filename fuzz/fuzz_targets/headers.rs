//! Any headers, to an upstream and back to a client: what was for this hop is gone, ours are there and only ours, and
//! everything else is as it was, in its order.
//!
//! The first byte says whether the peer is trusted, has TLS, is making a handshake, and has shown a certificate; then come the header lines.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use libfuzzer_sys::fuzz_target;
use tidegate::http::headers::{self, Forwarded, Hop};
use tidegate::tls::identity::Identity;

/// What never goes on as it came.
const HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "transfer-encoding",
    "http2-settings",
];
/// What nobody removes by naming it.
const KEPT: [&str; 6] = ["host", "content-length", "authorization", "cookie", "origin", "via"];

fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || ["x-real-ip", "forwarded"].contains(&name)
}

fn is_identity(name: &str) -> bool {
    ["x-client-subject", "client-cert", "client-cert-chain"].contains(&name)
}

fn is_imitation(name: &str) -> bool {
    let folded = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let is_ours = is_forwarding(&folded)
        || is_identity(&folded)
        || ["content-length", "transfer-encoding"].contains(&folded.as_str());
    folded != name && is_ours
}

fn lines<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// The names in `Connection`, in lower case.
fn named(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let lines = lines(headers, "connection");
    let items = lines.iter().flat_map(|line| line.split(|byte| *byte == b','));
    items.map(|item| item.trim_ascii().to_ascii_lowercase()).collect()
}

fn read(bytes: &[u8]) -> Option<HeaderMap> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(bytes, &mut fields)
    else {
        return None;
    };
    let mut headers = HeaderMap::new();
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(headers)
}

/// Checks what holds both ways, for every name but those of `Via` and the client's way.
fn check(before: &HeaderMap, after: &HeaderMap, hop: Hop, wants_trailers: bool) {
    let is_handshake = hop == Hop::Handshake;
    let expected: [(&str, &[&[u8]]); 7] = [
        (
            "connection",
            if is_handshake {
                &[b"Upgrade"]
            } else if wants_trailers {
                &[b"TE"]
            } else {
                &[]
            },
        ),
        ("upgrade", if is_handshake { &[b"websocket"] } else { &[] }),
        ("te", if wants_trailers { &[b"trailers"] } else { &[] }),
        ("keep-alive", &[]),
        ("proxy-connection", &[]),
        ("transfer-encoding", &[]),
        ("http2-settings", &[]),
    ];
    for (name, expected) in expected {
        assert_eq!(lines(after, name), expected, "{name}");
    }
    let mut via = lines(before, "via");
    via.push(b"1.1 tidegate");
    assert_eq!(lines(after, "via"), via);
    let named = named(before);
    for name in before.keys().chain(after.keys()).map(HeaderName::as_str) {
        let is_kept = KEPT.contains(&name) || name.starts_with("sec-websocket-");
        let is_length =
            name == "content-length" && (is_handshake || before.contains_key("transfer-encoding"));
        let is_named = named.iter().any(|named| named == name.as_bytes());
        let is_ours = is_forwarding(name) || is_identity(name);
        if HOP.contains(&name) || name == "via" || is_ours || is_imitation(name) {
            continue;
        }
        let is_gone = is_length || (is_named && !is_kept);
        let expected = if is_gone { Vec::new() } else { lines(before, name) };
        assert_eq!(lines(after, name), expected, "{name}");
    }
}

/// Checks what tells of the client's way.
fn check_way(before: &HeaderMap, after: &HeaderMap, forwarded: Forwarded<'_>) {
    let is_trusted = forwarded.is_trusted;
    let mut chain = String::new();
    for line in lines(before, "x-forwarded-for").into_iter().filter(|_| is_trusted) {
        chain += &String::from_utf8_lossy(line);
        chain += ", ";
    }
    chain += "192.0.2.7";
    assert_eq!(lines(after, "x-forwarded-for"), [chain.as_bytes()]);
    if let Some(identity) = forwarded.identity {
        assert_eq!(lines(after, "x-client-subject"), [identity.subject.as_bytes()]);
        assert_eq!(lines(after, "client-cert"), [identity.certificate.as_bytes()]);
        assert!(lines(after, "client-cert-chain").is_empty());
    }
    let ours: [(&str, &[u8]); 2] = [
        ("x-forwarded-proto", if forwarded.is_tls { b"https" } else { b"http" }),
        ("x-forwarded-host", b"chat.example.org"),
    ];
    for (name, ours) in ours {
        let told = lines(before, name);
        let expected = if is_trusted && !told.is_empty() { told } else { vec![ours] };
        assert_eq!(lines(after, name), expected, "{name}");
    }
    let is_ours =
        |name: &str| name == "x-forwarded-for" || ours.iter().any(|(ours, _)| *ours == name);
    for name in after.keys().map(HeaderName::as_str) {
        assert!(!is_imitation(name), "{name}");
        assert!(!is_identity(name) || forwarded.identity.is_some(), "{name}");
        if is_forwarding(name) && !is_ours(name) {
            assert!(is_trusted, "{name}");
            assert_eq!(lines(after, name), lines(before, name), "{name}");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((flags, text)) = bytes.split_first() else { return };
    let Some(before) = read(text) else { return };
    let hop = if flags & 4 == 0 { Hop::Ordinary } else { Hop::Handshake };
    let host = HeaderValue::from_static("chat.example.org");
    let identity = Identity {
        subject: HeaderValue::from_static("CN=alice"),
        certificate: HeaderValue::from_static(":AA==:"),
    };
    let forwarded = Forwarded {
        client: ([192, 0, 2, 7], 5).into(),
        is_trusted: flags & 1 != 0,
        is_tls: flags & 2 != 0,
        host: &host,
        identity: (flags & 8 != 0).then_some(&identity),
    };
    let mut sent = before.clone();
    headers::to_upstream(&mut sent, forwarded, hop);
    let te = lines(&before, "te");
    let mut te = te.iter().flat_map(|line| line.split(|byte| *byte == b','));
    let wants_trailers =
        hop == Hop::Ordinary && te.any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    check(&before, &sent, hop, wants_trailers);
    check_way(&before, &sent, forwarded);

    let mut answer = Response::new(()).into_parts().0;
    answer.headers = before.clone();
    headers::to_client(&mut answer, hop);
    check(&before, &answer.headers, hop, false);
    for name in before.keys().map(HeaderName::as_str).filter(|name| is_forwarding(name)) {
        assert_eq!(lines(&answer.headers, name), lines(&before, name), "{name}");
    }
});
