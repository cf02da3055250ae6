//! Frame headers (RFC 6455 §5.2): read from the front of a buffer, and written.

use std::borrow::Cow;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message before.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The closing handshake (§5.5.1).
    Close,
    /// Is anybody there (§5.5.2).
    Ping,
    /// Yes (§5.5.3).
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Self, FrameError> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xA => Ok(Self::Pong),
            other => Err(FrameError::ReservedOpcode(other)),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Its name in RFC 6455 §11.8, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
        }
    }

    /// Whether it is a control frame, which may stand between the fragments of a message (§5.5).
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::len_without_is_empty, reason = "no header is empty")]
pub struct FrameHeader {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// RSV1 to RSV3 as the lowest three bits, RSV1 the highest of them; extensions use them.
    pub reserved: u8,
    /// What the frame carries.
    pub opcode: Opcode,
    /// The key its payload is masked with; every frame of a client has one, none of a server's.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow.
    pub payload_len: u64,
}

/// What no frame may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// §5.2: opcodes 3 to 7 and 11 to 15 mean nothing yet.
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    /// §5.5: a control frame is never fragmented.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// §5.5: a control frame has at most 125 bytes.
    #[error("a control frame has a payload of more than 125 bytes")]
    LongControl,
    /// §5.2: the highest bit of a length of 64 bits is 0.
    #[error("a payload length has its highest bit set")]
    HugeLength,
}

/// The longest header there is.
pub const MAX_HEADER_BYTES: usize = 14;

impl FrameHeader {
    /// Reads the header at the front of `bytes` and returns it with its length, 2 to 14 bytes, or
    /// `None` while bytes are missing.
    ///
    /// # Errors
    ///
    /// [`FrameError`] for a reserved opcode, a bad control frame, or a length beyond 63 bits.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let [first, rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::from_bits(first & 0x0F)?;
        let fin = first & 0x80 != 0;
        let [second, rest @ ..] = rest else { return Ok(None) };
        let short = second & 0x7F;
        if opcode.is_control() {
            if !fin {
                return Err(FrameError::FragmentedControl);
            }
            if short > 125 {
                return Err(FrameError::LongControl);
            }
        }
        let (payload_len, rest) = match short {
            126 => match rest.split_first_chunk::<2>() {
                Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((len, rest)) => (u64::from_be_bytes(*len), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        if payload_len >> 63 != 0 {
            return Err(FrameError::HugeLength);
        }
        let (mask, rest) = match (second & 0x80 != 0, rest.split_first_chunk::<4>()) {
            (false, _) => (None, rest),
            (true, Some((key, rest))) => (Some(*key), rest),
            (true, None) => return Ok(None),
        };
        let header = Self { fin, reserved: (first >> 4) & 0x07, opcode, mask, payload_len };
        Ok(Some((header, bytes.len() - rest.len())))
    }

    /// How long it is when its length is written in the shortest form (§5.2): 2 to 14 bytes.
    pub fn len(&self) -> usize {
        let length_bytes = match self.payload_len {
            0..126 => 0,
            126..0x1_0000 => 2,
            0x1_0000.. => 8,
        };
        2 + length_bytes + if self.mask.is_some() { 4 } else { 0 }
    }

    /// The beginning of its payload as it was meant (§5.3), from how it stands on the wire.
    pub fn unmasked<'p>(&self, payload: &'p [u8]) -> Cow<'p, [u8]> {
        match self.mask {
            Some(key) => {
                let mut payload = payload.to_vec();
                mask(key, 0, &mut payload);
                payload.into()
            }
            None => payload.into(),
        }
    }

    /// Appends the header to `out`, its length in the shortest form (§5.2).
    pub fn write(&self, out: &mut Vec<u8>) {
        let fin = if self.fin { 0x80 } else { 0 };
        out.push(fin | (self.reserved & 0x07) << 4 | self.opcode.bits());
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        match (u8::try_from(self.payload_len), u16::try_from(self.payload_len)) {
            (Ok(len), _) if len < 126 => out.push(masked | len),
            (_, Ok(len)) => {
                out.push(masked | 126);
                out.extend_from_slice(&len.to_be_bytes());
            }
            (_, Err(_)) => {
                out.push(masked | 127);
                out.extend_from_slice(&self.payload_len.to_be_bytes());
            }
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

/// Masks or unmasks `payload` (§5.3), whose first byte is at `offset` within the frame's payload.
pub fn mask(key: [u8; 4], offset: u64, payload: &mut [u8]) {
    let mut key = key;
    // The remainder is below 4.
    key.rotate_left((offset % 4) as usize);
    for chunk in payload.chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame as oracle;

    use super::*;

    fn header() -> impl Strategy<Value = FrameHeader> {
        let opcode = prop_oneof![
            Just(Opcode::Continuation),
            Just(Opcode::Text),
            Just(Opcode::Binary),
            Just(Opcode::Close),
            Just(Opcode::Ping),
            Just(Opcode::Pong),
        ];
        let len = prop_oneof![0..200u64, 65_500..65_600u64, 0..u64::MAX >> 1];
        (any::<bool>(), 0..8u8, opcode, any::<Option<[u8; 4]>>(), len).prop_map(
            |(fin, reserved, opcode, mask, len)| {
                let is_control = opcode.is_control();
                FrameHeader {
                    fin: fin || is_control,
                    reserved,
                    opcode,
                    mask,
                    payload_len: if is_control { len % 126 } else { len },
                }
            },
        )
    }

    proptest! {
        /// Whatever is written is read again, from every prefix on only when it is whole.
        #[test]
        fn a_header_survives_writing_and_reading(header in header()) {
            let mut bytes = Vec::new();
            header.write(&mut bytes);
            prop_assert_eq!(bytes.len(), header.len());
            prop_assert!(bytes.len() <= MAX_HEADER_BYTES);
            for end in 0..bytes.len() {
                prop_assert_eq!(FrameHeader::parse(&bytes[..end]), Ok(None));
            }
            bytes.extend_from_slice(b"payload");
            prop_assert_eq!(FrameHeader::parse(&bytes), Ok(Some((header, bytes.len() - 7))));
        }

        /// Any bytes at all are read as tungstenite reads them.
        #[test]
        fn any_bytes_are_read_as_the_oracle_reads_them(
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let ours = FrameHeader::parse(&bytes);
            let theirs = oracle::FrameHeader::parse(&mut std::io::Cursor::new(&bytes));
            if let (Ok(Some((ours, _))), Ok(Some((theirs, len)))) = (&ours, &theirs) {
                prop_assert_eq!(ours.fin, theirs.is_final);
                prop_assert_eq!(ours.reserved & 4 != 0, theirs.rsv1);
                prop_assert_eq!(ours.mask, theirs.mask);
                prop_assert_eq!(ours.opcode.bits(), u8::from(theirs.opcode));
                prop_assert_eq!(ours.payload_len, *len);
            }
            prop_assert_eq!(
                matches!(ours, Ok(None)) && bytes.len() >= MAX_HEADER_BYTES, false
            );
        }

        /// A payload may be unmasked in pieces of any length.
        #[test]
        fn masking_in_pieces_is_masking_at_once(
            key in any::<[u8; 4]>(),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
            at in 0..64usize,
        ) {
            let at = at.min(payload.len());
            let mut whole = payload.clone();
            mask(key, 0, &mut whole);
            let mut pieces = payload.clone();
            let (front, back) = pieces.split_at_mut(at);
            mask(key, 0, front);
            mask(key, at as u64, back);
            prop_assert_eq!(&whole, &pieces);
            mask(key, 0, &mut whole);
            prop_assert_eq!(whole, payload);
        }
    }

    #[test]
    fn bad_headers_are_refused() {
        for (bytes, error) in [
            ([0x83, 0x00].as_slice(), FrameError::ReservedOpcode(3)),
            (&[0x09, 0x00], FrameError::FragmentedControl),
            (&[0x89, 0x7E], FrameError::LongControl),
            (&[0x82, 0x7F, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::HugeLength),
        ] {
            assert_eq!(FrameHeader::parse(bytes), Err(error));
        }
    }
}
