//! Any bytes at all are read as the header that tungstenite reads, and written as they were if
//! their length was in the shortest form.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tidegate::ws::frame::{FrameError, FrameHeader};
use tungstenite::protocol::frame as oracle;

fuzz_target!(|bytes: &[u8]| {
    let mut cursor = Cursor::new(bytes);
    let theirs = oracle::FrameHeader::parse(&mut cursor);
    match (FrameHeader::parse(bytes), theirs) {
        (Ok(Some((ours, len))), Ok(Some((theirs, payload_len)))) => {
            assert_eq!((len as u64, ours.payload_len), (cursor.position(), payload_len));
            assert_eq!((ours.fin, ours.mask), (theirs.is_final, theirs.mask));
            let mut written = Vec::new();
            ours.write(&mut written);
            assert!(written.len() <= len && written[0] == bytes[0]);
            assert!(written.len() < len || bytes.starts_with(&written));
            assert_eq!(FrameHeader::parse(&written), Ok(Some((ours, ours.len()))));
        }
        (Ok(None), Ok(None)) => assert!(bytes.len() < 14),
        // What is wrong is said as soon as it shows, and some of it is not the oracle's business.
        (Err(FrameError::ReservedOpcode(_)), Ok(None) | Err(_)) => {}
        (Err(FrameError::FragmentedControl), Ok(_)) => assert_eq!(bytes[0] & 0x88, 0x08),
        (Err(FrameError::LongControl), Ok(_)) => {
            assert!(bytes[0] & 0x08 != 0 && bytes[1] & 0x7E == 0x7E)
        }
        (Err(FrameError::HugeLength), Ok(_)) => assert!(bytes[1] & 0x7F == 127 && bytes[2] >= 0x80),
        (ours, theirs) => panic!("{ours:?}, but {theirs:?}"),
    }
});
