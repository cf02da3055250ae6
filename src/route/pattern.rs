//! What a route is for: host patterns (exact, `*.wildcard`, `*`) and path prefixes by segments.

use std::fmt;

use super::reading;

/// The hosts a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// One host, in lower case.
    Exact(String),
    /// Every name below a domain, at any depth; kept as `.example.org`.
    Wildcard(String),
    /// Every host.
    Any,
}

impl HostPattern {
    /// Reads `chat.example.org`, `*.example.org` or `*`.
    ///
    /// # Errors
    ///
    /// [`PatternError::Host`] for anything else.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let wrong = || PatternError::Host(text.into());
        let lower = text.to_ascii_lowercase();
        match lower.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') && is_host(&suffix[1..]) => {
                Ok(Self::Wildcard(suffix.into()))
            }
            None if is_host(&lower) => Ok(Self::Exact(lower)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Whether `host` lies below the domain `suffix`, given with its leading dot.
pub fn is_below(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

/// A DNS name, an IPv4 address, or an IPv6 address in brackets, without a port.
fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    !text.is_empty() && text.len() <= 253 && text.split('.').all(label)
}

/// The paths a route is for: a prefix that ends where a segment ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// Without a slash at its end, so that `/` is empty.
    prefix: String,
}

impl PathPattern {
    /// Reads a path such as `/` or `/chat/rooms`.
    ///
    /// # Errors
    ///
    /// [`PatternError::Path`] for a text that is no path.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'*'));
        // A path that servers read as another one would be refused whenever it is asked for.
        let is_certain = reading::others(&reading::decoded(text.as_bytes()))
            .is_ok_and(|others| others.is_empty());
        if !text.starts_with('/') || !plain || !is_certain {
            return Err(PatternError::Path(text.into()));
        }
        Ok(Self { prefix: text.trim_end_matches('/').into() })
    }

    /// Whether `path` is this path or lies below it.
    pub fn matches(&self, path: &str) -> bool {
        path.strip_prefix(&self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether `reading`, one of [`reading::others`], is this path or lies below it.
    pub fn may_match(&self, reading: &[u8]) -> bool {
        let is_below = |prefix: &[u8]| {
            reading
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.first().is_none_or(|first| *first == b'/'))
        };
        is_below(self.prefix.as_bytes()) || is_below(&reading::decoded(self.prefix.as_bytes()))
    }

    /// Whether it is `/`, and every path below it.
    pub fn is_root(&self) -> bool {
        self.prefix.is_empty()
    }

    /// How specific it is: the number of its segments.
    pub fn depth(&self) -> usize {
        self.prefix.matches('/').count()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.prefix.is_empty() { "/" } else { &self.prefix })
    }
}

/// Why a text is no pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No host, wildcard or `*`.
    #[error(
        "`{0}` is no host: write a name as in \"chat.example.org\", \"*.example.org\" or \"*\", \
         without scheme, port or path"
    )]
    Host(String),
    /// No path.
    #[error(
        "`{0}` is no path: write one that begins with `/`, has no query, and that no server reads \
         as another one (`..`, `.`, `//`, `;`, `\\`), as in \"/chat\""
    )]
    Path(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_exact_wild_or_any() {
        for (text, shown) in [
            ("*", "*"),
            ("Chat.Example.org", "chat.example.org"),
            ("*.Example.org", "*.example.org"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(HostPattern::parse(text).expect(text).to_string(), shown);
        }
        for text in ["", "http://a", "a:80", "a/b", "*a", "*.", "a..b", "**", "[::1", "ex ample"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_match_by_segments() {
        let chat = PathPattern::parse("/chat/").expect("a path");
        for (path, fits) in
            [("/chat", true), ("/chat/", true), ("/chat/7", true), ("/chatty", false), ("/", false)]
        {
            assert_eq!(chat.matches(path), fits, "{path}");
        }
        assert!(PathPattern::parse("/").expect("a path").matches("/anything"));
        let cafe = PathPattern::parse("/caf%C3%A9").expect("a path");
        assert!(cafe.may_match("/café".as_bytes()) && cafe.may_match(b"/caf%C3%A9/x"));
        assert!(!cafe.may_match("/cafés".as_bytes()));
        for text in ["/.well-known/acme-challenge", "/~user", "/a.b", "/100%25"] {
            assert!(PathPattern::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "chat",
            "/a?b",
            "/a//b",
            "/a b",
            "/*",
            "/a/../b",
            "/a/.",
            "/a;b",
            r"/a\b",
            "/%2e%2e",
            "/a%2f%2fb",
            "/a%3fb",
            "/a%00",
            "/%2561",
        ] {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }
}
