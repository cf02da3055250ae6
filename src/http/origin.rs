//! Which web pages may open a WebSocket on a route (RFC 6455 §10.2). A browser lets a page of any
//! site connect to any other and sends the cookies along; only the `Origin` tells (cross-site
//! WebSocket hijacking, CWE-1385).

use http::header::{HeaderMap, ORIGIN};
use http::uri::Authority;

/// Origins that are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// Those that are.
    pub allowed: Vec<OriginPattern>,
    /// Whether a handshake that names none is: browsers always do, other clients hardly ever.
    pub allows_missing: bool,
}

/// One origin (RFC 6454 §6.1), or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `same`: that of the host and port that the handshake is for, by https if that `is_secure`.
    Same,
    /// `null`: pages without one, such as sandboxed frames and local files.
    Null,
    /// `https://app.example.org`, or `https://*.example.org:8443` for all below that.
    Site {
        /// `http`, `https`, or what a program other than a browser calls itself.
        scheme: String,
        /// The host in lower case; with `is_wildcard`, what it ends with, dot included.
        host: String,
        /// The port, if it is not the scheme's own.
        port: Option<u16>,
        /// Whether it is for the hosts below.
        is_wildcard: bool,
    },
}

/// Why a handshake's origin is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// It names none.
    #[error("the handshake has no Origin, and this route wants one")]
    Missing,
    /// It names several, or what is none.
    #[error("the handshake's Origin is malformed")]
    Malformed,
    /// It names another.
    #[error("pages of {0} may not open a WebSocket here")]
    Foreign(String),
}

impl OriginPattern {
    /// Reads one entry of `origins`.
    ///
    /// # Errors
    ///
    /// What is wrong with it and how it is written right.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "same" => return Ok(Self::Same),
            "null" => return Ok(Self::Null),
            _ => {}
        }
        let wrong = || {
            format!(
                "`{text}` is no origin: write \"https://app.example.org\", \
                 \"https://*.example.org\", \"same\" or \"null\""
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (rest, is_wildcard) = match rest.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => (rest, true),
            Some(_) => return Err(wrong()),
            None => (rest, false),
        };
        let named = if is_wildcard { &rest[1..] } else { rest };
        let Origin { scheme, host, port } = Origin::of(scheme, named).ok_or_else(wrong)?;
        if host.contains('*') {
            return Err(wrong());
        }
        let host = if is_wildcard { format!(".{host}") } else { host };
        Ok(Self::Site { scheme, host, port, is_wildcard })
    }

    fn matches(&self, origin: Option<&Origin>, asked: Option<&Authority>, is_secure: bool) -> bool {
        match (self, origin) {
            (Self::Null, None) => true,
            (Self::Null, Some(_)) | (_, None) => false,
            (Self::Same, Some(origin)) => asked.is_some_and(|asked| {
                let asked = Origin::of(&origin.scheme, asked.as_str());
                // A page that came without TLS may be anybody's who is on the way.
                let is_as_safe = origin.scheme == "https" || !is_secure && origin.scheme == "http";
                is_as_safe && asked.as_ref() == Some(origin)
            }),
            (Self::Site { scheme, host, port, is_wildcard }, Some(origin)) => {
                let is_host = if *is_wildcard {
                    origin.host.len() > host.len() && origin.host.ends_with(host.as_str())
                } else {
                    origin.host == *host
                };
                is_host && *scheme == origin.scheme && *port == origin.port
            }
        }
    }
}

impl Origins {
    /// Whether a handshake to `asked` is let in, which came by TLS if it `is_secure`.
    ///
    /// # Errors
    ///
    /// [`OriginError`] where it is not.
    pub fn check(
        &self,
        headers: &HeaderMap,
        asked: Option<&Authority>,
        is_secure: bool,
    ) -> Result<(), OriginError> {
        let mut named = headers.get_all(ORIGIN).iter();
        let text = match (named.next(), named.next()) {
            (None, _) if self.allows_missing => return Ok(()),
            (None, _) => return Err(OriginError::Missing),
            (Some(origin), None) => origin.to_str().map_err(|_| OriginError::Malformed)?,
            (Some(_), Some(_)) => return Err(OriginError::Malformed),
        };
        let origin = match text {
            "null" => None,
            _ => Some(Origin::parse(text).ok_or(OriginError::Malformed)?),
        };
        if self.allowed.iter().any(|pattern| pattern.matches(origin.as_ref(), asked, is_secure)) {
            return Ok(());
        }
        Err(OriginError::Foreign(text.to_owned()))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        Self::of(scheme, authority)
    }

    /// `None` for what is no scheme, host and port, and nothing else.
    fn of(scheme: &str, authority: &str) -> Option<Self> {
        let scheme = scheme.to_ascii_lowercase();
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(is_scheme) {
            return None;
        }
        let authority: Authority = authority.parse().ok()?;
        // A port that is no number would be taken for none.
        let is_whole = match authority.port() {
            Some(port) => {
                authority.as_str().len() == authority.host().len() + 1 + port.as_str().len()
            }
            None => authority.as_str() == authority.host(),
        };
        if !is_whole || authority.host().is_empty() {
            return None;
        }
        let own = match scheme.as_str() {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        let port = authority.port_u16().filter(|port| Some(*port) != own);
        Some(Self { scheme, host: authority.host().to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(
        allowed: &[&str],
        allows_missing: bool,
        named: &[&str],
        asked: &str,
    ) -> Result<(), OriginError> {
        let allowed = allowed.iter().map(|text| OriginPattern::parse(text).expect("a pattern"));
        let origins = Origins { allowed: allowed.collect(), allows_missing };
        let mut headers = HeaderMap::new();
        for origin in named {
            headers.append(ORIGIN, HeaderValue::from_str(origin).expect("a value"));
        }
        let asked = (!asked.is_empty()).then(|| asked.parse().expect("an authority"));
        let not_secure = origins.check(&headers, asked.as_ref(), false);
        let secure = origins.check(&headers, asked.as_ref(), true);
        let is_plain = named.iter().any(|origin| origin.starts_with("http:"));
        // What holds on a plain connection holds on a secure one, but for plain pages of the host.
        assert!(secure == not_secure || is_plain && secure.is_err(), "{named:?}");
        not_secure
    }

    #[test]
    fn a_page_without_tls_is_not_the_same_as_a_socket_with_it() {
        let origins = Origins { allowed: vec![OriginPattern::Same], allows_missing: false };
        let host = "a.example".parse().expect("an authority");
        for (origin, is_secure, is_let_in) in [
            ("http://a.example", false, true),
            ("http://a.example", true, false),
            ("https://a.example", true, true),
            ("https://a.example", false, true),
        ] {
            let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
            let checked = origins.check(&headers, Some(&host), is_secure);
            assert_eq!(checked.is_ok(), is_let_in, "{origin} {is_secure}");
        }
    }

    #[test]
    fn an_origin_is_one_of_those_or_not() {
        for (allowed, origin, asked, is_let_in) in [
            ("https://a.example", "https://a.example", "", true),
            ("https://a.example", "HTTPS://A.Example:443", "", true),
            ("https://a.example:443", "https://a.example", "", true),
            ("https://a.example", "http://a.example", "", false),
            ("https://a.example", "https://a.example:444", "", false),
            ("https://a.example", "https://a.example.evil.test", "", false),
            ("https://a.example", "https://evila.example", "", false),
            ("https://a.example", "null", "", false),
            ("https://*.example.org", "https://a.example.org", "", true),
            ("https://*.example.org", "https://a.b.example.org", "", true),
            ("https://*.example.org", "https://example.org", "", false),
            ("https://*.example.org", "https://evilexample.org", "", false),
            ("https://*.example.org", "https://.example.org", "", false),
            ("https://*.example.org:8443", "https://a.example.org:8443", "", true),
            ("https://*.example.org:8443", "https://a.example.org", "", false),
            ("http://[::1]:8080", "http://[::1]:8080", "", true),
            ("chrome-extension://abc", "chrome-extension://abc", "", true),
            ("null", "null", "", true),
            ("null", "https://a.example", "", false),
            ("same", "https://a.example", "a.example", true),
            ("same", "https://a.example", "A.example:443", true),
            ("same", "http://a.example:8080", "a.example:8080", true),
            ("same", "https://a.example:8443", "a.example", false),
            ("same", "https://b.example", "a.example", false),
            ("same", "chrome-extension://a.example", "a.example", false),
            ("same", "https://a.example", "", false),
            ("same", "null", "null", false),
        ] {
            let checked = check(&[allowed], false, &[origin], asked);
            assert_eq!(checked.is_ok(), is_let_in, "{allowed} {origin} {asked}: {checked:?}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        use OriginError as E;
        for text in [
            "",
            "a.example",
            "https://",
            "https:///",
            "https://a.example/",
            "https://a.example/x",
            "https://user@a.example",
            "https://a.example:port",
            "https://a.example:",
            "https://a.example:99999",
            "https://a.example#",
            "://a.example",
            "ht tp://a.example",
            "https://a.example https://b.example",
        ] {
            assert_eq!(check(&["same", "null"], true, &[text], "a"), Err(E::Malformed), "{text}");
        }
        let twice = ["https://a.example", "https://a.example"];
        assert_eq!(check(&["https://a.example"], true, &twice, ""), Err(E::Malformed));
        assert_eq!(check(&["same"], true, &[], "a"), Ok(()));
        assert_eq!(check(&["same"], false, &[], "a"), Err(E::Missing));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        for text in [
            "",
            "*",
            "a.example",
            "https://",
            "https://*",
            "https://a.*.example",
            "https://*a.example",
            "https://a.example/",
            "https://*.",
            "https://a:b",
            "Same",
        ] {
            let error = OriginPattern::parse(text).expect_err(text);
            assert!(error.starts_with(&format!("`{text}` is no origin: write ")), "{error}");
        }
    }
}
