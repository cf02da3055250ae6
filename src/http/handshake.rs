//! The opening handshake (RFC 6455 §4): what a client must ask and an upstream must answer. No
//! I/O.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, StatusCode, Version, request, response};

use crate::telemetry::redact;

/// `Sec-WebSocket-Key`
pub const SEC_WEBSOCKET_KEY: HeaderName = http::header::SEC_WEBSOCKET_KEY;
/// `Sec-WebSocket-Accept`
pub const SEC_WEBSOCKET_ACCEPT: HeaderName = http::header::SEC_WEBSOCKET_ACCEPT;
/// `Sec-WebSocket-Version`
pub const SEC_WEBSOCKET_VERSION: HeaderName = http::header::SEC_WEBSOCKET_VERSION;
/// `Sec-WebSocket-Protocol`
pub const SEC_WEBSOCKET_PROTOCOL: HeaderName = http::header::SEC_WEBSOCKET_PROTOCOL;
/// `Sec-WebSocket-Extensions`
pub const SEC_WEBSOCKET_EXTENSIONS: HeaderName = http::header::SEC_WEBSOCKET_EXTENSIONS;

/// A handshake that a client may ask, as far as its answer must be checked against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    accept: HeaderValue,
    subprotocols: Vec<String>,
    extensions: Vec<String>,
}

/// Whether a handshake must say `Connection: upgrade`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// One that lacks only this is taken as one: nginx's well-known two lines taught people so.
    Lenient,
    /// One that lacks it is an ordinary request, as RFC 9110 §7.8 has it.
    Strict,
}

/// What is wrong with a handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// §4.1: the method is GET.
    #[error("a WebSocket handshake is a GET request, not {0}")]
    Method(Method),
    /// RFC 9110 §7.8: nothing is upgraded with a body under way.
    #[error("a WebSocket handshake has no body")]
    Body,
    /// §4.2.1: exactly one key.
    #[error("a WebSocket handshake has one Sec-WebSocket-Key, this one has {0}")]
    KeyCount(usize),
    /// §4.1: 16 bytes in base64.
    #[error("Sec-WebSocket-Key is not 16 bytes in base64 (22 characters and ==)")]
    Key,
    /// §4.2.1: there is a version.
    #[error("a WebSocket handshake has a Sec-WebSocket-Version, and 13 is the one that is spoken")]
    NoVersion,
    /// §4.2.2: the version is 13.
    #[error("Sec-WebSocket-Version {0} is not spoken here, 13 is")]
    Version(String),
}

impl Handshake {
    /// Checks whether a request is a handshake (RFC 6455 §4.2.1): `None` for an ordinary request,
    /// also for one that asks for another upgrade.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] for a request that means to be a handshake and is none.
    pub fn read(
        request: &request::Parts,
        has_body: bool,
        strictness: Strictness,
    ) -> Result<Option<Self>, HandshakeError> {
        let headers = &request.headers;
        if request.version != Version::HTTP_11 || !asks_for_websocket(headers) {
            return Ok(None);
        }
        let keys: Vec<&HeaderValue> = headers.get_all(SEC_WEBSOCKET_KEY).iter().collect();
        let versions: Vec<&HeaderValue> = headers.get_all(SEC_WEBSOCKET_VERSION).iter().collect();
        let is_complete = request.method == Method::GET && !keys.is_empty() && !versions.is_empty();
        let is_meant = has_token(headers, &CONNECTION, "upgrade")
            || (strictness == Strictness::Lenient && is_complete);
        if !is_meant {
            return Ok(None);
        }
        if request.method != Method::GET {
            return Err(HandshakeError::Method(request.method.clone()));
        }
        if has_body {
            return Err(HandshakeError::Body);
        }
        let [key] = keys.as_slice() else { return Err(HandshakeError::KeyCount(keys.len())) };
        if !is_key(key.as_bytes()) {
            return Err(HandshakeError::Key);
        }
        match versions.as_slice() {
            [] => return Err(HandshakeError::NoVersion),
            [only] if *only == "13" => {}
            // Of several, the upstream might choose another one than we.
            others => {
                let others: Vec<_> =
                    others.iter().map(|other| String::from_utf8_lossy(other.as_bytes())).collect();
                return Err(HandshakeError::Version(others.join(", ")));
            }
        }
        Ok(Some(Self {
            accept: accept_for(key),
            subprotocols: tokens(headers, &SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect(),
            extensions: extension_names(headers),
        }))
    }

    /// Checks an upstream's answer of 101 (§4.1, the client's list of what must hold).
    ///
    /// # Errors
    ///
    /// [`AnswerError`]: the upstream does not speak WebSocket, or not as it was asked to.
    pub fn check_answer(&self, answer: &response::Parts) -> Result<(), AnswerError> {
        let headers = &answer.headers;
        if answer.status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(AnswerError::Status(answer.status));
        }
        let upgrades: Vec<&[u8]> = items(headers, &UPGRADE).collect();
        if !matches!(upgrades.as_slice(), [one] if one.eq_ignore_ascii_case(b"websocket")) {
            let upgrades = upgrades.join(b", ".as_slice());
            return Err(AnswerError::Upgrade(String::from_utf8_lossy(&upgrades).into()));
        }
        if !has_token(headers, &CONNECTION, "upgrade") {
            return Err(AnswerError::Connection);
        }
        // RFC 9110 §15.2: what follows is the other protocol. Some write a length of nothing.
        let has_length = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
        if has_length || headers.contains_key(TRANSFER_ENCODING) {
            return Err(AnswerError::Body);
        }
        let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        match (accepts.next(), accepts.next()) {
            (Some(accept), None) if accept == self.accept => {}
            (None, _) => return Err(AnswerError::NoAccept),
            _ => return Err(AnswerError::Accept),
        }
        let mut subprotocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        if let Some(chosen) = subprotocols.next() {
            let chosen = String::from_utf8_lossy(chosen.as_bytes()).trim().to_owned();
            if subprotocols.next().is_some() || !self.subprotocols.contains(&chosen) {
                return Err(AnswerError::Subprotocol(chosen));
            }
        }
        let never_offered =
            extension_names(headers).into_iter().find(|name| !self.extensions.contains(name));
        never_offered.map_or(Ok(()), |name| Err(AnswerError::Extension(name)))
    }
}

/// Whether a request asks for a WebSocket at all, complete or not.
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// What is wrong with an upstream's answer to a handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not 101.
    #[error("the answer has status {0}")]
    Status(StatusCode),
    /// Not `Upgrade: websocket`, and nothing else.
    #[error("its answer upgrades to `{0}` and not to websocket")]
    Upgrade(String),
    /// Not `Connection: upgrade`.
    #[error("its answer has no `Connection: upgrade`")]
    Connection,
    /// RFC 9112 §6.1: no body behind a 101, nor a word of one.
    #[error("its answer announces a body")]
    Body,
    /// No accept at all.
    #[error("its answer has no Sec-WebSocket-Accept")]
    NoAccept,
    /// Another one than the key asks for, or several.
    #[error("its answer has a wrong Sec-WebSocket-Accept")]
    Accept,
    /// One that was not offered, or several.
    #[error(
        "its answer has the subprotocol `{}`, which was not offered",
        redact::subprotocol(.0)
    )]
    Subprotocol(String),
    /// One that was not offered.
    #[error("its answer has the extension `{0}`, which was not offered")]
    Extension(String),
}

/// What is hashed with the key (§1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (§4.2.2).
pub fn accept_for(key: &HeaderValue) -> HeaderValue {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    let accept = STANDARD.encode(hash.finish());
    HeaderValue::from_str(&accept).expect("base64 is ASCII")
}

/// 16 bytes in base64. The four bits that no byte uses are nobody's business.
fn is_key(key: &[u8]) -> bool {
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.split_last_chunk::<2>()
        .is_some_and(|(body, end)| end == b"==" && body.len() == 22 && body.iter().all(is_base64))
}

/// The items of a comma-separated header, over all its lines; empty ones are skipped
/// (RFC 9110 §5.6.1).
fn items<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|item| item.trim_ascii())
        .filter(|item| !item.is_empty())
}

/// Those of them that may be tokens: not in other than ASCII.
pub(super) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    items(headers, name)
        .filter(|item| item.is_ascii())
        .filter_map(|item| std::str::from_utf8(item).ok())
}

/// Whether a header lists `token`, in any case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

/// The RSV bits that the extensions of an accepted handshake may give a meaning to, RSV1 as 4
/// down to RSV3 as 1. permessage-deflate takes RSV1 (RFC 7692 §6); what others do, we do not know.
pub fn meaningful_reserved(answer: &HeaderMap) -> u8 {
    let bits = |name: &String| if name == "permessage-deflate" { 0b100 } else { 0b111 };
    extension_names(answer).iter().map(bits).fold(0, |all, bits| all | bits)
}

/// The names in `Sec-WebSocket-Extensions` (§9.1), without their parameters.
fn extension_names(headers: &HeaderMap) -> Vec<String> {
    let mut names = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let mut is_quoted = false;
        // A quoted parameter may have a comma in it.
        for extension in value.split(|c| {
            is_quoted ^= c == '"';
            c == ',' && !is_quoted
        }) {
            let name = extension.split(';').next().unwrap_or_default().trim();
            if !name.is_empty() {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    const COMPLETE: Headers<'static> = &[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    fn request(method: &str, headers: Headers<'_>) -> request::Parts {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn without(name: &str) -> Vec<(&'static str, &'static str)> {
        COMPLETE.iter().copied().filter(|(other, _)| *other != name).collect()
    }

    fn with(name: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
        COMPLETE.iter().map(|(n, v)| (*n, if *n == name { value } else { *v })).collect()
    }

    fn read(headers: Headers<'_>) -> Result<Option<Handshake>, HandshakeError> {
        Handshake::read(&request("GET", headers), false, Strictness::Lenient)
    }

    #[test]
    fn the_accept_is_that_of_the_key() {
        for (key, accept) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ("MlRAR6bQZi07587UD4H8oA==", "iURIl3uIT+tsPMmZ0x1IVH7EL98="),
            ("w4v7O6xFTi36lq3RNcgctw==", "Oy4NRAQ13jhfONC7bP8dTKb4PTU="),
            ("8ZuOAG3PepR31z9HtJCkso==", "vQCeyABRRt6oKfebHddaBNvaTR4="),
        ] {
            assert!(is_key(key.as_bytes()), "{key}");
            assert_eq!(accept_for(&HeaderValue::from_static(key)), accept);
        }
    }

    #[test]
    fn a_complete_handshake_is_one_with_or_without_its_connection_option() {
        assert!(matches!(read(COMPLETE), Ok(Some(_))));
        let lacking = request("GET", &without("connection"));
        let strict = Handshake::read(&lacking, false, Strictness::Strict);
        let lenient = Handshake::read(&lacking, false, Strictness::Lenient);
        assert_eq!(strict, Ok(None));
        assert!(matches!(lenient, Ok(Some(_))));
    }

    #[test]
    fn what_does_not_mean_to_be_a_handshake_is_an_ordinary_request() {
        let mut old = request("GET", COMPLETE);
        old.version = Version::HTTP_10;
        assert_eq!(Handshake::read(&old, false, Strictness::Lenient), Ok(None));
        assert_eq!(read(&without("upgrade")), Ok(None));
        assert_eq!(read(&with("upgrade", "h2c")), Ok(None));
        assert_eq!(read(&[("upgrade", "websocket")]), Ok(None));
        assert!(matches!(read(&with("upgrade", "h2c, websocket")), Ok(Some(_))));
    }

    #[test]
    fn a_broken_handshake_is_refused_with_its_reason() {
        use HandshakeError as E;
        let mut two_keys = COMPLETE.to_vec();
        two_keys.push(COMPLETE[2]);
        let mut two_versions = COMPLETE.to_vec();
        two_versions.push(("sec-websocket-version", "8"));
        for (headers, error) in [
            (without("sec-websocket-key"), E::KeyCount(0)),
            (two_keys, E::KeyCount(2)),
            (with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ="), E::Key),
            (with("sec-websocket-key", "dGhlIHNhbXBsZSBub25j!Q=="), E::Key),
            (without("sec-websocket-version"), E::NoVersion),
            (with("sec-websocket-version", "8"), E::Version("8".into())),
            (with("sec-websocket-version", "13, 8"), E::Version("13, 8".into())),
            (two_versions, E::Version("13, 8".into())),
        ] {
            assert_eq!(read(&headers), Err(error));
        }
        let post = request("POST", COMPLETE);
        assert_eq!(
            Handshake::read(&post, false, Strictness::Lenient),
            Err(E::Method(Method::POST))
        );
        let get = request("GET", COMPLETE);
        assert_eq!(Handshake::read(&get, true, Strictness::Lenient), Err(E::Body));
    }

    fn answer(headers: Headers<'_>) -> response::Parts {
        let mut response = Response::builder().status(101);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).expect("a response").into_parts().0
    }

    #[test]
    fn an_answer_is_checked_in_full() {
        use AnswerError as E;
        let mut asked = COMPLETE.to_vec();
        asked.push(("sec-websocket-protocol", "chat, superchat"));
        asked.push(("sec-websocket-extensions", "permessage-deflate; x=\"a,b\", other"));
        let handshake = read(&asked).expect("well-formed").expect("a handshake");
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let base = [("upgrade", "websocket"), ("connection", "Upgrade"), accept];
        let plus = |name, value| [base.as_slice(), &[(name, value)]].concat();
        let extensions = "sec-websocket-extensions";
        let protocol = "sec-websocket-protocol";
        for (headers, expected) in [
            (base.to_vec(), Ok(())),
            (plus(protocol, "superchat"), Ok(())),
            (plus(extensions, "permessage-deflate; server_no_context_takeover"), Ok(())),
            (vec![base[1], accept], Err(E::Upgrade(String::new()))),
            (vec![("upgrade", "h2c"), base[1], accept], Err(E::Upgrade("h2c".into()))),
            (plus("upgrade", "h2c"), Err(E::Upgrade("websocket, h2c".into()))),
            (vec![base[0], accept], Err(E::Connection)),
            (vec![base[0], base[1]], Err(E::NoAccept)),
            (vec![base[0], base[1], ("sec-websocket-accept", "no")], Err(E::Accept)),
            (plus(accept.0, accept.1), Err(E::Accept)),
            (plus(protocol, "Chat"), Err(E::Subprotocol("Chat".into()))),
            (plus(protocol, "chat, superchat"), Err(E::Subprotocol("chat, superchat".into()))),
            (plus(extensions, "b"), Err(E::Extension("b".into()))),
            (plus("content-length", "0"), Ok(())),
            (plus("content-length", "5"), Err(E::Body)),
            (plus("transfer-encoding", "chunked"), Err(E::Body)),
        ] {
            assert_eq!(handshake.check_answer(&answer(&headers)), expected, "{headers:?}");
        }
        // Found by fuzzing: what is no token is not nothing.
        let mut foreign = answer(&base);
        foreign.headers.append(UPGRADE, HeaderValue::from_bytes(b"w\x8b").expect("a value"));
        let foreign = handshake.check_answer(&foreign);
        assert_eq!(foreign, Err(E::Upgrade("websocket, w\u{fffd}".into())));
        let mut ok = answer(&base);
        ok.status = StatusCode::OK;
        assert_eq!(handshake.check_answer(&ok), Err(E::Status(StatusCode::OK)));
    }
}
