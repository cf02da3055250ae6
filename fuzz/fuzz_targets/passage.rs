//! Any bytes in any pieces through a passage, as the relay drives it, while we have Pings and a
//! Close to send: every byte becomes what was to become of it, and ours stand between frames.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate::ws::close::{CloseCode, close_frame, control_frame};
use tidegate::ws::frame::Opcode;
use tidegate::ws::passage::{Insertion, Passage, Stop, Verdict};
use tidegate::ws::tracker::{Masking, Step, Strictness, Tracker};

/// The bytes stand last, so that an input ends with them as they are.
#[derive(Debug, Arbitrary)]
struct Input<'i> {
    is_masked: bool,
    is_strict: bool,
    meaningful: u8,
    /// Which Pongs are ours, by their numbers.
    answers: u8,
    /// The number of the frame that the judge refuses.
    refused: u8,
    moves: [Move; 8],
    bytes: &'i [u8],
}

/// How it goes on; the first follows again on the last.
#[derive(Debug, Arbitrary)]
struct Move {
    cut: u8,
    budget: u8,
    /// What we come to want to say, and whether the judge says Hold first.
    says: u8,
}

/// So many moves are made by the input; then everything flows, so that there is an end.
const MOVES: usize = 512;

/// One more than the longest control frame, which is let through whole.
const OVERRUN: usize = 14 + 125;

struct Frame {
    opcode: Opcode,
    start: usize,
    /// May be beyond what comes.
    end: usize,
}

/// What is to become of the bytes.
struct Plan<'i> {
    input: &'i Input<'i>,
    frames: Vec<Frame>,
    /// Where the peer's Close ends.
    closed_at: Option<usize>,
    is_violated: bool,
}

impl<'i> Plan<'i> {
    /// Reads everything at once; whether that is right is the other target's business.
    fn read(input: &'i Input<'i>, mut tracker: Tracker) -> Self {
        let (mut frames, mut at) = (Vec::<Frame>::new(), 0);
        let is_violated = loop {
            let step = match tracker.look(&input.bytes[at..]) {
                Ok(Step::Missing) => break false,
                Ok(step) => step,
                Err(_) => break true,
            };
            if let Step::Data { header, .. } | Step::Control { header, .. } = step {
                let len = match step {
                    Step::Data { len, .. } => len + header.payload_len as usize,
                    _ => step.len(),
                };
                frames.push(Frame { opcode: header.opcode, start: at, end: at + len });
            }
            tracker.pass(&step);
            at += step.len();
            // What is behind it is no frame any more, whatever it looks like.
            if tracker.has_closed() {
                break false;
            }
        };
        let close = frames.iter().find(|frame| frame.opcode == Opcode::Close);
        let closed_at = close.map(|close| close.end);
        Self { input, frames, closed_at, is_violated }
    }

    fn verdict(&self, number: usize) -> Verdict {
        let is_pong = self.frames[number].opcode == Opcode::Pong;
        if is_pong && self.input.answers >> (number % 8) & 1 != 0 {
            Verdict::TakeOut
        } else if number == usize::from(self.input.refused) {
            Verdict::Refuse
        } else {
            Verdict::Pass
        }
    }

    /// Where the frames end.
    fn end(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.end)
    }

    /// Where nothing of the peer's goes on any more.
    fn last(&self) -> usize {
        let refused = usize::from(self.input.refused);
        match self.frames.get(refused) {
            Some(frame) if self.verdict(refused) == Verdict::Refuse => frame.start,
            _ => self.end(),
        }
    }

    fn goes_on(&self, at: usize) -> bool {
        if let Some(closed_at) = self.closed_at
            && at >= closed_at
        {
            return !self.input.is_strict && self.last() == self.end();
        }
        let number = self.frames.partition_point(|frame| frame.end <= at);
        at < self.last() && self.verdict(number) == Verdict::Pass
    }

    /// The first place from `at` on where a frame of ours may stand.
    fn place_from(&self, at: usize) -> Option<usize> {
        let last = self.last();
        let begun = self.frames.partition_point(|frame| frame.start < at);
        let inside = self.frames[..begun].last().filter(|frame| at < frame.end && at < last);
        let place = inside.map_or(at, |frame| frame.end);
        let is_said = self.closed_at.is_some_and(|closed_at| closed_at <= place.min(last));
        (!is_said).then_some(place)
    }
}

fuzz_target!(|input: Input<'_>| {
    let masking = if input.is_masked { Masking::Required } else { Masking::Forbidden };
    let strictness = if input.is_strict { Strictness::Strict } else { Strictness::Lenient };
    let tracker = Tracker::new(masking, strictness, input.meaningful);
    let plan = Plan::read(&input, tracker.clone());
    let mut passage = Passage::new(tracker.clone());
    // Any place will do: what else a Close waits for has a test of its own.
    passage.hurry();
    let mut sent = Vec::new();
    let (mut at, mut come, mut judged) = (0, 0, 0);
    let mut waiting: Option<Insertion> = None;
    let (mut has_wished_close, mut is_shut, mut has_more, mut is_blind) =
        (false, false, false, false);
    for number in 0.. {
        if come == input.bytes.len() && !has_more && number >= input.moves.len() {
            break;
        }
        let now = &input.moves[number % input.moves.len()];
        let is_late = number >= MOVES;
        match now.says & 0x0F {
            1..4 if waiting.is_none() => {
                let frame = control_frame(Opcode::Ping, b"ours", masking, [9; 4]);
                waiting = Some(Insertion { frame, is_close: false });
            }
            4 if !has_wished_close => {
                has_wished_close = true;
                let frame = close_frame(CloseCode::GoingAway, "", masking, [9; 4]);
                waiting = Some(Insertion { frame, is_close: true });
            }
            _ => {}
        }
        // As the relay: what can be said is said first, and the rest by the way.
        let place = |at| plan.place_from(at).filter(|_| !is_shut);
        if let Some(ours) = &waiting {
            assert_eq!(passage.takes(ours), place(at) == Some(at), "at {at}");
        }
        if let Some(ours) = waiting.take_if(|ours| passage.takes(ours)) {
            sent.extend(&ours.frame);
            passage.inserted(&ours);
            is_shut |= ours.is_close;
        }
        if !has_more {
            come = (come + usize::from(now.cut) + 1).min(input.bytes.len());
        }
        let bytes = &input.bytes[at..come];
        let budget = if is_late || now.budget >= 0xF0 { usize::MAX } else { now.budget.into() };
        let mut holds = !is_late && now.says & 0x80 != 0;
        let mut has_held = false;
        let followed = passage.follow(bytes, budget, waiting.as_ref(), |step, bytes| {
            assert!(!is_blind && !matches!(step, Step::Payload(_) | Step::Missing));
            assert_eq!(bytes, &input.bytes[plan.frames[judged].start..come]);
            if std::mem::take(&mut holds) {
                has_held = true;
                return Verdict::Hold;
            }
            judged += 1;
            plan.verdict(judged - 1)
        });
        let to = come - followed.rest.len();
        assert_eq!(followed.rest, &input.bytes[to..come]);
        let place = plan.place_from(at).filter(|place| !is_shut && *place <= to);
        let ours = if place.is_some() { waiting.take() } else { None };
        assert_eq!(followed.is_inserted, ours.is_some(), "from {at} to {to}");
        let mut expected = Vec::new();
        let (mut relayed, mut throttled) = (0, 0);
        for at in at..=to {
            if let Some(ours) = &ours
                && place == Some(at)
            {
                expected.extend(&ours.frame);
                is_shut |= ours.is_close;
            }
            if at < to && !is_shut && plan.goes_on(at) {
                expected.push(input.bytes[at]);
                relayed += 1;
                // Nobody is throttled behind a Close.
                let is_last = plan.closed_at.is_some_and(|closed_at| closed_at <= at);
                throttled += usize::from(!is_last);
            }
        }
        assert_eq!(followed.forward, expected, "from {at} to {to}");
        assert_eq!(followed.relayed, relayed);
        assert!(throttled == 0 || throttled < budget.saturating_add(OVERRUN) && budget > 0);
        match followed.stop {
            Some(Stop::Held) => assert!(has_held || to - at >= budget),
            Some(Stop::Violated(_)) => {
                assert!(plan.is_violated && to == plan.end() && !is_blind);
                passage.give_up();
                is_blind = true;
            }
            None => {}
        }
        has_more = followed.stop.is_some();
        sent.extend(&*followed.forward);
        at = to;
    }
    // What left is legal again.
    let mut again = Passage::new(tracker);
    let followed = again.follow(&sent, usize::MAX, None, |_, _| Verdict::Pass);
    assert_eq!((followed.stop, followed.forward.len(), followed.rest.len()), (None, sent.len(), 0));
    // Nothing whole was left behind.
    let is_followed = judged == plan.frames.len() && (at >= plan.end() || at == input.bytes.len());
    assert!(is_followed || at == input.bytes.len(), "{at} of {}", input.bytes.len());
});
