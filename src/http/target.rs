//! What a request is for: its target and its host (RFC 9112 §3.2).

use http::header::HOST;
use http::uri::Authority;
use http::{Request, Uri, Version};

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
pub fn check_form(uri: &Uri) -> Result<(), NoPlace> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_or_a_url() {
        let check = |target: &str| check_form(&target.parse().expect("a target"));
        for target in ["/", "/a?b", "*", "http://a", "https://a/b", "WS://a/", "wss://a:1/"] {
            assert_eq!(check(target), Ok(()), "{target}");
        }
        for target in ["a:80", "a", "ftp://a/b", "unix://a/b"] {
            assert_eq!(check(target), Err(NoPlace), "{target}");
        }
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
