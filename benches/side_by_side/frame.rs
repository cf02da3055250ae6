//! WebSocket frames (RFC 6455 §5.2) as far as both ends of the benchmark need them. It is not the
//! proxy's own parser on purpose: a fault shared by both sides would go unnoticed.

use std::io;

/// Opcode of a binary message.
pub(crate) const BINARY: u8 = 0x2;
/// Opcode of a Close frame.
pub(crate) const CLOSE: u8 = 0x8;

/// The mask of everything the clients send. RFC 6455 §5.3 wants an unpredictable one per frame,
/// which protects caches from scripts in browsers; here it would only cost the generator time.
pub(crate) const MASK: [u8; 4] = [0x9e, 0x37, 0x79, 0xb9];

/// The header of one frame. Fragments and extensions do not occur between our own two ends, so
/// [`parse`] refuses what is not a whole message.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) header_bytes: usize,
    pub(crate) payload_bytes: usize,
}

impl Header {
    /// Length of the whole frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }
}

/// Whether a frame that begins with this byte is a Close.
pub(crate) fn is_close(first: u8) -> bool {
    first == 0x80 | CLOSE
}

/// Reads the header at the front of `bytes`, or `None` while bytes are missing.
pub(crate) fn parse(bytes: &[u8]) -> io::Result<Option<Header>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0xf0 != 0x80 {
        return Err(io::Error::other(format!("a frame begins with {first:#04x}: torn or changed")));
    }
    let (payload_bytes, length_bytes) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => {
                let length = usize::try_from(u64::from_be_bytes(*length));
                (length.map_err(io::Error::other)?, 8)
            }
            None => return Ok(None),
        },
        length => (usize::from(length), 0),
    };
    let masked = second & 0x80 != 0;
    let mask = rest[length_bytes..].first_chunk::<4>().copied();
    if masked && mask.is_none() {
        return Ok(None);
    }
    Ok(Some(Header {
        opcode: first & 0x0f,
        mask: mask.filter(|_| masked),
        header_bytes: 2 + length_bytes + if masked { 4 } else { 0 },
        payload_bytes,
    }))
}

/// A whole frame as a client sends it, masked with [`MASK`].
pub(crate) fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    write_header(&mut frame, opcode, 0x80, payload.len());
    frame.extend_from_slice(&MASK);
    let start = frame.len();
    frame.extend_from_slice(payload);
    apply_mask(&mut frame[start..], MASK);
    frame
}

/// Appends a whole frame to `out` as a server sends it, unmasked.
pub(crate) fn append_from_server(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    write_header(out, opcode, 0, payload.len());
    out.extend_from_slice(payload);
}

/// Masks or unmasks `bytes`, which must begin where the payload begins.
pub(crate) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let word = u32::from_ne_bytes(mask);
    let wide = u64::from(word) << 32 | u64::from(word);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn write_header(out: &mut Vec<u8>, opcode: u8, mask_bit: u8, payload_bytes: usize) {
    out.push(0x80 | opcode);
    match payload_bytes {
        length @ 0..126 => out.push(mask_bit | length as u8),
        length @ 126..65536 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}
