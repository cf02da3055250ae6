//! Writes one flat JSON object into a buffer, member by member. A line of the access log is one,
//! for every request; a general serialiser takes several times as long over it, most of that for
//! names that never need an escape. No I/O.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::digits;

/// A member's name as it is written, in front of its value.
macro_rules! name {
    ($name:literal) => {
        concat!("\"", $name, "\":")
    };
}
pub(super) use name;

/// An object that is being written. A member that is `None` is left out. The names are made by
/// [`name!`].
#[derive(Debug)]
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    /// Begins an object at the end of `out`.
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    /// Ends it.
    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    fn name(&mut self, name: &'static str) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        self.out.extend_from_slice(name.as_bytes());
    }

    /// A text, whatever is in it.
    pub(super) fn text<'t>(&mut self, name: &'static str, text: impl Into<Option<&'t str>>) {
        let Some(text) = text.into() else { return };
        self.name(name);
        if needs_escape(text) {
            // Text, into memory: nothing in it can fail.
            let _ = serde_json::to_writer(&mut *self.out, text);
        } else {
            self.out.push(b'"');
            self.out.extend_from_slice(text.as_bytes());
            self.out.push(b'"');
        }
    }

    /// A number.
    pub(super) fn number(&mut self, name: &'static str, number: impl Into<Option<u64>>) {
        let Some(number) = number.into() else { return };
        self.name(name);
        digits::push_number(self.out, number);
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, name: &'static str, flag: impl Into<Option<bool>>) {
        let Some(flag) = flag.into() else { return };
        self.name(name);
        self.out.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    /// A number as 16 hexadecimal digits.
    pub(super) fn hex(&mut self, name: &'static str, number: u64) {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(&digits::hex(number));
        self.out.push(b'"');
    }

    /// An address.
    pub(super) fn address(&mut self, name: &'static str, address: SocketAddr) {
        self.name(name);
        self.out.push(b'"');
        match address {
            SocketAddr::V4(address) => {
                digits::push_ipv4(self.out, *address.ip());
                self.out.push(b':');
                digits::push_number(self.out, address.port().into());
            }
            // Into memory, as above.
            SocketAddr::V6(address) => drop(write!(self.out, "{address}")),
        }
        self.out.push(b'"');
    }

    /// Milliseconds with up to three digits behind the point, and one at least.
    pub(super) fn millis(&mut self, name: &'static str, took: impl Into<Option<Duration>>) {
        let Some(took) = took.into() else { return };
        self.name(name);
        let micros = u64::try_from((took.as_nanos() + 500) / 1000).unwrap_or(u64::MAX);
        digits::push_number(self.out, micros / 1000);
        let behind = digits::four(micros % 1000);
        let len = match behind {
            [.., b'0', b'0'] => 1,
            [.., b'0'] => 2,
            _ => 3,
        };
        self.out.push(b'.');
        self.out.extend_from_slice(&behind[1..=len]);
    }
}

/// Whether JSON has some byte of `text` otherwise than as it is (RFC 8259 §7).
fn needs_escape(text: &str) -> bool {
    // Every byte is looked at, since that is done many at a time.
    let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    text.bytes().fold(false, |needs, byte| needs | is_special(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn written(write: impl FnOnce(&mut Object<'_>)) -> Value {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        write(&mut object);
        object.end();
        serde_json::from_slice(&out).expect("an object")
    }

    #[test]
    fn an_object_is_written_member_by_member() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let object = written(|object| {
            object.text(name!("absent"), None);
            object.text(name!("text"), "a");
            object.number(name!("number"), 10);
            object.number(name!("none"), None);
            object.flag(name!("flag"), true);
            object.hex(name!("id"), 0xab);
            object.address(name!("v4"), address("192.0.2.10:443"));
            object.address(name!("v6"), address("[2001:db8::1]:80"));
            object.millis(name!("took"), Duration::from_micros(1_050));
        });
        let expected = json!({
            "text": "a", "number": 10, "flag": true, "id": "00000000000000ab",
            "v4": "192.0.2.10:443", "v6": "[2001:db8::1]:80", "took": 1.05,
        });
        assert_eq!(object, expected);
        assert_eq!(written(|_| {}), json!({}));
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_it_was(text in any::<String>(), control in "[\\x00-\\x7f]*") {
            for text in [&text, &control] {
                prop_assert_eq!(written(|object| object.text(name!("t"), text.as_str())), json!({ "t": text }));
            }
        }

        /// As it would be written as a number with a point.
        #[test]
        fn a_time_is_a_number_of_milliseconds(nanos in 0..u64::MAX / 1000) {
            let took = Duration::from_nanos(nanos);
            let millis = (took.as_secs_f64() * 1e6).round() / 1e3;
            let object = written(|object| object.millis(name!("took"), took));
            let shown = object["took"].as_f64().expect("a number");
            prop_assert!((shown - millis).abs() <= 0.001 + millis * 1e-15, "{} {}", shown, millis);
        }
    }
}
