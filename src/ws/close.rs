//! Close frames (RFC 6455 §5.5.1): what a peer says in one, and the ones we send ourselves.

use super::frame::{FrameHeader, Opcode, mask};
use super::tracker::Masking;

/// Why a session ends, as a number (RFC 6455 §7.4.1; 1014 is in IANA's registry of close codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// 1001: a peer, or the proxy, goes away.
    GoingAway,
    /// 1002: RFC 6455 was violated.
    ProtocolError,
    /// 1008: a rule of the operator was violated.
    PolicyViolation,
    /// 1009: a message is too big.
    TooBig,
    /// 1011: the fault is ours.
    InternalError,
    /// 1014: the upstream was lost, or talks nonsense.
    BadGateway,
    /// 1012: the session may be opened anew.
    ServiceRestart,
    /// What an operator chose.
    Chosen(ChosenCode),
}

/// A code that a Close may have (RFC 6455 §7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChosenCode(u16);

impl CloseCode {
    /// A code by its number; `None` for one that no Close may have: below 1000, reserved for what
    /// never stands in a frame (1004 to 1006, 1015), or not given out yet.
    pub fn new(number: u16) -> Option<Self> {
        matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999)
            .then_some(Self::Chosen(ChosenCode(number)))
    }

    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::ProtocolError => 1002,
            Self::PolicyViolation => 1008,
            Self::TooBig => 1009,
            Self::InternalError => 1011,
            Self::BadGateway => 1014,
            Self::ServiceRestart => 1012,
            Self::Chosen(ChosenCode(number)) => number,
        }
    }
}

/// What a peer said in its Close.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// The code; `None` where there was none, which an application sees as 1005.
    pub code: Option<u16>,
    /// The reason; what is no UTF-8 in it is replaced.
    pub reason: String,
}

impl Said {
    /// Reads the payload of a Close, unmasked.
    pub fn read(payload: &[u8]) -> Self {
        match payload.split_first_chunk::<2>() {
            Some((code, reason)) => Self {
                code: Some(u16::from_be_bytes(*code)),
                reason: String::from_utf8_lossy(reason).into_owned(),
            },
            None => Self::default(),
        }
    }
}

/// The most bytes of payload a control frame has (RFC 6455 §5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// The most bytes of a reason in a Close, behind its code.
pub const MAX_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

/// A Close frame. Of a `reason` that is too long, its beginning is sent. `key` is drawn afresh for
/// every frame where they are masked (RFC 6455 §5.3).
pub fn close_frame(code: CloseCode, reason: &str, masking: Masking, key: [u8; 4]) -> Vec<u8> {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let payload = [&code.number().to_be_bytes(), &reason.as_bytes()[..end]].concat();
    control_frame(Opcode::Close, &payload, masking, key)
}

/// A control frame with `payload`, 125 bytes at the most.
pub fn control_frame(opcode: Opcode, payload: &[u8], masking: Masking, key: [u8; 4]) -> Vec<u8> {
    let mask_key = match masking {
        Masking::Required => Some(key),
        Masking::Forbidden => None,
    };
    let payload_len = payload.len() as u64;
    let header = FrameHeader { fin: true, reserved: 0, opcode, mask: mask_key, payload_len };
    let mut frame = Vec::with_capacity(header.len() + payload.len());
    header.write(&mut frame);
    let at = frame.len();
    frame.extend_from_slice(payload);
    if let Some(key) = mask_key {
        mask(key, 0, &mut frame[at..]);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_say_can_be_read() {
        for masking in [Masking::Required, Masking::Forbidden] {
            let frame = close_frame(CloseCode::GoingAway, "idle", masking, [1, 2, 3, 4]);
            let (header, len) = FrameHeader::parse(&frame).expect("a frame").expect("whole");
            assert_eq!((header.opcode, header.fin, header.reserved), (Opcode::Close, true, 0));
            assert_eq!(header.mask.is_some(), masking == Masking::Required);
            let payload = header.unmasked(&frame[len..]);
            let said = Said { code: Some(1001), reason: "idle".into() };
            assert_eq!(Said::read(&payload), said);
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ü".repeat(100);
        let frame = close_frame(CloseCode::TooBig, &reason, Masking::Forbidden, [0; 4]);
        let said = Said::read(&frame[2..]);
        assert_eq!((said.code, said.reason), (Some(1009), "ü".repeat(61)));
    }

    #[test]
    fn a_close_may_say_nothing() {
        assert_eq!(Said::read(b""), Said::default());
        let said = Said { code: Some(1000), reason: String::new() };
        assert_eq!(Said::read(&1000u16.to_be_bytes()), said);
        assert_eq!(Said::read(b"\x03\xe8\xff").reason, "\u{fffd}");
    }
}
