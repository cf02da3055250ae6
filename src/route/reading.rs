//! How else a path may be read: servers decode, merge and resolve what a path is written with, each
//! in its own way and order. What one of them takes for another route's path must not get past that
//! route. No I/O.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// So many bytes of readings are looked at. What a path of sensible length can be read as is far
/// below; one that was made to have thousands of readings is not worth its time.
const MOST_BYTES: usize = 256 * 1024;

/// A path that can be read in more ways than are worth looking at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// What servers may take `path` for besides what is written: parameters (`;v=1`) cut off,
/// percent-encodings decoded once or twice, with or without those of slashes, the rest behind an
/// encoded NUL, `?` or `#` cut off, backslashes taken for slashes, several slashes for one or for
/// the beginning of a host, and dot segments resolved, before or after the rest. Empty for most
/// paths.
///
/// # Errors
///
/// [`TooMany`] for a path that was made to be misread.
pub fn others(path: &[u8]) -> Result<BTreeSet<Vec<u8>>, TooMany> {
    let mut readings = BTreeSet::new();
    if is_plain(path) {
        return Ok(readings);
    }
    readings.insert(path.to_vec());
    let mut bytes = path.len();
    for step in STEPS {
        let more: Vec<Vec<u8>> = readings.iter().map(|reading| step.of(reading)).collect();
        for reading in more {
            let len = reading.len();
            if readings.insert(reading) {
                bytes += len;
            }
            if bytes > MOST_BYTES {
                return Err(TooMany);
            }
        }
    }
    readings.remove(path);
    Ok(readings)
}

/// Whether there is nothing in `path` for any step; so it is with most.
fn is_plain(path: &[u8]) -> bool {
    let is_tricky = |byte: &u8| matches!(byte, b'%' | b';' | b'\\' | b'?' | b'#' | 0);
    !path.iter().any(is_tricky) && !path.windows(2).any(|two| two == b"//" || two == b"/.")
}

/// What a server may do to a path before it looks at it.
#[derive(Debug, Clone, Copy)]
enum Step {
    CutAuthority,
    CutParameters,
    ResolveDots,
    DecodeAllButSlashes,
    Decode,
    CutAtEnd,
    TurnBackslashes,
    MergeSlashes,
}

/// In an order in which each may also be left out.
const STEPS: [Step; 12] = [
    Step::CutAuthority,
    Step::CutParameters,
    Step::ResolveDots,
    Step::DecodeAllButSlashes,
    Step::Decode,
    Step::CutAtEnd,
    Step::TurnBackslashes,
    Step::CutAuthority,
    Step::CutParameters,
    Step::MergeSlashes,
    Step::ResolveDots,
    Step::MergeSlashes,
];

impl Step {
    fn of(self, path: &[u8]) -> Vec<u8> {
        match self {
            Self::CutAuthority => without_authority(path),
            Self::CutParameters => without_parameters(path),
            Self::ResolveDots => resolved(path),
            Self::DecodeAllButSlashes => {
                decode(path, |byte| !matches!(byte, b'/' | b'\\')).into_owned()
            }
            Self::Decode => decoded(path).into_owned(),
            Self::CutAtEnd => {
                let is_end = |byte: &u8| matches!(byte, 0 | b'?' | b'#');
                path.split(is_end).next().unwrap_or_default().to_vec()
            }
            Self::TurnBackslashes => {
                path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
            }
            Self::MergeSlashes => merged(path),
        }
    }
}

/// With all percent-encodings decoded (RFC 3986 §2.1); what only looks like one stays.
pub fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    decode(path, |_| true)
}

fn decode(path: &[u8], is_wanted: impl Fn(u8) -> bool) -> Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return Cow::Borrowed(path);
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let value = match (byte, digit(path.get(at + 1)), digit(path.get(at + 2))) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        if let Some(value) = value.filter(|value| is_wanted(*value)) {
            decoded.push(value);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    Cow::Owned(decoded)
}

/// Without the first segment behind two slashes or more, of either kind: where a target is read as
/// a URL relative to another, as by `new URL(target, base)`, that is a host (RFC 3986 §4.2; the URL
/// standard's "special authority ignore slashes state").
fn without_authority(path: &[u8]) -> Vec<u8> {
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    let slashes = path.iter().take_while(|byte| is_slash(byte)).count();
    if slashes < 2 {
        return path.to_vec();
    }
    let behind = &path[slashes..];
    match behind.iter().position(is_slash) {
        Some(end) => behind[end..].to_vec(),
        None => b"/".to_vec(),
    }
}

/// Without what stands behind a `;` in any segment, as Java's servers read it.
fn without_parameters(path: &[u8]) -> Vec<u8> {
    let segments = path.split(|byte| *byte == b'/');
    let names: Vec<&[u8]> = segments
        .map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default())
        .collect();
    names.join(&b'/')
}

/// With one slash where there are several.
fn merged(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|next, before| (*next, *before) == (b'/', b'/'));
    merged
}

/// Without dot segments (RFC 3986 §5.2.4).
fn resolved(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments =
        path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_dot = segment == b".";
        let is_dots = segment == b"..";
        if is_dots {
            kept.pop();
        }
        if !is_dot && !is_dots {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push(b"");
        }
    }
    [b"/", kept.join(&b'/').as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_readable_as(path: &str, reading: &str) -> bool {
        others(path.as_bytes()).expect("few readings").contains(reading.as_bytes())
    }

    /// What servers are known to do, one by one and together.
    #[test]
    fn a_path_has_the_readings_that_servers_are_known_for() {
        for (path, reading) in [
            ("/open/../admin", "/admin"),
            ("/open/./../admin/", "/admin/"),
            ("/open/%2e%2E/admin", "/admin"),
            ("/open/.%2e/admin", "/admin"),
            ("/open/%252e%252e/admin", "/admin"),
            ("/open/..%2fadmin", "/admin"),
            ("/open/..%5cadmin", "/admin"),
            (r"/open/..\admin", "/admin"),
            (r"/\admin", "/admin"),
            ("//admin", "/admin"),
            ("/./admin", "/admin"),
            ("//x/admin", "/admin"),
            ("///x/admin", "/admin"),
            (r"/\x/admin", "/admin"),
            (r"/\\x\admin", "/admin"),
            ("/%2fx/admin", "/admin"),
            ("//admin.test", "/"),
            ("/%61dmin", "/admin"),
            ("/%2fadmin", "/admin"),
            ("/admin;v=1/x", "/admin/x"),
            ("/;/admin", "/admin"),
            ("/open/..;/admin", "/admin"),
            ("/open/..%3b/admin", "/admin"),
            ("/admin%00.png", "/admin"),
            ("/admin%3fx", "/admin"),
            ("/admin%23", "/admin"),
            // Resolved before they are merged, and the other way round.
            ("/x/../admin//../y", "/admin/y"),
            ("/a//../admin", "/admin"),
            // Resolved before it is decoded.
            ("/x/../%61dmin/%2e%2e/../y", "/admin/y"),
            ("/../admin", "/admin"),
        ] {
            assert!(is_readable_as(path, reading), "{path}");
        }
    }

    #[test]
    fn most_paths_have_one_reading() {
        for path in [
            "/",
            "/chat",
            "/a.b/c..d/e",
            "/.well-known/x",
            "/100%",
            "/a%2",
            "/~user/@x,y=1:2!$&'()*+",
            "*",
            "",
        ] {
            assert_eq!(others(path.as_bytes()), Ok(BTreeSet::new()), "{path}");
        }
    }

    #[test]
    fn a_long_path_has_its_readings_too() {
        let long = format!("/open/%2e%2e/{}", "a%20".repeat(4_000));
        assert!(others(long.as_bytes()).is_ok());
        let tricks = "/%25252e;x/..;y//%255c/".repeat(2_900);
        assert!(others(tricks.as_bytes()).is_err());
    }

    proptest! {
        /// No reading is longer than the path, and a path that is called plain is left alone by every step.
        #[test]
        fn readings_shrink(path in r"/[a-z./;\\%25ef]{0,24}") {
            for reading in others(path.as_bytes()).expect("few readings") {
                prop_assert!(reading.len() <= path.len());
            }
            if is_plain(path.as_bytes()) {
                for step in STEPS {
                    prop_assert_eq!(step.of(path.as_bytes()), path.as_bytes());
                }
            }
        }

        /// Whatever is put in the way of a path and resolved again, the path is found behind it.
        #[test]
        fn what_leads_away_and_back_is_found(
            detour in proptest::sample::select(vec!["x", "x;v=1", "%78", "a.b", "%2578"]),
            back in proptest::sample::select(vec!["..", "%2e.", ".%2E", "%252e%2e", "..;", "..%3b"]),
            slash in proptest::sample::select(vec!["/", "//", "%2f", "%2F", r"\", "%5c", "/./"]),
        ) {
            let path = format!("/{detour}{slash}{back}{slash}admin");
            prop_assert!(is_readable_as(&path, "/admin"), "{}", path);
        }
    }
}
