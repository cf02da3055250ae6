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
}

/// What may still be sent in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlet {
    /// What the peer says, and frames of ours between its own.
    Open,
    /// Nothing more of the peer's; its last frame is whole.
    Refusing,
    /// The peer has said Close: what it goes on to say is its own fault, and nothing is ours.
    Said,
    /// We have said Close: nothing at all.
    Shut,
}

impl Passage {
    /// A direction at its beginning.
    pub fn new(tracker: Tracker) -> Self {
        Self { tracker, outlet: Outlet::Open, is_blind: false }
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

    /// Whether a frame of ours may be sent now, before anything else is given.
    pub fn takes_insertions(&self) -> bool {
        match self.outlet {
            Outlet::Open => self.tracker.is_at_boundary(),
            Outlet::Refusing => true,
            Outlet::Said | Outlet::Shut => false,
        }
    }

    /// A frame of ours was sent, where [`Passage::takes_insertions`] said it may be.
    pub fn inserted(&mut self, insertion: &Insertion) {
        if insertion.is_close {
            self.outlet = Outlet::Shut;
        }
    }

    /// Lets nothing of the peer's through from here on, and does not look at it any more. To be
    /// called at a violation, where the last frame before it is whole.
    pub fn give_up(&mut self) {
        self.is_blind = true;
        if self.outlet == Outlet::Open {
            self.outlet = Outlet::Refusing;
        }
    }

    /// Follows `bytes`, the next piece of the stream, the rest of the last piece in front of it.
    /// At most about `budget` bytes of it are let through now. `insertion` is put in at the first
    /// place where it may be. `judge` is shown every header, and every control frame whole, with
    /// the bytes from there on.
    pub fn follow<'b>(
        &mut self,
        bytes: &'b [u8],
        budget: usize,
        mut insertion: Option<&Insertion>,
        mut judge: impl FnMut(&Step<'_>, &[u8]) -> Verdict,
    ) -> Followed<'b> {
        let mut is_inserted = false;
        let mut relayed = 0;
        // What is ready to be sent, where that is not just a part of `bytes`, and from where on
        // `bytes` are still to be added to it, up to `at`.
        let mut pieces = Vec::new();
        let mut pending = 0;
        let mut at = 0;
        let stop = loop {
            if self.takes_insertions()
                && let Some(ours) = insertion.take()
            {
                pieces.extend_from_slice(&bytes[pending..at]);
                pieces.extend_from_slice(&ours.frame);
                pending = at;
                is_inserted = true;
                self.inserted(ours);
            }
            if self.is_blind {
                pending = bytes.len();
                at = bytes.len();
                break None;
            }
            let mut step = match self.tracker.look(&bytes[at..]) {
                Ok(Step::Missing) => break None,
                Ok(step) => step,
                Err(violation) => break Some(Stop::Violated(violation)),
            };
            let left = budget.saturating_sub(at);
            if left == 0 {
                break Some(Stop::Held);
            }
            let verdict = match &mut step {
                Step::Payload(len) => {
                    *len = left.min(*len);
                    Verdict::Pass
                }
                step => judge(step, &bytes[at..]),
            };
            let end = at + step.len();
            match verdict {
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
                    match self.outlet {
                        Outlet::Open => self.outlet = Outlet::Refusing,
                        // Nothing of ours has a place behind a Close, be it the peer's.
                        Outlet::Said => {
                            self.give_up();
                            continue;
                        }
                        Outlet::Refusing | Outlet::Shut => {}
                    }
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
