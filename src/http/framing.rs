//! Where a message ends (RFC 9112 §6): what others might read in another way than we do goes no
//! further, or goes on in one way.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};

use super::handshake::tokens;

/// A transfer coding besides one `chunked`, which would have to be undone here: hyper undoes only
/// that (RFC 9112 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transfer coding besides one chunked is not understood")]
pub struct UnknownCoding;

/// Whether a body is understood.
///
/// # Errors
///
/// [`UnknownCoding`] where it is not.
pub fn check_coding(headers: &HeaderMap) -> Result<(), UnknownCoding> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(UnknownCoding),
    }
}

/// An answer of which the client might make more or less than the upstream did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// RFC 9112 §6.3: this ought to be handled as an error.
    #[error("its answer has both a Content-Length and a Transfer-Encoding")]
    TwoLengths,
    /// RFC 9112 §7.
    #[error("its answer has a transfer coding besides one chunked")]
    Coding,
}

/// Checks how an upstream's answer says where it ends, and makes one length of several that are
/// the same (RFC 9110 §8.6); hyper refuses those that differ.
///
/// # Errors
///
/// [`FramingError`] for an answer that others may read in another way.
pub fn check_answer(headers: &mut HeaderMap) -> Result<(), FramingError> {
    let is_coded = headers.contains_key(TRANSFER_ENCODING);
    if is_coded {
        check_coding(headers).map_err(|UnknownCoding| FramingError::Coding)?;
    }
    let mut lengths = tokens(headers, &CONTENT_LENGTH);
    let Some(first) = lengths.next() else { return Ok(()) };
    if is_coded {
        return Err(FramingError::TwoLengths);
    }
    if lengths.next().is_some()
        && let Ok(length) = HeaderValue::from_str(first)
    {
        drop(lengths);
        headers.insert(CONTENT_LENGTH, length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers::tests::headers;

    #[test]
    fn a_transfer_coding_is_one_chunked() {
        let coded = |codings: &[&str]| {
            let list: Vec<_> =
                codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            check_coding(&headers(&list))
        };
        assert_eq!(coded(&[]), Ok(()));
        assert_eq!(coded(&["Chunked"]), Ok(()));
        for others in [
            ["gzip, chunked"].as_slice(),
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["identity", "chunked"],
            &["gz\u{ef}p", "chunked"],
            &[", chunked"],
            &["\"chunked\""],
            &[""],
        ] {
            assert_eq!(coded(others), Err(UnknownCoding), "{others:?}");
        }
    }

    #[test]
    fn an_answer_says_once_where_it_ends() {
        let framed = |list: &[(&'static str, &str)]| {
            let mut map = headers(list);
            check_answer(&mut map).map(|()| {
                let lengths = map.get_all(CONTENT_LENGTH).iter();
                lengths.map(|length| length.to_str().expect("digits").to_owned()).collect()
            })
        };
        let one = |length: &str| Ok(vec![length.to_owned()]);
        let (length, coding) = ("content-length", "transfer-encoding");
        assert_eq!(framed(&[]), Ok(Vec::new()));
        assert_eq!(framed(&[(length, "5")]), one("5"));
        assert_eq!(framed(&[(length, "5, 5")]), one("5"));
        assert_eq!(framed(&[(length, "5"), (length, "5")]), one("5"));
        assert_eq!(framed(&[(coding, "chunked")]), Ok(Vec::new()));
        let both = [(length, "5"), (coding, "chunked")];
        assert_eq!(framed(&both), Err(FramingError::TwoLengths));
        assert_eq!(framed(&[(coding, "gzip, chunked")]), Err(FramingError::Coding));
    }
}
