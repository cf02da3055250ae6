//! One direction of a session as its frames go through: what of a piece of the stream goes on,
//! what is taken out, what has to wait for more, and where a frame of ours is put in.

use std::borrow::Cow;

use super::frame::Opcode;
use super::tracker::{Counts, Step, Tracker, Violation};

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It goes no further, as if it had not been sent. For control frames.
    TakeOut,
    /// It has to wait; it is given again.
    Hold,
    /// Neither it nor anything behind it goes on.
    Refuse,
}

/// A frame of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insertion {
    /// All of it, as it is to stand on the wire.
    pub frame: Vec<u8>,
    /// Whether it is a Close, behind which nothing may be sent (RFC 6455 §5.5.1).
    pub is_close: bool,
}

/// What became of a piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Followed<'b> {
    /// What is to be sent now.
    pub forward: Cow<'b, [u8]>,
    /// How much of `forward` is the peer's.
    pub relayed: usize,
    /// Whether our frame is in it.
    pub is_inserted: bool,
    /// What is to be given again, in front of what comes next.
    pub rest: &'b [u8],
    /// Why it was not followed to its end.
    pub stop: Option<Stop>,
}

/// Why a piece was not followed to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// [`Verdict::Hold`], or the budget is used up.
    Held,
    /// The frame at the front of the rest cannot be followed.
    Violated(Violation),
}

/// One direction of a session.
#[derive(Debug, Clone)]
pub struct Passage {
    tracker: Tracker,
    outlet: Outlet,
    /// Where frames begin is not known any more, and does not matter.
    is_blind: bool,
    /// Whether a Close need not wait for the end of a message.
    is_hurried: bool,
}

/// What may still be sent in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlet {
    /// What the peer says, and frames of ours between its own.
    Open,
    /// Nothing more of the peer's; its last frame is whole.
    Refusing,
    /// The peer has said Close: nothing of ours may follow, and what it goes on to say, whoever
    /// gets it is to discard (RFC 6455 §1.4).
    Said,
    /// We have said Close: nothing at all.
    Shut,
}

impl Passage {
    /// A direction at its beginning.
    pub fn new(tracker: Tracker) -> Self {
        Self { tracker, outlet: Outlet::Open, is_blind: false, is_hurried: false }
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        self.tracker.counts()
    }

    /// Whether what the peer says goes on.
    pub fn is_open(&self) -> bool {
        matches!(self.outlet, Outlet::Open | Outlet::Said)
    }

    /// Whether a Close of the peer's went through.
    pub fn has_said(&self) -> bool {
        self.outlet == Outlet::Said
    }

    /// Whether a frame of ours may be sent now, before anything else is given. Control frames may
    /// stand between the fragments of a message (RFC 6455 §5.4), but there are endpoints which take
    /// a Close there for an error of its sender: as long as there is time, it waits for the end of
    /// the message.
    pub fn takes(&self, insertion: &Insertion) -> bool {
        let is_too_early = insertion.is_close && self.tracker.is_in_message() && !self.is_hurried;
        match self.outlet {
            Outlet::Open => self.tracker.is_at_boundary() && !is_too_early,
            Outlet::Refusing => true,
            Outlet::Said | Outlet::Shut => false,
        }
    }

    /// There is no time to wait for the end of a message, or it will not come.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
    }

    /// A frame of ours was sent, where [`Passage::takes`] said it may be.
    pub fn inserted(&mut self, insertion: &Insertion) {
        if insertion.is_close {
            self.let_nothing_more_through(Outlet::Shut);
        }
    }

    fn let_nothing_more_through(&mut self, outlet: Outlet) {
        self.outlet = outlet;
        self.tracker.stop_counting();
    }

    /// Lets nothing of the peer's through from here on, and does not look at it any more. To be
    /// called at a violation, where the last frame before it is whole.
    pub fn give_up(&mut self) {
        self.is_blind = true;
        self.refuse();
    }

    fn refuse(&mut self) {
        self.let_nothing_more_through(match self.outlet {
            Outlet::Open | Outlet::Refusing => Outlet::Refusing,
            Outlet::Said | Outlet::Shut => Outlet::Shut,
        });
    }

    /// Follows `bytes`, the next piece of the stream, the rest of the last piece in front of it.
    /// At most about `budget` bytes of it are let through now. `insertion` is put in at the first
    /// place where it may be. `judge` is shown every header, and every control frame whole, with
    /// the bytes from there on.
    #[inline]
    pub fn follow<'b>(
        &mut self,
        bytes: &'b [u8],
        budget: usize,
        insertion: Option<&Insertion>,
        mut judge: impl FnMut(&Step<'_>, &[u8]) -> Verdict,
    ) -> Followed<'b> {
        let is_plain = insertion.is_none() && self.outlet == Outlet::Open && !self.is_blind;
        let (at, judged) =
            if is_plain { self.go_through(bytes, budget, &mut judge) } else { (0, None) };
        if is_plain && at == bytes.len() {
            let forward = Cow::Borrowed(bytes);
            return Followed { forward, relayed: at, is_inserted: false, rest: &[], stop: None };
        }
        self.follow_on(bytes, (at, judged), budget, insertion, judge)
    }

    /// Follows what nearly all is, payload and data frames that pass, where nothing is to be put
    /// in; how far, and what became of the frame there if that was judged already.
    #[inline]
    fn go_through(
        &mut self,
        bytes: &[u8],
        budget: usize,
        judge: &mut impl FnMut(&Step<'_>, &[u8]) -> Verdict,
    ) -> (usize, Option<Verdict>) {
        let end = bytes.len().min(budget);
        let mut at = 0;
        while at < end {
            if let Some(len) = self.tracker.payload(end - at) {
                at += len;
                continue;
            }
            let Ok(step @ Step::Data { len, .. }) = self.tracker.look(&bytes[at..]) else { break };
            match judge(&step, &bytes[at..]) {
                Verdict::Pass => self.tracker.pass(&step),
                verdict => return (at, Some(verdict)),
            }
            at += len;
        }
        (at, None)
    }

    /// Follows the rest: `at` bytes have gone through, and the frame there may have been judged.
    fn follow_on<'b>(
        &mut self,
        bytes: &'b [u8],
        (mut at, mut judged): (usize, Option<Verdict>),
        budget: usize,
        mut insertion: Option<&Insertion>,
        mut judge: impl FnMut(&Step<'_>, &[u8]) -> Verdict,
    ) -> Followed<'b> {
        let mut is_inserted = false;
        let mut relayed = at;
        // What is ready to be sent, where that is not just a part of `bytes`, and from where on
        // `bytes` are still to be added to it, up to `at`.
        let mut pieces = Vec::new();
        let mut pending = 0;
        let stop = loop {
            if let Some(ours) = insertion.take_if(|ours| self.takes(ours)) {
                pieces.extend_from_slice(&bytes[pending..at]);
                pieces.extend_from_slice(&ours.frame);
                pending = at;
                is_inserted = true;
                self.inserted(ours);
            }
            if self.is_blind || self.tracker.has_closed() {
                let end = bytes.len();
                if self.outlet == Outlet::Said && !self.is_blind && !self.tracker.is_strict() {
                    relayed += end - at;
                } else {
                    pieces.extend_from_slice(&bytes[pending..at]);
                    pending = end;
                }
                at = end;
                break None;
            }
            if at == bytes.len() {
                break None;
            }
            let left = budget.saturating_sub(at);
            // Most bytes, if not most steps, are payload, about which there is nothing to be asked.
            if let Some(len) = self.tracker.payload(left.min(bytes.len() - at)) {
                if len == 0 {
                    break Some(Stop::Held);
                }
                at += len;
                if self.is_open() {
                    relayed += len;
                } else {
                    pending = at;
                }
                continue;
            }
            let step = match self.tracker.look(&bytes[at..]) {
                Ok(Step::Missing) => break None,
                Ok(step) => step,
                Err(violation) => break Some(Stop::Violated(violation)),
            };
            if left == 0 {
                break Some(Stop::Held);
            }
            let end = at + step.len();
            match judged.take().unwrap_or_else(|| judge(&step, &bytes[at..])) {
                Verdict::Pass => {}
                Verdict::TakeOut => {
                    pieces.extend_from_slice(&bytes[pending..at]);
                    (pending, at) = (end, end);
                    continue;
                }
                Verdict::Hold => break Some(Stop::Held),
                Verdict::Refuse => {
                    pieces.extend_from_slice(&bytes[pending..at]);
                    pending = at;
                    self.refuse();
                }
            }
            self.tracker.pass(&step);
            at = end;
            if !self.is_open() {
                pending = end;
                continue;
            }
            relayed += step.len();
            if let Step::Control { header, .. } = step
                && header.opcode == Opcode::Close
            {
                self.outlet = Outlet::Said;
            }
        };
        let forward = if pieces.is_empty() {
            Cow::Borrowed(&bytes[pending..at])
        } else {
            pieces.extend_from_slice(&bytes[pending..at]);
            Cow::Owned(pieces)
        };
        Followed { forward, relayed, is_inserted, rest: &bytes[at..], stop }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::ws::close::{CloseCode, close_frame, control_frame};
    use crate::ws::frame::MAX_HEADER_BYTES;
    use crate::ws::speech::{Speech, Spoken, cuts, manners, speech};
    use crate::ws::tracker::{Masking, Strictness};

    /// What a direction goes through.
    #[derive(Debug, Clone)]
    struct Course {
        passage: Passage,
        masking: Masking,
        /// What the peer says; what is behind its frames is no frame.
        speech: Speech,
        cuts: Vec<usize>,
        budgets: Vec<usize>,
        /// What we come to want to say before each piece.
        wishes: Vec<Wish>,
        /// How many times the judge says Hold before it says something else.
        holds: Vec<u8>,
        /// Whether a Pong is one of ours.
        answers: Vec<bool>,
        /// The number of the frame that the judge refuses.
        refused: usize,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Wish {
        Nothing,
        Ping,
        Close,
    }

    /// A relay with one direction, which knows what the peer is about to say, and so what is to
    /// come of it.
    struct Relay<'c> {
        course: &'c Course,
        passage: Passage,
        /// What of the speech has been followed, and what has come.
        at: usize,
        come: usize,
        waiting: Option<Insertion>,
        has_wished_close: bool,
        /// Where our Close went out.
        closed_at: Option<usize>,
        has_given_up: bool,
        /// The next frame for the judge, and how often it was held.
        judged: usize,
        held: u8,
        /// What has left, and how much of that was the peer's.
        sent: Vec<u8>,
        relayed: usize,
    }

    impl Course {
        fn is_taken_out(&self, number: usize) -> bool {
            let frame = &self.speech.frames[number];
            frame.header.opcode == Opcode::Pong && self.answers[number % self.answers.len()]
        }

        fn is_refused(&self, number: usize) -> bool {
            number == self.refused && !self.is_taken_out(number)
        }

        /// Where the peer stops being listened to.
        fn end(&self) -> usize {
            match self.speech.frames.get(self.refused) {
                Some(frame) if self.is_refused(self.refused) => frame.start,
                _ => self.speech.end(),
            }
        }

        /// Whether the byte at `at` goes on, if we say nothing.
        fn goes_on(&self, at: usize) -> bool {
            at < self.end() && !self.is_taken_out(self.speech.number_at(at))
        }

        /// The first place from `at` on where a frame of ours may stand, if there is one.
        fn place_from(&self, at: usize) -> Option<usize> {
            let place = self.speech.boundary_from(at.min(self.end())).max(at);
            let is_close = |frame: &&Spoken| {
                frame.header.opcode == Opcode::Close && frame.end <= place.min(self.end())
            };
            self.speech.frames.iter().find(is_close).is_none().then_some(place)
        }
    }

    impl Relay<'_> {
        /// What `from..to` of the speech becomes, a frame of ours being put in at `place`.
        fn expected(&self, from: usize, to: usize, ours: Option<(usize, &Insertion)>) -> Vec<u8> {
            let mut expected = Vec::new();
            let mut is_shut = self.closed_at.is_some();
            for at in from..=to {
                if let Some((place, ours)) = ours
                    && at == place
                {
                    expected.extend(&ours.frame);
                    is_shut |= ours.is_close;
                }
                if at < to && !is_shut && self.course.goes_on(at) {
                    expected.push(self.course.speech.bytes[at]);
                }
            }
            expected
        }

        /// The place for a frame of ours.
        fn place(&self) -> Option<usize> {
            self.course.place_from(self.at).filter(|_| self.closed_at.is_none())
        }

        fn wish(&mut self, wish: Wish, number: usize) {
            let masking = self.course.masking;
            match wish {
                Wish::Ping if self.waiting.is_none() => {
                    let payload = format!("ours {number}");
                    let frame = control_frame(Opcode::Ping, payload.as_bytes(), masking, [9; 4]);
                    self.waiting = Some(Insertion { frame, is_close: false });
                }
                Wish::Close if !self.has_wished_close => {
                    self.has_wished_close = true;
                    let frame = close_frame(CloseCode::GoingAway, "ours", masking, [9; 4]);
                    self.waiting = Some(Insertion { frame, is_close: true });
                }
                Wish::Nothing | Wish::Ping | Wish::Close => {}
            }
        }

        fn placed(&mut self, ours: &Insertion, place: usize) {
            if ours.is_close {
                self.closed_at = Some(place);
            }
        }

        /// Goes on with what there is and `cut` more bytes, as the relay does.
        fn go_on(&mut self, budget: usize, cut: usize) -> Option<Stop> {
            let course = self.course;
            let takes = self.waiting.as_ref().filter(|ours| self.passage.takes(ours)).is_some();
            assert_eq!(takes, self.waiting.is_some() && self.place() == Some(self.at));
            let has_said = course.place_from(self.at).is_none() && self.closed_at.is_none();
            assert_eq!(self.passage.has_said(), has_said);
            if let Some(ours) = self.waiting.take_if(|ours| self.passage.takes(ours)) {
                self.sent.extend(&ours.frame);
                self.passage.inserted(&ours);
                self.placed(&ours, self.at);
            }
            self.come = self.come.saturating_add(cut).min(course.speech.bytes.len());
            let bytes = &course.speech.bytes[self.at..self.come];
            let ours = self.waiting.take();
            let (judged, held) = (&mut self.judged, &mut self.held);
            let mut holds = false;
            let followed = self.passage.follow(bytes, budget, ours.as_ref(), |step, bytes| {
                let frame = course.speech.frames[*judged];
                let said = &course.speech.bytes[frame.start..self.come];
                assert_eq!(bytes, said, "the judge sees frame by frame, each of them once");
                let end = match step {
                    Step::Data { header, len, .. } => {
                        assert_eq!(*header, frame.header);
                        frame.start + len == frame.payload
                    }
                    Step::Control { header, len, .. } => {
                        assert_eq!(*header, frame.header);
                        frame.start + len == frame.end
                    }
                    Step::Payload(_) | Step::Missing => false,
                };
                assert!(end, "{step:?} is {frame:?}");
                if *held < course.holds[*judged % course.holds.len()] {
                    *held += 1;
                    holds = true;
                    return Verdict::Hold;
                }
                *held = 0;
                *judged += 1;
                match *judged - 1 {
                    number if course.is_taken_out(number) => Verdict::TakeOut,
                    number if course.is_refused(number) => Verdict::Refuse,
                    _ => Verdict::Pass,
                }
            });
            let to = self.come - followed.rest.len();
            assert_eq!(followed.rest, &bytes[to - self.at..]);
            let place = self.place().filter(|place| *place <= to && ours.is_some());
            assert_eq!(followed.is_inserted, place.is_some(), "from {} to {to}", self.at);
            let expected = self.expected(self.at, to, place.zip(ours.as_ref()));
            assert_eq!(followed.forward, expected, "from {} to {to}", self.at);
            let inserted = place.and(ours.as_ref()).map_or(0, |ours| ours.frame.len());
            assert_eq!(followed.relayed, expected.len() - inserted);
            let overrun = MAX_HEADER_BYTES + 125;
            assert!(
                followed.relayed < budget.saturating_add(overrun)
                    && (budget > 0 || followed.relayed == 0)
            );
            match followed.stop {
                Some(Stop::Held) => assert!(holds || to - self.at >= budget, "held for nothing"),
                Some(Stop::Violated(_)) => {
                    assert_eq!(to, course.speech.end());
                    assert!(!self.has_given_up);
                    self.passage.give_up();
                    self.has_given_up = true;
                    assert_eq!(self.passage.is_open(), self.passage.has_said());
                }
                None => self.has_nothing_whole(to),
            }
            self.sent.extend(&*followed.forward);
            self.relayed += followed.relayed;
            match (place, ours) {
                (Some(place), Some(ours)) => self.placed(&ours, place),
                (_, ours) => self.waiting = ours,
            }
            self.at = to;
            followed.stop
        }

        /// What has not gone on by itself is less than a header, or than a control frame.
        fn has_nothing_whole(&self, to: usize) {
            let speech = &self.course.speech;
            let Some(frame) = speech.frames.get(speech.number_at(to)) else { return };
            let needed = if frame.header.opcode.is_control() { frame.end } else { frame.payload };
            let is_partial = to == frame.start && self.come < needed;
            assert!(to == self.come || is_partial, "{to} of {} is left", self.come);
        }
    }

    impl Course {
        fn run(&self) -> Relay<'_> {
            let mut relay = Relay {
                course: self,
                passage: self.passage.clone(),
                at: 0,
                come: 0,
                waiting: None,
                has_wished_close: false,
                closed_at: None,
                has_given_up: false,
                judged: 0,
                held: 0,
                sent: Vec::new(),
                relayed: 0,
            };
            let mut wishes = self.wishes.iter();
            let mut budgets = self.budgets.iter().cycle();
            let mut cuts = self.cuts.iter().cycle();
            let mut stop = None;
            for number in 0.. {
                if relay.at == self.speech.bytes.len() && wishes.len() == 0 {
                    break;
                }
                relay.wish(*wishes.next().unwrap_or(&Wish::Nothing), number);
                let budget = *budgets.next().expect("there are budgets");
                let cut = if stop.is_none() { *cuts.next().expect("there are cuts") } else { 0 };
                stop = relay.go_on(budget, cut);
            }
            relay
        }
    }

    /// Any course of a peer that stays within the rules; the judge refuses nothing.
    fn course() -> impl Strategy<Value = Course> {
        let budget = prop_oneof![
            1 => Just(0usize),
            4 => 1..30usize,
            3 => 1..1000usize,
            4 => Just(usize::MAX)
        ];
        let wish = prop_oneof![
            6 => Just(Wish::Nothing),
            6 => Just(Wish::Ping),
            1 => Just(Wish::Close)
        ];
        let speech = manners().prop_flat_map(|(masking, strictness, meaningful)| {
            let mut passage = Passage::new(Tracker::new(masking, strictness, meaningful));
            // Any place will do: what else a Close waits for has a test of its own.
            passage.hurry();
            (Just(passage), Just(masking), speech(masking, strictness, meaningful))
        });
        let judge = (vec(prop_oneof![3 => Just(0u8), 1 => 1..3u8], 1..8), vec(any::<bool>(), 1..8));
        (speech, cuts(), vec(budget, 0..10), vec(wish, 0..60), judge).prop_map(
            |((passage, masking, speech), cuts, mut budgets, wishes, (holds, answers))| {
                // One of them lets something through.
                budgets.push(100_000);
                let refused = usize::MAX;
                Course { passage, masking, speech, cuts, budgets, wishes, holds, answers, refused }
            },
        )
    }

    /// The same, our Close being wanted at the end at the latest.
    fn course_to_our_close() -> impl Strategy<Value = Course> {
        course().prop_map(|mut course| {
            course.wishes.push(Wish::Close);
            course
        })
    }

    /// What every course comes to, besides what is checked on the way.
    fn check_what_left(relay: &Relay<'_>) {
        let course = relay.course;
        let goes_on =
            |at: &usize| course.goes_on(*at) && relay.closed_at.is_none_or(|end| *at < end);
        assert_eq!(relay.relayed, (0..relay.at).filter(goes_on).count());
        assert_eq!(relay.at, course.speech.bytes.len());
        // It is legal again, and whole.
        let mut passage = course.passage.clone();
        let again = passage.follow(&relay.sent, usize::MAX, None, |_, _| Verdict::Pass);
        assert_eq!((again.stop, again.rest), (None, b"".as_slice()));
        assert!(passage.tracker.is_at_boundary());
    }

    proptest! {
        /// Data frames that pass have a loop of their own; who goes step by step comes to the same,
        /// whatever is said.
        #[test]
        fn the_short_way_leads_where_the_long_one_does(
            (tracker, speech) in manners().prop_flat_map(|(masking, strictness, meaningful)| {
                let tracker = Tracker::new(masking, strictness, meaningful);
                (Just(tracker), speech(masking, strictness, meaningful))
            }),
            slips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cuts in cuts(),
            budgets in vec(prop_oneof![0..40_usize, Just(usize::MAX)], 1..8),
            verdicts in vec(
                prop_oneof![
                    6 => Just(Verdict::Pass),
                    1 => Just(Verdict::Hold),
                    1 => Just(Verdict::Refuse),
                ],
                1..8,
            ),
        ) {
            let mut bytes = speech.bytes;
            for (at, value) in slips {
                let at = at.index(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            let mut short = Passage::new(tracker);
            let mut long = short.clone();
            let mut judged = [0; 2];
            let (mut at, mut come) = (0, 0_usize);
            for (cut, budget) in cuts.iter().cycle().zip(budgets.iter().cycle()).take(200) {
                come = come.saturating_add(*cut).min(bytes.len());
                let mut judge = |way: usize| {
                    judged[way] += 1;
                    verdicts[judged[way] % verdicts.len()]
                };
                let piece = &bytes[at..come];
                let one = short.follow(piece, *budget, None, |_, _| judge(0));
                let other = long.follow_on(piece, (0, None), *budget, None, |_, _| judge(1));
                prop_assert_eq!(&one, &other);
                prop_assert_eq!(format!("{short:?}"), format!("{long:?}"));
                prop_assert_eq!(judged[0], judged[1]);
                if let Some(Stop::Violated(_)) = one.stop {
                    break;
                }
                at = come - one.rest.len();
            }
        }

        /// What leaves is what came, without the Pongs that are ours, and with our frames between
        /// its own; behind our Close there is nothing.
        #[test]
        fn all_that_came_leaves_and_ours_between_its_frames(course in course()) {
            let relay = course.run();
            check_what_left(&relay);
            prop_assert_eq!(relay.judged, course.speech.frames.len());
        }

        /// The frames before the one that is refused are let through, nothing is behind them, and
        /// our Close still goes out, unless the peer has said its own.
        #[test]
        fn what_is_refused_stays_here_with_all_behind_it(
            course in course_to_our_close(),
            refused in any::<prop::sample::Index>(),
        ) {
            let mut course = course;
            course.refused = refused.index(course.speech.frames.len() + 1);
            let relay = course.run();
            check_what_left(&relay);
            let has_place = course.place_from(course.speech.end()).is_some();
            prop_assert!(relay.closed_at.is_some() || !has_place);
        }

        /// The same with what cannot be followed, and was given up.
        #[test]
        fn what_is_given_up_stays_here_with_all_behind_it(
            course in course_to_our_close(),
            refused in proptest::option::of(any::<prop::sample::Index>()),
            more in vec(any::<u8>(), 0..40),
        ) {
            let mut course = course;
            if let Some(refused) = refused {
                course.refused = refused.index(course.speech.frames.len() + 1);
            }
            let masked = if course.masking == Masking::Required { 0 } else { 0x80 };
            let opcode = if more.len() % 2 == 0 { 0x8b } else { 0x89 };
            let is_close = |frame: &Spoken| frame.header.opcode == Opcode::Close;
            let has_closed = course.speech.frames.last().is_some_and(is_close);
            if !has_closed {
                course.speech.bytes.extend([opcode, masked, 0, 0, 0, 0]);
                course.speech.bytes.extend(more);
            }
            let relay = course.run();
            check_what_left(&relay);
            let has_place = course.place_from(course.speech.end()).is_some();
            prop_assert!(relay.closed_at.is_some() || !has_place);
            prop_assert!(relay.has_given_up || has_closed);
        }
    }

    fn ours() -> Insertion {
        let frame = close_frame(CloseCode::GoingAway, "", Masking::Forbidden, [0; 4]);
        Insertion { frame, is_close: true }
    }

    fn passage(strictness: Strictness) -> Passage {
        Passage::new(Tracker::new(Masking::Forbidden, strictness, 0))
    }

    /// RFC 6455 §5.5.1: a Close is the last frame, whatever is refused behind it.
    #[test]
    fn nothing_of_ours_follows_a_close() {
        let refuse = |_: &Step<'_>, _: &[u8]| Verdict::Refuse;
        let pass = |_: &Step<'_>, _: &[u8]| Verdict::Pass;
        let mut theirs_first = passage(Strictness::Strict);
        let followed = theirs_first.follow(b"\x88\0", 99, None, pass);
        assert_eq!(&*followed.forward, b"\x88\0");
        let followed = theirs_first.follow(b"\x8a\0", 99, Some(&ours()), refuse);
        assert_eq!((&*followed.forward, followed.is_inserted), (b"".as_slice(), false));
        assert!(theirs_first.has_said() && !theirs_first.takes(&ours()));
        let mut ours_first = passage(Strictness::Strict);
        ours_first.inserted(&ours());
        let followed = ours_first.follow(b"\x89\0", 99, Some(&ours()), refuse);
        assert_eq!((&*followed.forward, followed.is_inserted), (b"".as_slice(), false));
        assert!(!ours_first.takes(&ours()));
    }

    /// RFC 6455 §1.4: what follows a Close is to be discarded, by us where we are strict, else by
    /// whoever gets it; it is never a violation.
    #[test]
    fn what_follows_a_close_of_the_peers_means_nothing() {
        let pass = |_: &Step<'_>, _: &[u8]| Verdict::Pass;
        let said = b"\x88\0\xff\xff\xff no frame".as_slice();
        for (strictness, expected) in
            [(Strictness::Lenient, said), (Strictness::Strict, &said[..2])]
        {
            for cut in 0..said.len() {
                let mut passage = passage(strictness);
                let mut sent = Vec::new();
                let first = passage.follow(&said[..cut], 99, None, pass);
                sent.extend(&*first.forward);
                let relayed = first.relayed;
                let rest = [first.rest, &said[cut..]].concat();
                let second = passage.follow(&rest, 99, None, pass);
                sent.extend(&*second.forward);
                assert_eq!((sent.as_slice(), second.stop), (expected, None), "{cut}");
                assert_eq!(relayed + second.relayed, expected.len());
            }
        }
    }

    /// A Close of ours waits for the end of a message, a Ping only for that of a frame (RFC 6455
    /// §5.4), and neither where nothing more will come of it.
    #[test]
    fn a_close_of_ours_waits_for_the_end_of_a_message() {
        let pass = |_: &Step<'_>, _: &[u8]| Verdict::Pass;
        let ping = control_frame(Opcode::Ping, b"", Masking::Forbidden, [0; 4]);
        let ping = Insertion { frame: ping, is_close: false };
        let mut passage = passage(Strictness::Strict);
        assert!(passage.takes(&ours()));
        passage.follow(b"\x01\x01a", 99, None, pass);
        assert!(passage.takes(&ping) && !passage.takes(&ours()));
        passage.follow(b"\x00\x02b", 99, None, pass);
        assert!(!passage.takes(&ping) && !passage.takes(&ours()));
        let mut refused = passage.clone();
        refused.follow(b"c\x00\x00", 99, None, |_, _| Verdict::Refuse);
        assert!(refused.takes(&ours()));
        let mut hurried = passage.clone();
        hurried.hurry();
        assert!(!hurried.takes(&ours()));
        hurried.follow(b"c", 99, None, pass);
        assert!(hurried.takes(&ours()));
        passage.follow(b"c", 99, None, pass);
        assert!(passage.takes(&ping) && !passage.takes(&ours()));
        passage.follow(b"\x80\x00", 99, None, pass);
        assert!(passage.takes(&ours()));
    }
}
