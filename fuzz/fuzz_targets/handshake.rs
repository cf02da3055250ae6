//! Any request and any answer: a handshake is one where RFC 6455 §4.2.1 has one, and an answer to it is taken where §4.1
//! has it taken; the rules are written down here once more.
//!
//! The first byte says whether there is a body and whether the route is strict; then come the heads.

#![no_main]

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, request, response,
};
use libfuzzer_sys::fuzz_target;
use tidegate::http::handshake::{Handshake, Strictness};
use tungstenite::handshake::derive_accept_key;

/// The items of a list over all its lines.
fn items(headers: &HeaderMap, name: &str) -> Vec<Vec<u8>> {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let items = lines.flat_map(|line| line.split(|byte| *byte == b','));
    items
        .map(|item| item.trim_ascii().to_ascii_lowercase())
        .filter(|item| !item.is_empty())
        .collect()
}

fn lines<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

fn has(headers: &HeaderMap, name: &str, item: &str) -> bool {
    items(headers, name).iter().any(|found| found == item.as_bytes())
}

/// 16 bytes are 22 characters and `==`.
fn is_key(key: &[u8]) -> bool {
    let is_base64 =
        |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'/');
    key.len() == 24 && key[..22].iter().all(is_base64) && &key[22..] == b"=="
}

fn is_handshake(request: &request::Parts, has_body: bool, is_strict: bool) -> bool {
    let headers = &request.headers;
    request.method == Method::GET
        && request.version == Version::HTTP_11
        && !has_body
        && has(headers, "upgrade", "websocket")
        && (!is_strict || has(headers, "connection", "upgrade"))
        && matches!(lines(headers, "sec-websocket-key").as_slice(), [key] if is_key(key))
        && lines(headers, "sec-websocket-version") == [b"13"]
}

fn is_agreed(request: &request::Parts, answer: &response::Parts) -> bool {
    let headers = &answer.headers;
    let key = request.headers["sec-websocket-key"].as_bytes();
    let offered = items_as_written(&request.headers, "sec-websocket-protocol");
    let is_offered = match lines(headers, "sec-websocket-protocol").as_slice() {
        [] => true,
        [one] => offered.contains(&one.trim_ascii().to_vec()),
        _ => false,
    };
    answer.status == 101
        && items(headers, "upgrade") == [b"websocket"]
        && has(headers, "connection", "upgrade")
        && lines(headers, "sec-websocket-accept") == [derive_accept_key(key).as_bytes()]
        && !headers.contains_key("transfer-encoding")
        && lines(headers, "content-length").iter().all(|length| *length == b"0")
        && is_offered
}

fn items_as_written(headers: &HeaderMap, name: &str) -> Vec<Vec<u8>> {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let items = lines.flat_map(|line| line.split(|byte| *byte == b','));
    items
        .map(|item| item.trim_ascii().to_vec())
        .filter(|item| item.is_ascii() && !item.is_empty())
        .collect()
}

/// Names of extensions, where no quoted comma makes that a matter of parsing.
fn extensions(headers: &HeaderMap) -> Option<Vec<Vec<u8>>> {
    let name = "sec-websocket-extensions";
    let is_quoted = lines(headers, name).iter().any(|line| line.contains(&b'"'));
    let is_ascii = lines(headers, name).iter().all(|line| line.is_ascii());
    let cut = |item: Vec<u8>| {
        item.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_vec()
    };
    let names = items(headers, name).into_iter().map(cut).filter(|name| !name.is_empty());
    (!is_quoted && is_ascii).then(|| names.collect())
}

fn headers(parsed: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(headers)
}

/// The request at the front of `bytes`, and what stands behind it.
fn read_request(bytes: &[u8]) -> Option<(request::Parts, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(len)) = parsed.parse(bytes) else { return None };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.version_mut() = if parsed.version? == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    *request.headers_mut() = headers(parsed.headers)?;
    Some((request.into_parts().0, &bytes[len..]))
}

fn read_answer(bytes: &[u8]) -> Option<response::Parts> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(_)) = parsed.parse(bytes) else { return None };
    let mut answer = Response::new(());
    *answer.status_mut() = parsed.code?.try_into().ok()?;
    *answer.headers_mut() = headers(parsed.headers)?;
    Some(answer.into_parts().0)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((flags, heads)) = bytes.split_first() else { return };
    let (has_body, is_strict) = (flags & 1 != 0, flags & 2 != 0);
    let strictness = if is_strict { Strictness::Strict } else { Strictness::Lenient };
    let Some((request, rest)) = read_request(heads) else { return };
    let read = Handshake::read(&request, has_body, strictness);
    assert_eq!(
        matches!(read, Ok(Some(_))),
        is_handshake(&request, has_body, is_strict),
        "{read:?}"
    );
    let Ok(Some(handshake)) = read else { return };
    let Some(answer) = read_answer(rest) else { return };
    let taken = handshake.check_answer(&answer);
    if taken.is_ok() {
        assert!(is_agreed(&request, &answer));
    }
    if let (Some(offered), Some(chosen)) =
        (extensions(&request.headers), extensions(&answer.headers))
    {
        let is_offered = chosen.iter().all(|name| offered.contains(name));
        assert_eq!(taken.is_ok(), is_offered && is_agreed(&request, &answer), "{taken:?}");
    }
});
