//! Keeps secrets out of the log: the values of query keys that look like credentials, and
//! credentials that came as a subprotocol.

use std::borrow::Cow;

/// What is written in the place of a secret.
const REDACTED: &str = "[redacted]";

/// A key that contains one of these names a secret.
const SECRETS: [&str; 14] = [
    "token",
    "secret",
    "passw",
    "auth",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "credential",
    "signature",
    "session",
    "jwt",
    "ticket",
    "code",
];

/// A key that is exactly one of these does too: too short to look for inside of others.
const SHORT_SECRETS: [&str; 5] = ["key", "sig", "pwd", "pass", "sid"];

/// The path and query as they may be logged; `more` are further secret keys, in lower case.
pub(super) fn query<'a>(path_and_query: &'a str, more: &[String]) -> Cow<'a, str> {
    if !path_and_query.contains('=') {
        return path_and_query.into();
    }
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let pairs = || query.into_iter().flat_map(|query| query.split('&'));
    if !path.split(['/', ';']).chain(pairs()).any(|pair| secret_key(pair, more).is_some()) {
        return path_and_query.into();
    }
    let mut shown = String::with_capacity(path_and_query.len());
    // Java's servers put their `;jsessionid=…` there.
    for part in path.split_inclusive(['/', ';']) {
        let end = part.len() - usize::from(part.ends_with(['/', ';']));
        push_pair(&mut shown, &part[..end], more);
        shown.push_str(&part[end..]);
    }
    for (at, pair) in pairs().enumerate() {
        shown.push(if at == 0 { '?' } else { '&' });
        push_pair(&mut shown, pair, more);
    }
    shown.into()
}

fn push_pair(shown: &mut String, pair: &str, more: &[String]) {
    match secret_key(pair, more) {
        Some(key) => {
            shown.push_str(key);
            shown.push('=');
            shown.push_str(REDACTED);
        }
        None => shown.push_str(pair),
    }
}

/// The key of a pair whose value is a secret.
fn secret_key<'a>(pair: &'a str, more: &[String]) -> Option<&'a str> {
    let (key, _) = pair.split_once('=')?;
    is_secret(key, more).then_some(key)
}

/// A subprotocol as it may be logged. Browsers let a page set no other header of a handshake, so
/// many put a token there, and servers that know no better agree on it.
pub fn subprotocol(name: &str) -> &str {
    if is_credential(name) { REDACTED } else { name }
}

/// Words of which a subprotocol is one that brings a credential.
const CREDENTIALS: [&str; 7] = ["bearer", "token", "secret", "passw", "apikey", "api_key", "jwt"];
/// A subprotocol is a name; what is longer is something else.
const LONGEST_NAME: usize = 48;
/// As long a run of letters and digits, mixed, is no word.
const LONGEST_WORD: usize = 15;

fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_mixed = |run: &str| {
        run.len() > LONGEST_WORD
            && run.bytes().any(|byte| byte.is_ascii_digit())
            && run.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    name.len() > LONGEST_NAME
        || CREDENTIALS.iter().any(|word| name.contains(word))
        || name.split(|c: char| !c.is_ascii_alphanumeric()).any(is_mixed)
}

fn is_secret(key: &str, more: &[String]) -> bool {
    let key = decoded(key);
    SECRETS.iter().any(|secret| key.contains(secret))
        || SHORT_SECRETS.contains(&key.as_str())
        || more.contains(&key)
}

/// The key in lower case with its percent-encoding undone, so that `%74oken` is a token.
fn decoded(key: &str) -> String {
    let bytes = key.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                plain.push(byte);
                at += 3;
            }
            _ => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subprotocol_is_a_name_or_a_secret() {
        for name in [
            "chat",
            "v2.chat",
            "graphql-transport-ws",
            "wamp.2.msgpack.batched",
            "v5.channel.k8s.io",
            "ocpp2.0.1",
            "mqttv3.1",
            "com.example.service.v12",
        ] {
            assert_eq!(subprotocol(name), name);
        }
        for secret in [
            "base64url.bearer.authorization.k8s.io.dG9r",
            "bearer-7",
            "access_token.7",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
            "d41d8cd98f00b204e9800998ecf8427e",
            "ab12cd34ef56ab12",
        ] {
            assert_eq!(subprotocol(secret), REDACTED);
        }
    }

    #[test]
    fn secrets_do_not_reach_the_log() {
        for (given, shown) in [
            ("/ws", "/ws"),
            ("/ws?room=7", "/ws?room=7"),
            ("/ws?token=abc&room=7", "/ws?token=[redacted]&room=7"),
            ("/ws?Access_Token=abc", "/ws?Access_Token=[redacted]"),
            ("/ws?%74oken=abc", "/ws?%74oken=[redacted]"),
            ("/ws?key=1&monkey=2", "/ws?key=[redacted]&monkey=2"),
            ("/ws?ours=1", "/ws?ours=[redacted]"),
            ("/ws?a%=1&b%zz=2&token", "/ws?a%=1&b%zz=2&token"),
            ("/ws?token=a?b=c", "/ws?token=[redacted]"),
            ("/ws?", "/ws?"),
            ("/a;v=1/b;jsessionid=f00/c/", "/a;v=1/b;jsessionid=[redacted]/c/"),
            ("/a;v=1/b;session_id=f00;w=2/c/?d", "/a;v=1/b;session_id=[redacted];w=2/c/?d"),
            ("/a;v=1/b;key=f00/c", "/a;v=1/b;key=[redacted]/c"),
            ("/a/key=f00/c", "/a/key=[redacted]/c"),
            ("/a;v=1/b;w=2/c?d=3&=4&e", "/a;v=1/b;w=2/c?d=3&=4&e"),
            ("/ws%3Ftoken=abc", "/ws%3Ftoken=[redacted]"),
        ] {
            assert_eq!(query(given, &["ours".into()]), shown);
        }
    }
}
