//! Who a client is by its certificate, in the words in which upstreams are told.
//!
//! Nothing of it is ever cut short: half a name may be somebody else's. A certificate that says too
//! much to be passed on whole is refused in the handshake ([`super::client_auth`]).

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use time::OffsetDateTime;
use x509_parser::asn1_rs::{Oid, Tag, ToDer as _};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// What a request can carry: many backends take no more than 8 KiB in one field.
const LARGEST_CERTIFICATE: usize = 6 * 1024;
const LONGEST_SUBJECT: usize = 2 * 1024;

/// A client as its verified certificate names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The subject as in RFC 4514, in printable ASCII; empty for a certificate that has only
    /// alternative names.
    pub subject: HeaderValue,
    /// The certificate as `Client-Cert` has it: RFC 9440 §2.1.
    pub certificate: HeaderValue,
}

/// Why a certificate is no identity that can be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be parsed, or its subject cannot.
    #[error("the client's certificate is malformed")]
    Malformed,
    /// It is over: it was not when the session began that was resumed.
    #[error("the client's certificate has expired since its session began")]
    Expired,
    /// It does not fit into a header.
    #[error(
        "the client's certificate is too large to be passed on: {LARGEST_CERTIFICATE} bytes, and a \
         subject of {LONGEST_SUBJECT}, are the most"
    )]
    TooLarge,
}

impl Identity {
    /// Reads it from a certificate in DER that has been verified, now or in an earlier session.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] where it cannot be passed on whole, or is over at `now`.
    pub fn read(der: &[u8], now: SystemTime) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::Malformed)?;
        if OffsetDateTime::from(now) > certificate.validity().not_after.to_datetime() {
            return Err(IdentityError::Expired);
        }
        let subject = name(certificate.subject());
        if der.len() > LARGEST_CERTIFICATE || subject.len() > LONGEST_SUBJECT {
            return Err(IdentityError::TooLarge);
        }
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| IdentityError::Malformed);
        let certificate = value(&format!(":{}:", STANDARD.encode(der)))?;
        Ok(Self { subject: value(&subject)?, certificate })
    }

    /// The subject as text.
    pub fn subject(&self) -> &str {
        // It is made of printable ASCII.
        self.subject.to_str().unwrap_or_default()
    }
}

/// Types of attributes that go by a short name: RFC 4514 §3, and two more that everybody writes.
const SHORT_NAMES: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "street"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.5", "serialNumber"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// A name as in RFC 4514: the last part first. Whatever is not printable ASCII is escaped, which
/// §2.4 allows for any character, so that the text is safe in a header and in a log.
fn name(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    match (short_name(kind), text_of(attribute)) {
        (Some(kind), Some(text)) => format!("{kind}={}", escaped(&text)),
        (Some(kind), None) => format!("{kind}={}", in_hexadecimal(attribute)),
        (None, _) => format!("{}={}", kind.to_id_string(), in_hexadecimal(attribute)),
    }
}

fn short_name(kind: &Oid<'_>) -> Option<&'static str> {
    let kind = kind.to_id_string();
    SHORT_NAMES.iter().find(|(id, _)| *id == kind).map(|(_, name)| *name)
}

/// The value as text, where it is one whose characters are certain.
fn text_of(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    if value.tag() == Tag::BmpString {
        let (units, rest) = value.data.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
        return String::from_utf16(&units).ok().filter(|_| rest.is_empty());
    }
    attribute.as_str().ok().map(str::to_owned)
}

/// `#` and the encoded value: RFC 4514 §2.4 for what has no short name, or is no text.
fn in_hexadecimal(attribute: &AttributeTypeAndValue<'_>) -> String {
    let der = attribute.attr_value().to_der_vec().unwrap_or_default();
    der.iter().fold("#".to_owned(), |text, byte| text + &format!("{byte:02X}"))
}

fn escaped(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let is_special = match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => true,
            b'#' => at == 0,
            b' ' => at == 0 || at == last,
            _ => false,
        };
        match byte {
            _ if is_special => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(attributes: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn read(attributes: &[(DnType, DnValue)]) -> Result<Identity, IdentityError> {
        Identity::read(&certificate(attributes), SystemTime::now())
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.into())
    }

    #[test]
    fn a_subject_is_written_as_rfc_4514_has_it() {
        let unknown = DnType::CustomDnType(vec![1, 2, 3, 4]);
        let unit = DnType::OrganizationalUnitName;
        for (given, written) in [
            (vec![], ""),
            (vec![(DnType::CommonName, utf8("alice"))], "CN=alice"),
            (
                vec![
                    (DnType::CountryName, utf8("DE")),
                    (DnType::OrganizationName, utf8("A, B & Co")),
                    (DnType::CommonName, utf8("alice")),
                ],
                "CN=alice,O=A\\, B & Co,C=DE",
            ),
            (vec![(unit.clone(), utf8(" a;b\"<c>+\\ "))], "OU=\\ a\\;b\\\"\\<c\\>\\+\\\\\\ "),
            (vec![(unit.clone(), utf8("#1#2"))], "OU=\\#1#2"),
            (vec![(unit.clone(), utf8("Jürgen"))], "OU=J\\C3\\BCrgen"),
            (vec![(unit.clone(), utf8("a\r\nX-Admin: 1\0"))], "OU=a\\0D\\0AX-Admin: 1\\00"),
            (
                vec![(unit, DnValue::BmpString("Grüße".try_into().expect("BMP")))],
                "OU=Gr\\C3\\BC\\C3\\9Fe",
            ),
            (vec![(unknown, utf8("Lu"))], "1.2.3.4=#0C024C75"),
        ] {
            assert_eq!(read(&given).expect("an identity").subject(), written);
        }
    }

    #[test]
    fn what_is_too_large_or_no_certificate_is_no_identity() {
        let long = |length: usize| vec![(DnType::CommonName, utf8(&"x".repeat(length)))];
        assert!(read(&long(LONGEST_SUBJECT - 3)).is_ok());
        assert_eq!(read(&long(LONGEST_SUBJECT - 2)), Err(IdentityError::TooLarge));
        let now = SystemTime::now();
        assert_eq!(Identity::read(b"no", now), Err(IdentityError::Malformed));
    }

    #[test]
    fn the_certificate_is_a_byte_sequence_of_rfc_9440() {
        let der = certificate(&[(DnType::CommonName, utf8("alice"))]);
        let identity = Identity::read(&der, SystemTime::now()).expect("an identity");
        let text = identity.certificate.to_str().expect("ASCII");
        let inner = text.strip_prefix(':').and_then(|text| text.strip_suffix(':'));
        assert_eq!(STANDARD.decode(inner.expect("colons around it")).expect("base64"), der);
    }

    proptest! {
        /// Whatever stands in a subject, it stays one printable line from which it can be had back.
        #[test]
        fn any_text_is_safe_in_a_header(text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let shown = escaped(&text);
            prop_assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(!shown.starts_with(' ') && !shown.starts_with('#'));
            prop_assert_eq!(unescaped(&shown), text.as_bytes());
        }
    }

    fn unescaped(text: &str) -> Vec<u8> {
        let bytes = text.as_bytes();
        let (mut out, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let pair = text.get(at + 1..at + 3);
            let pair = pair.filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let pair = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
            let (byte, length) = match (bytes[at], pair) {
                (b'\\', Some(byte)) => (byte, 3),
                (b'\\', None) => (bytes[at + 1], 2),
                (byte, _) => (byte, 1),
            };
            out.push(byte);
            at += length;
        }
        out
    }
}
