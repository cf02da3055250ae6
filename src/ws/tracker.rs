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

    /// Moves on by as many of the next `len` bytes as are payload of the frame in flight, and says
    /// how many that are; `None` if there is none in flight.
    #[inline]
    pub fn payload(&mut self, len: usize) -> Option<usize> {
        if self.payload_left == 0 {
            return None;
        }
        let len = usize::try_from(self.payload_left).map_or(len, |left| left.min(len));
        self.pass(&Step::Payload(len));
        Some(len)
    }

    /// What is at the front of `bytes`, which follow on everything that has been passed.
    ///
    /// # Errors
    ///
    /// [`Violation`]; where the next frame begins is then unknown, or nobody's business.
    #[inline]
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

    #[inline]
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
    #[inline]
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
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame as oracle;

    use super::*;
    use crate::ws::speech::{Speech, cuts, manners, speech};

    /// What a tracker saw.
    #[derive(Debug, PartialEq)]
    struct Seen {
        /// The headers, and where they stand.
        headers: Vec<(usize, FrameHeader, usize)>,
        /// How far it came.
        at: usize,
        violation: Option<Violation>,
        tracker: Tracker,
    }

    /// Has a tracker follow `bytes` that come in pieces. `passed` is told of every place that it
    /// comes to.
    fn follow(
        mut tracker: Tracker,
        bytes: &[u8],
        cuts: &[usize],
        mut passed: impl FnMut(usize, &Step<'_>, &Tracker),
    ) -> Seen {
        let (mut headers, mut at, mut come) = (Vec::new(), 0, 0);
        let mut cuts = cuts.iter().cycle();
        let violation = loop {
            match tracker.look(&bytes[at..come]) {
                Ok(Step::Missing) if come == bytes.len() => break None,
                Ok(Step::Missing) => {
                    let cut = *cuts.next().expect("there are cuts");
                    come = come.saturating_add(cut).min(bytes.len());
                }
                Ok(step) => {
                    assert!(!step.is_empty() && at + step.len() <= come, "{step:?} at {at}");
                    if let Step::Data { header, len, .. } = step {
                        headers.push((at, header, len));
                    }
                    if let Step::Control { header, payload, len } = step {
                        headers.push((at, header, len - payload.len()));
                        assert!(bytes[..at + len].ends_with(payload));
                    }
                    tracker.pass(&step);
                    at += step.len();
                    passed(at, &step, &tracker);
                }
                Err(violation) => break Some(violation),
            }
        };
        Seen { headers, at, violation, tracker }
    }

    /// What the oracle makes of the header at the front of `bytes`.
    fn as_the_oracle_reads_it(bytes: &[u8]) -> Option<(FrameHeader, usize)> {
        let mut cursor = Cursor::new(bytes);
        let (theirs, payload_len) = oracle::FrameHeader::parse(&mut cursor).ok()??;
        let opcode = match u8::from(theirs.opcode) {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            _ => Opcode::Pong,
        };
        let bit = u8::from;
        let reserved = bit(theirs.rsv1) << 2 | bit(theirs.rsv2) << 1 | bit(theirs.rsv3);
        let (fin, mask) = (theirs.is_final, theirs.mask);
        let header = FrameHeader { fin, reserved, opcode, mask, payload_len };
        Some((header, cursor.position() as usize))
    }

    fn count(speech: &Speech, matches: impl Fn(&FrameHeader) -> bool) -> u64 {
        speech.frames.iter().filter(|frame| matches(&frame.header)).count() as u64
    }

    fn tracker_and_speech() -> impl Strategy<Value = (Tracker, Speech)> {
        manners().prop_flat_map(|(masking, strictness, meaningful)| {
            let tracker = Tracker::new(masking, strictness, meaningful);
            (Just(tracker), speech(masking, strictness, meaningful))
        })
    }

    /// Bytes that are almost right, or not at all.
    fn nonsense() -> impl Strategy<Value = Vec<u8>> {
        let slips = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        let almost = (tracker_and_speech(), slips).prop_map(|((_, speech), slips)| {
            let mut bytes = speech.bytes;
            for (at, value) in slips {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
            }
            bytes
        });
        let few = prop_oneof![Just(0x00u8), Just(0x02), Just(0x80), Just(0x81), Just(0x89)];
        prop_oneof![3 => almost, 1 => vec(few, 0..40), 1 => vec(any::<u8>(), 0..40)]
    }

    proptest! {
        /// Frame by frame, every header is what the oracle reads there, and between the frames,
        /// and only there, a frame could be put.
        #[test]
        fn frames_are_followed_as_the_oracle_reads_them(
            (tracker, speech) in tracker_and_speech(),
            cuts in cuts(),
        ) {
            let mut payload = 0;
            let seen = follow(tracker, &speech.bytes, &cuts, |at, step, tracker| {
                let is_between = speech.boundary_from(at) == at;
                assert_eq!(tracker.is_at_boundary(), is_between, "at {at}, behind {step:?}");
                payload += if let Step::Payload(len) = step { *len } else { 0 };
            });
            prop_assert_eq!((seen.violation, seen.at), (None, speech.bytes.len()));
            prop_assert_eq!(seen.headers.len(), speech.frames.len());
            for ((at, header, len), frame) in seen.headers.iter().zip(&speech.frames) {
                prop_assert_eq!((*at, at + len), (frame.start, frame.payload));
                let theirs = as_the_oracle_reads_it(&speech.bytes[*at..]);
                prop_assert_eq!(theirs, Some((*header, *len)));
            }
            let data = speech.frames.iter().filter(|frame| !frame.header.opcode.is_control());
            prop_assert_eq!(payload, data.map(|frame| frame.end - frame.payload).sum::<usize>());
        }

        #[test]
        fn what_went_through_is_counted(
            (tracker, speech) in tracker_and_speech(),
            cuts in cuts(),
        ) {
            let is_data = |header: &FrameHeader| !header.opcode.is_control();
            let expected = Counts {
                messages: count(&speech, |header| is_data(header) && header.fin),
                fragments: count(&speech, |header| {
                    is_data(header) && !(header.fin && header.opcode != Opcode::Continuation)
                }),
                pings: count(&speech, |header| header.opcode == Opcode::Ping),
                pongs: count(&speech, |header| header.opcode == Opcode::Pong),
            };
            let seen = follow(tracker, &speech.bytes, &cuts, |_, _, _| {});
            prop_assert_eq!(seen.tracker.counts(), expected);
        }

        /// A message is counted with its last byte, and is as big as its frames so far.
        #[test]
        fn a_message_grows_by_its_frames(
            (tracker, speech) in tracker_and_speech(),
            cuts in cuts(),
        ) {
            let (mut expected, mut messages) = (0, 0);
            follow(tracker, &speech.bytes, &cuts, |at, step, tracker| {
                let frame = speech.frames[speech.number_at(at - 1)];
                if let Step::Data { header, message_bytes, .. } = step {
                    expected += header.payload_len;
                    assert_eq!(*message_bytes, expected);
                    expected = if header.fin { 0 } else { expected };
                }
                let is_message = frame.header.fin && !frame.header.opcode.is_control();
                messages += u64::from(is_message && at == frame.end);
                assert_eq!(tracker.counts().messages, messages, "at {at}");
            });
        }

        /// Nothing panics, and what is wrong is wrong in the same place however it comes.
        #[test]
        fn any_bytes_are_followed_as_far_in_pieces_as_at_once(
            (masking, strictness, meaningful) in manners(),
            bytes in nonsense(),
            cuts in cuts(),
        ) {
            let tracker = Tracker::new(masking, strictness, meaningful);
            let at_once = follow(tracker.clone(), &bytes, &[usize::MAX], |_, _, _| {});
            let in_pieces = follow(tracker, &bytes, &cuts, |_, _, _| {});
            for (at, header, len) in &at_once.headers {
                prop_assert_eq!(as_the_oracle_reads_it(&bytes[*at..]), Some((*header, *len)));
            }
            prop_assert_eq!(at_once, in_pieces);
        }
    }

    /// Every violation shows with the last of these bytes, not before and not otherwise later.
    #[test]
    fn every_violation_is_found_with_the_byte_that_shows_it() {
        use FrameError::{FragmentedControl, HugeLength, LongControl, ReservedOpcode};
        use Masking::{Forbidden, Required};
        for (violation, masking, bytes) in [
            (Violation::Header(ReservedOpcode(3)), Forbidden, b"\x83".as_slice()),
            (Violation::Header(ReservedOpcode(15)), Forbidden, b"\x81\x01a\x8f"),
            (Violation::Header(FragmentedControl), Required, b"\x09\x80"),
            (Violation::Header(LongControl), Forbidden, b"\x8a\x7e"),
            (Violation::Header(LongControl), Forbidden, b"\x88\x7f"),
            (Violation::Header(HugeLength), Forbidden, b"\x82\x7f\x80\0\0\0\0\0\0\0"),
            (Violation::Header(HugeLength), Required, b"\x82\xff\xff\0\0\0\0\0\0\0"),
            (Violation::ReservedBit, Forbidden, b"\xa1\x00"),
            (Violation::ReservedBit, Required, b"\x99\x80key!"),
            (Violation::Unmasked, Required, b"\x81\x00"),
            (Violation::Unmasked, Required, b"\x89\x80key!\x8a\x05"),
            (Violation::Masked, Forbidden, b"\x89\x85key!"),
            (Violation::LongForm, Forbidden, b"\x82\x7e\x00\x7d"),
            (Violation::LongForm, Forbidden, b"\x82\x7f\0\0\0\0\0\0\xff\xff"),
            (Violation::LongForm, Required, b"\x82\xfe\x00\x00key!"),
            (Violation::NothingToContinue, Forbidden, b"\x80\x00"),
            (Violation::NothingToContinue, Forbidden, b"\x01\x00\x89\x00\x80\x00\x00\x00"),
            (Violation::Interleaved, Forbidden, b"\x01\x01a\x8a\x00\x81\x00"),
            (Violation::Interleaved, Required, b"\x02\x80key!\x01\x80key!"),
            (Violation::HalfCode, Forbidden, b"\x88\x01"),
        ] {
            for strictness in [Strictness::Lenient, Strictness::Strict] {
                let is_one = strictness == Strictness::Strict || violation != Violation::LongForm;
                // An extension uses RSV1.
                let tracker = Tracker::new(masking, strictness, 0b100);
                let found = |bytes| follow(tracker.clone(), bytes, &[1], |_, _, _| {}).violation;
                let (_, before) = bytes.split_last().expect("bytes");
                assert_eq!(found(before), None, "{violation:?} before {bytes:02x?}");
                let expected = is_one.then_some(violation);
                assert_eq!(found(bytes), expected, "{strictness:?} at {bytes:02x?}");
                let more = [bytes, b"\0\xff\x81"].concat();
                assert!(!is_one || found(&more) == expected, "behind {bytes:02x?}");
            }
        }
    }
}
