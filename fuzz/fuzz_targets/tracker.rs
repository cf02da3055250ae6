//! Any bytes in any pieces: the tracker finds the frames that tungstenite finds, and violations
//! where the rules, written down here once more, have them.

#![no_main]

use std::io::Cursor;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate::ws::frame::{FrameError, Opcode};
use tidegate::ws::tracker::{Counts, Masking, Step, Strictness, Tracker, Violation};
use tungstenite::protocol::frame as oracle;

/// The bytes stand last, so that an input ends with them as they are.
#[derive(Debug, Arbitrary)]
struct Input<'i> {
    is_masked: bool,
    is_strict: bool,
    meaningful: u8,
    cuts: [u8; 8],
    bytes: &'i [u8],
}

/// A frame as the oracle reads it.
struct Frame {
    start: usize,
    payload: usize,
    /// May be beyond what has come.
    end: usize,
    opcode: u8,
    fin: bool,
}

impl Frame {
    fn is_control(&self) -> bool {
        self.opcode >= 8
    }
}

/// What there is to be found, read all at once.
#[derive(Default)]
struct Expected {
    frames: Vec<Frame>,
    /// Behind them.
    violation: Option<Violation>,
}

impl Expected {
    fn read(input: &Input<'_>) -> Self {
        let mut expected = Self::default();
        let (mut at, mut is_in_message) = (0, false);
        while let Some(bytes) = input.bytes.get(at..) {
            match read(bytes, input, is_in_message) {
                Ok(None) => break,
                Ok(Some(mut frame)) => {
                    frame.start = at;
                    frame.payload += at;
                    frame.end = frame.end.saturating_add(at);
                    if frame.is_control() {
                        if frame.end > input.bytes.len() {
                            break;
                        }
                    } else {
                        is_in_message = !frame.fin;
                    }
                    at = frame.end;
                    expected.frames.push(frame);
                }
                Err(violation) => {
                    expected.violation = Some(violation);
                    break;
                }
            }
        }
        expected
    }

    fn counts(&self, come: usize) -> Counts {
        let count = |matches: &dyn Fn(&Frame) -> bool| {
            self.frames.iter().filter(|frame| matches(frame)).count() as u64
        };
        Counts {
            messages: count(&|frame| !frame.is_control() && frame.fin && frame.end <= come),
            fragments: count(&|frame| !frame.is_control() && !(frame.fin && frame.opcode != 0)),
            pings: count(&|frame| frame.opcode == 9),
            pongs: count(&|frame| frame.opcode == 10),
        }
    }

    fn is_boundary(&self, at: usize) -> bool {
        let begun = self.frames.partition_point(|frame| frame.start < at);
        begun == 0 || self.frames[begun - 1].end <= at
    }
}

/// The frame at the front of `bytes`, if its header is there.
fn read(bytes: &[u8], input: &Input<'_>, is_in_message: bool) -> Result<Option<Frame>, Violation> {
    let [first, more @ ..] = bytes else { return Ok(None) };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
    if matches!(opcode, 3..=7 | 11..) {
        return Err(FrameError::ReservedOpcode(opcode).into());
    }
    let [second, length @ ..] = more else { return Ok(None) };
    let short = second & 0x7F;
    if opcode >= 8 && !fin {
        return Err(FrameError::FragmentedControl.into());
    }
    if opcode >= 8 && short > 125 {
        return Err(FrameError::LongControl.into());
    }
    if short == 127 && length.len() >= 8 && length[0] >= 0x80 {
        return Err(FrameError::HugeLength.into());
    }
    let mut cursor = Cursor::new(bytes);
    let Some((header, len)) = oracle::FrameHeader::parse(&mut cursor).expect("a legal opcode")
    else {
        return Ok(None);
    };
    assert_eq!((header.is_final, u8::from(header.opcode)), (fin, opcode));
    let reserved = u8::from(header.rsv1) << 2 | u8::from(header.rsv2) << 1 | u8::from(header.rsv3);
    if reserved & !input.meaningful != 0 {
        return Err(Violation::ReservedBit);
    }
    match (input.is_masked, header.mask) {
        (true, None) => return Err(Violation::Unmasked),
        (false, Some(_)) => return Err(Violation::Masked),
        (true, Some(_)) | (false, None) => {}
    }
    let fits_less = short == 126 && len < 126 || short == 127 && len <= 0xFFFF;
    if input.is_strict && fits_less {
        return Err(Violation::LongForm);
    }
    match opcode {
        0 if !is_in_message => return Err(Violation::NothingToContinue),
        1 | 2 if is_in_message => return Err(Violation::Interleaved),
        8 if len == 1 => return Err(Violation::HalfCode),
        _ => {}
    }
    let payload = cursor.position() as usize;
    let end = payload.saturating_add(len as usize);
    Ok(Some(Frame { start: 0, payload, end, opcode, fin }))
}

fn number(opcode: Opcode) -> u8 {
    match opcode {
        Opcode::Continuation => 0,
        Opcode::Text => 1,
        Opcode::Binary => 2,
        Opcode::Close => 8,
        Opcode::Ping => 9,
        Opcode::Pong => 10,
    }
}

fuzz_target!(|input: Input<'_>| {
    let masking = if input.is_masked { Masking::Required } else { Masking::Forbidden };
    let strictness = if input.is_strict { Strictness::Strict } else { Strictness::Lenient };
    let mut tracker = Tracker::new(masking, strictness, input.meaningful);
    let expected = Expected::read(&input);
    let mut frames = expected.frames.iter();
    let mut cuts = input.cuts.iter().cycle();
    let (mut at, mut come, mut message_len) = (0, 0, 0u64);
    let violation = loop {
        assert_eq!(tracker.is_at_boundary(), expected.is_boundary(at), "at {at}");
        let step = match tracker.look(&input.bytes[at..come]) {
            Ok(Step::Missing) if come == input.bytes.len() => break None,
            Ok(Step::Missing) => {
                let cut = usize::from(*cuts.next().expect("a cycle"));
                come = (come + cut + 1).min(input.bytes.len());
                continue;
            }
            Ok(step) => step,
            Err(violation) => break Some(violation),
        };
        assert!(!step.is_empty() && at + step.len() <= come);
        match step {
            Step::Payload(_) => assert!(!tracker.is_at_boundary()),
            Step::Data { header, len, message_bytes } => {
                let frame = frames.next().expect("a frame");
                assert_eq!((frame.start, frame.payload), (at, at + len));
                assert_eq!((frame.opcode, frame.fin), (number(header.opcode), header.fin));
                assert_eq!(frame.end - frame.payload, header.payload_len as usize);
                message_len = message_len.saturating_add(header.payload_len);
                assert_eq!(message_bytes, message_len);
                message_len = if header.fin { 0 } else { message_len };
            }
            Step::Control { header, payload, len } => {
                let frame = frames.next().expect("a frame");
                assert_eq!((frame.start, frame.end), (at, at + len));
                assert_eq!((frame.opcode, frame.fin), (number(header.opcode), true));
                assert_eq!(payload, &input.bytes[frame.payload..frame.end]);
            }
            Step::Missing => unreachable!("seen above"),
        }
        tracker.pass(&step);
        at += step.len();
    };
    assert_eq!(violation, expected.violation);
    assert!(frames.next().is_none());
    assert_eq!(tracker.counts(), expected.counts(at));
});
