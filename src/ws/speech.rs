//! What a peer may say, for the tests of those who follow it: any sequence of legal frames, cut
//! into pieces anywhere.

use proptest::collection::vec;
use proptest::prelude::*;

use super::frame::{FrameHeader, Opcode};
use super::tracker::{Masking, Strictness};

/// A sequence of frames.
#[derive(Debug, Clone, Default)]
pub(super) struct Speech {
    /// As it stands on the wire.
    pub(super) bytes: Vec<u8>,
    /// What it consists of.
    pub(super) frames: Vec<Spoken>,
}

/// A frame and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spoken {
    pub(super) header: FrameHeader,
    pub(super) start: usize,
    /// Where its payload begins.
    pub(super) payload: usize,
    pub(super) end: usize,
}

impl Speech {
    /// The first place that is not before `offset` and not inside a frame.
    pub(super) fn boundary_from(&self, offset: usize) -> usize {
        let before = self.frames.partition_point(|frame| frame.end <= offset);
        match self.frames.get(before) {
            Some(frame) if frame.start < offset => frame.end,
            _ => offset,
        }
    }

    /// The number of the frame that has the byte at `offset`.
    pub(super) fn number_at(&self, offset: usize) -> usize {
        self.frames.partition_point(|frame| frame.end <= offset)
    }

    /// Where the frames end.
    pub(super) fn end(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.end)
    }

    fn say(&mut self, header: FrameHeader, form: Form, seed: u8) {
        let start = self.bytes.len();
        header.write(&mut self.bytes);
        let short = self.bytes[start + 1] & 0x7F;
        if let Some((short, length)) = form.written(short, header.payload_len) {
            self.bytes.truncate(start + 2);
            self.bytes[start + 1] = self.bytes[start + 1] & 0x80 | short;
            self.bytes.extend(length);
            self.bytes.extend(header.mask.iter().flatten());
        }
        let payload = self.bytes.len();
        self.bytes.extend((0..header.payload_len).map(|at| seed.wrapping_add((at * 37 / 4) as u8)));
        self.frames.push(Spoken { header, start, payload, end: self.bytes.len() });
    }
}

/// How the length of a payload is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Shortest,
    /// In two bytes, if they are enough.
    Two,
    Eight,
}

impl Form {
    /// What stands for the length, if that is not the shortest form anyway, which has `short`.
    fn written(self, short: u8, len: u64) -> Option<(u8, Vec<u8>)> {
        match (self, u16::try_from(len)) {
            (Self::Two, Ok(len)) if short < 126 => Some((126, len.to_be_bytes().to_vec())),
            (Self::Eight, _) if short < 127 => Some((127, len.to_be_bytes().to_vec())),
            _ => None,
        }
    }
}

/// What is left to chance about a frame.
#[derive(Debug, Clone, Copy)]
struct Looks {
    reserved: u8,
    key: [u8; 4],
    form: Form,
    seed: u8,
}

fn looks() -> impl Strategy<Value = Looks> {
    let form = prop_oneof![Just(Form::Shortest), Just(Form::Two), Just(Form::Eight)];
    (0..8u8, any::<[u8; 4]>(), form, any::<u8>()).prop_map(|(reserved, key, form, seed)| Looks {
        reserved,
        key,
        form,
        seed,
    })
}

/// Control frames that are no Close.
fn asides() -> impl Strategy<Value = Vec<(Opcode, u64, Looks)>> {
    let opcode = prop_oneof![Just(Opcode::Ping), Just(Opcode::Pong)];
    vec((opcode, prop_oneof![0..6u64, 0..126u64], looks()), 0..3)
}

/// Everything that a peer may say to such a tracker.
pub(super) fn speech(
    masking: Masking,
    strictness: Strictness,
    meaningful: u8,
) -> impl Strategy<Value = Speech> {
    let len = prop_oneof![
        40 => 0..6u64,
        20 => 100..140u64,
        1 => 65_530..65_540u64,
    ];
    let fragments = vec((asides(), len, looks()), 1..4);
    let opcode = prop_oneof![Just(Opcode::Text), Just(Opcode::Binary)];
    let close = (prop_oneof![Just(0u64), 2..126u64], looks());
    // A message may be left in the middle.
    let (messages, close) =
        (vec((opcode, fragments, any::<u8>()), 0..5), proptest::option::of(close));
    (messages, asides(), close).prop_map(move |(messages, asides, close)| {
        let mut speech = Speech::default();
        let mut say = |fin, opcode: Opcode, payload_len, looks: Looks| {
            let mask = (masking == Masking::Required).then_some(looks.key);
            let reserved = looks.reserved & meaningful;
            let header = FrameHeader { fin, reserved, opcode, mask, payload_len };
            let form = match strictness {
                Strictness::Lenient if !opcode.is_control() => looks.form,
                Strictness::Lenient | Strictness::Strict => Form::Shortest,
            };
            speech.say(header, form, looks.seed);
        };
        let last_message = messages.len().saturating_sub(1);
        for (number, (opcode, fragments, unfinished)) in messages.into_iter().enumerate() {
            let last = fragments.len() - 1;
            for (at, (asides, len, looks)) in fragments.into_iter().enumerate() {
                asides.into_iter().for_each(|(opcode, len, looks)| say(true, opcode, len, looks));
                let is_left = number == last_message && unfinished < 64;
                let opcode = if at == 0 { opcode } else { Opcode::Continuation };
                say(at == last && !is_left, opcode, len, looks);
            }
        }
        asides.into_iter().for_each(|(opcode, len, looks)| say(true, opcode, len, looks));
        if let Some((len, looks)) = close {
            say(true, Opcode::Close, len, looks);
        }
        speech
    })
}

/// What a tracker is made of.
pub(super) fn manners() -> impl Strategy<Value = (Masking, Strictness, u8)> {
    let masking = prop_oneof![Just(Masking::Required), Just(Masking::Forbidden)];
    let strictness = prop_oneof![Just(Strictness::Lenient), Just(Strictness::Strict)];
    (masking, strictness, 0..8u8)
}

/// The lengths of the pieces in which bytes come; the first follows again on the last.
pub(super) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        1 => Just(vec![1]),
        4 => vec(1..20usize, 1..20),
        4 => vec(prop_oneof![1..4usize, 1..200usize, 1..70_000usize], 1..10),
        1 => Just(vec![usize::MAX]),
    ]
}
