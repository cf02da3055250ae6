//! Follows the frames of one direction of a session (RFC 6455 §5): where the next one begins, what
//! has just come, and whether a control frame may be put here. It never looks at payload, except
//! for the whole of a control frame, and keeps no bytes: what is not a whole header or a whole
//! control frame yet is to be given again, with what comes after it.

use super::frame::{FrameError, FrameHeader, Opcode};

/// Which frames of a direction are masked (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masking {
    /// All of a client's.
    Required,
    /// None of a server's.
    Forbidden,
}

/// How much is made of a peer's slips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// What does not hide where the next frame begins is let pass.
    Lenient,
    /// Everything of RFC 6455 §5 that a header shows is a violation.
    Strict,
}

/// What went through one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages that are through, whole.
    pub messages: u64,
    /// Frames of messages that came in more than one.
    pub fragments: u64,
    /// Pings.
    pub pings: u64,
    /// Pongs.
    pub pongs: u64,
}

/// The state of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracker {
    /// Payload of the frame in flight that is still to come.
    payload_left: u64,
    /// Payload of the message in flight, by the headers that have passed.
    message_bytes: u64,
    counts: Counts,
    /// The RSV bits that extensions gave a meaning to.
    meaningful: u8,
    masking: Masking,
    strictness: Strictness,
    /// Whether a message waits for its continuation.
    is_in_message: bool,
    /// Whether a message ends with the frame in flight.
    is_last: bool,
    has_closed: bool,
    is_counting: bool,
}

// There are two for every session.
const _: () = assert!(size_of::<Tracker>() <= 64);

/// What is at the front of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'b> {
    /// So many bytes of the payload of the frame in flight, at least one.
    Payload(usize),
    /// The header of a data frame, of `len` bytes.
    Data {
        /// What it says.
        header: FrameHeader,
        /// Its length.
        len: usize,
        /// Payload of its message up to the end of this frame.
        message_bytes: u64,
    },
    /// A control frame, all of it, `len` bytes.
    Control {
        /// What its header says.
        header: FrameHeader,
        /// Its payload as it stands there, masked or not.
        payload: &'b [u8],
        /// Header and payload.
        len: usize,
    },
    /// Part of a header or of a control frame, or nothing: give it again when there is more.
    Missing,
}

impl Step<'_> {
    /// How many bytes it is about.
    pub fn len(&self) -> usize {
        match *self {
            Self::Payload(len) | Self::Data { len, .. } | Self::Control { len, .. } => len,
            Self::Missing => 0,
        }
    }

    /// Whether it is about no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a peer did that RFC 6455 §5 forbids, as far as a header shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The header by itself is none.
    #[error(transparent)]
    Header(#[from] FrameError),
    /// §5.2: an RSV bit that no extension gave a meaning to.
    #[error("a reserved bit is set, and no extension was agreed on that uses it")]
    ReservedBit,
    /// §5.1
    #[error("a frame of the client is not masked")]
    Unmasked,
    /// §5.1
    #[error("a frame of the server is masked")]
    Masked,
    /// §5.2: a length in more bytes than it takes.
    #[error("a payload length is written in more bytes than it takes")]
    LongForm,
    /// §5.4
    #[error("a continuation of no message")]
    NothingToContinue,
    /// §5.4
    #[error("a message begins before the last one has ended")]
    Interleaved,
    /// §5.5.1: a Close has no payload, or one that begins with two bytes of code.
    #[error("a Close has half a code")]
    HalfCode,
}

impl Tracker {
    /// A direction at its beginning. `meaningful` has the RSV bits that were negotiated, in the
    /// places of [`FrameHeader::reserved`].
    pub fn new(masking: Masking, strictness: Strictness, meaningful: u8) -> Self {
        Self {
            payload_left: 0,
            message_bytes: 0,
            counts: Counts::default(),
            meaningful,
            masking,
            strictness,
            is_in_message: false,
            is_last: false,
            has_closed: false,
            is_counting: true,
        }
    }

    /// What went through so far, until [`Tracker::stop_counting`].
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether a frame has just ended, or none has begun: here, and between the fragments of a
    /// message as well, a control frame may be put (RFC 6455 §5.4).
    pub fn is_at_boundary(&self) -> bool {
        self.payload_left == 0
    }

    /// What is passed from here on goes nowhere, and does not count.
    pub fn stop_counting(&mut self) {
        self.is_counting = false;
    }

    /// Whether a Close was passed: what follows is to be discarded by whoever gets it (RFC 6455
    /// §1.4), and means nothing.
    pub fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Whether everything that a header shows is checked.
    pub fn is_strict(&self) -> bool {
        self.strictness == Strictness::Strict
    }

    /// Whether a message has begun and its last frame has not.
    pub fn is_in_message(&self) -> bool {
        self.is_in_message
    }

    /// What is at the front of `bytes`, which follow on everything that has been passed.
    ///
    /// # Errors
    ///
    /// [`Violation`]; where the next frame begins is then unknown, or nobody's business.
    pub fn look<'b>(&self, bytes: &'b [u8]) -> Result<Step<'b>, Violation> {
        if self.payload_left > 0 && !bytes.is_empty() {
            let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
            return Ok(Step::Payload(left.min(bytes.len())));
        }
        let Some((header, len)) = FrameHeader::parse(bytes)? else { return Ok(Step::Missing) };
        self.check(&header, len)?;
        if !header.opcode.is_control() {
            let message_bytes = self.message_bytes.saturating_add(header.payload_len);
            return Ok(Step::Data { header, len, message_bytes });
        }
        // 125 at the most, or it would not be a header.
        let end = len + header.payload_len as usize;
        Ok(match bytes.get(len..end) {
            Some(payload) => Step::Control { header, payload, len: end },
            None => Step::Missing,
        })
    }

    fn check(&self, header: &FrameHeader, len: usize) -> Result<(), Violation> {
        if header.reserved & !self.meaningful != 0 {
            return Err(Violation::ReservedBit);
        }
        match (self.masking, header.mask) {
            (Masking::Required, None) => return Err(Violation::Unmasked),
            (Masking::Forbidden, Some(_)) => return Err(Violation::Masked),
            (Masking::Required, Some(_)) | (Masking::Forbidden, None) => {}
        }
        if self.strictness == Strictness::Strict && len != header.len() {
            return Err(Violation::LongForm);
        }
        match header.opcode {
            Opcode::Continuation if !self.is_in_message => Err(Violation::NothingToContinue),
            Opcode::Text | Opcode::Binary if self.is_in_message => Err(Violation::Interleaved),
            Opcode::Close if header.payload_len == 1 => Err(Violation::HalfCode),
            _ => Ok(()),
        }
    }

    /// Moves on behind what [`Tracker::look`] saw.
    pub fn pass(&mut self, step: &Step<'_>) {
        match step {
            Step::Payload(len) => {
                self.payload_left = self.payload_left.saturating_sub(*len as u64);
            }
            Step::Data { header, message_bytes, .. } => {
                self.payload_left = header.payload_len;
                self.message_bytes = if header.fin { 0 } else { *message_bytes };
                self.is_in_message = !header.fin;
                self.is_last = header.fin;
                let is_fragment = !header.fin || header.opcode == Opcode::Continuation;
                self.counts.fragments += u64::from(is_fragment && self.is_counting);
            }
            Step::Control { header, .. } => {
                match header.opcode {
                    Opcode::Ping => self.counts.pings += u64::from(self.is_counting),
                    Opcode::Pong => self.counts.pongs += u64::from(self.is_counting),
                    Opcode::Close => self.has_closed = true,
                    Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
                }
                return;
            }
            Step::Missing => return,
        }
        if self.payload_left == 0 && self.is_last {
            self.counts.messages += u64::from(self.is_counting);
            self.is_last = false;
        }
    }
}
