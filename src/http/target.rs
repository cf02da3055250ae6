//! What a request is for: its target and its host (RFC 9112 §3.2).

use std::rc::Rc;

use http::header::{HOST, HeaderValue};
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

/// The host that a request is for. A connection keeps it, since its next request is nearly always
/// for the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// With its port, as it was written.
    pub authority: Authority,
    /// The same for a header.
    pub header: HeaderValue,
    /// As routes and certificates have it: without its port, in lower case, and without the dot of
    /// the root, which makes it no other host (RFC 3986 §3.2.2).
    pub name: String,
}

impl From<Authority> for Asked {
    fn from(authority: Authority) -> Self {
        // Whatever may be in an authority may be in a header.
        let header = HeaderValue::from_str(authority.as_str());
        let header = header.unwrap_or(HeaderValue::from_static(""));
        let mut name = authority.host().to_ascii_lowercase();
        if name.ends_with('.') {
            name.pop();
        }
        Self { authority, header, name }
    }
}

/// The host that a request is for: that of its target where it has one (RFC 9112 §3.2.2), else
/// its `Host`. HTTP/1.0 may do without; `None` then. `before` is that of the request before.
///
/// # Errors
///
/// [`HostError`] for no host, several, or none that can be read.
pub fn host_of<B>(
    request: &Request<B>,
    before: Option<Rc<Asked>>,
) -> Result<Option<Rc<Asked>>, HostError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HostError::Several);
    }
    let target = request.uri().authority();
    if let (Some(host), Some(before), None) = (host, before, target)
        && before.header == host
    {
        return Ok(Some(before));
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
    let authority = match target {
        // A copy, which does not hold the buffer that the request was read into.
        Some(authority) => {
            let copy = Authority::try_from(authority.as_str()).map_err(|_| HostError::Malformed)?;
            Some(without_user(copy)?)
        }
        None => host,
    };
    Ok(authority.map(|authority| Rc::new(authority.into())))
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
            let request = request.body(()).expect("a request");
            let asked = host_of(&request, None);
            // As that of the request before, it is the same.
            let before = asked.clone().ok().flatten();
            assert_eq!(host_of(&request, before), asked);
            asked.map(|asked| asked.map(|asked| asked.authority.clone()))
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
    fn a_host_is_another_one_than_before_if_it_is_written_otherwise() {
        let request = |uri: &str, host: &str| {
            Request::builder().uri(uri).header(HOST, host).body(()).expect("a request")
        };
        let name = |uri, host, before| {
            let asked = host_of(&request(uri, host), Some(before)).expect("a host");
            asked.expect("a host").name.clone()
        };
        let before = || {
            let asked = host_of(&request("/", "a:80"), None).expect("a host");
            asked.expect("a host")
        };
        assert_eq!(name("/", "a:80", before()), "a");
        assert_eq!(name("/", "B.:81", before()), "b");
        assert_eq!(name("http://c", "a:80", before()), "c");
    }

    #[test]
    fn a_target_is_sent_in_origin_form() {
        for (given, sent) in [("http://a/b?c", "/b?c"), ("/b", "/b"), ("*", "*"), ("http://a", "/")]
        {
            assert_eq!(origin_form(&given.parse().expect("a target")).to_string(), sent);
        }
    }
}
