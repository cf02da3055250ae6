//! Any bytes at all, as the front of a connection: what is said of them is said as soon as it is
//! certain, holds whatever comes behind, and is what a header of ours says as well.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::listener::proxy_protocol::{Header, LONGEST, Parsed, Version, encode, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let mut said = None;
    for end in 0..=bytes.len() {
        let now = parse(&bytes[..end]);
        if said.is_none() && now != Ok(Parsed::Incomplete) {
            said = Some(now);
            if let Ok(Parsed::Complete(_, len)) = now {
                assert_eq!(len, end, "read beyond its end, or not to it");
            }
        }
        assert_eq!(now, said.unwrap_or(Ok(Parsed::Incomplete)));
    }
    assert_eq!(whole, said.unwrap_or(Ok(Parsed::Incomplete)));
    match whole {
        Ok(Parsed::Complete(header, len)) => {
            assert!(len <= LONGEST);
            let again = encode(Version::V2, header);
            assert_eq!(parse(&again), Ok(Parsed::Complete(header, again.len())));
            let line = encode(Version::V1, header);
            let told = match header {
                Header::Proxied(of) if of.client.is_ipv4() != of.destination.is_ipv4() => {
                    Header::Unknown
                }
                Header::Local => Header::Unknown,
                header => header,
            };
            assert!(line.len() <= 107);
            assert_eq!(parse(&line), Ok(Parsed::Complete(told, line.len())));
        }
        // There is nothing to wait for in what can be no header any more.
        Ok(Parsed::Incomplete) => assert!(bytes.len() < LONGEST),
        Ok(Parsed::Absent) | Err(_) => {}
    }
});
