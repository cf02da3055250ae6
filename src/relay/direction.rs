//! One direction of a session: from the leg that is read to the leg that is written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Sleep, sleep};

use super::dialogue::{Dialogue, Tolerance};
use super::legs::{Leg, Output, Received, Scratch};
use super::sessions::Entry;
use super::turns::{Bulk, come_back_after_others};
use crate::telemetry::record::Side;
use crate::ws::passage::{Passage, Stop};

/// One direction of a session.
#[derive(Debug)]
pub(super) struct Direction {
    source: Side,
    state: State,
    is_truncated: bool,
    /// How its frames go through; `None` where they are not followed: bytes only.
    passage: Option<Passage>,
    /// What has come and could not go on yet: part of a header or of a control frame, or what a
    /// throttle holds back. Holds no memory while it is empty.
    held: Box<[u8]>,
    /// Whether there is more to be done with `held` before anything else is read.
    has_more: bool,
    /// A throttle: until then nothing is read.
    pause: Option<Pin<Box<Sleep>>>,
    /// Bytes that were read and went nowhere, since nothing goes on any more.
    swallowed: usize,
    /// What it is while it has more to relay than one turn takes.
    bulk: Option<Box<Bulk>>,
}

/// How much is read from a side whose words go nowhere any more, in the hope of its Close. Beyond, it
/// is not read, so that it cannot keep us busy.
const SWALLOWED_BYTES: usize = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Both sides have said Close, and the destination gets its end behind the second one; that of
    /// the source is still to come, and nothing that it says before goes on.
    Parting,
    /// The source has ended; its end is being passed on behind what is stuck.
    Ending,
    /// The end has been passed on, or there is nobody to pass it on to.
    Closed,
}

/// How far a direction has come, when it has come to something.
#[derive(Debug)]
pub(super) enum Flow {
    /// Its end has been passed on, or there is nobody to pass it on to; and how it ended.
    Closed(End),
    /// It cannot go on.
    Broken(Broken),
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By a FIN, where frames are not followed.
    Closed,
    /// By a FIN, without a Close before it.
    Gone,
    /// By a FIN without the end of TLS before it.
    Truncated,
}

impl End {
    /// As the log has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Gone => "gone",
            Self::Truncated => "truncated",
        }
    }
}

/// Which side of a direction failed.
#[derive(Debug)]
pub(super) enum Broken {
    /// The leg that is read.
    Source(io::Error),
    /// The leg that is written.
    Destination(io::Error),
}

/// A turn that ended before there was nothing left to relay.
#[derive(Debug, Clone, Copy)]
enum Interrupted {
    /// It is used up.
    Used,
    /// It is another's.
    Others,
}

impl Direction {
    /// What `source` says, and how it goes through.
    pub(super) fn new(source: Side, passage: Option<Passage>) -> Self {
        Self {
            source,
            state: State::Open,
            is_truncated: false,
            passage,
            held: Box::default(),
            has_more: false,
            pause: None,
            swallowed: 0,
            bulk: None,
        }
    }

    /// Whether nothing more will go this way.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether its source has ended.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ending | State::Closed)
    }

    /// Whether there is something that waits to go on.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether its source is not being read for a while, for a throttle's sake.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Relays as much as there is and fits, and as the others of this worker leave time for.
    pub(super) fn poll(
        &mut self,
        from: &mut Leg,
        to: &mut Leg,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        about: (&mut Dialogue, &Entry),
    ) -> Poll<Flow> {
        match self.poll_turn(from, to, cx, scratch, about) {
            Poll::Ready(Err(interrupted)) => {
                if let Interrupted::Used = interrupted {
                    self.bulk.get_or_insert_with(|| Box::new(Bulk::new())).has_more();
                }
                come_back_after_others(cx);
                Poll::Pending
            }
            Poll::Ready(Ok(flow)) => {
                self.bulk = None;
                Poll::Ready(flow)
            }
            Poll::Pending => {
                self.bulk = None;
                Poll::Pending
            }
        }
    }

    fn poll_turn(
        &mut self,
        from: &mut Leg,
        to: &mut Leg,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        (dialogue, session): (&mut Dialogue, &Entry),
    ) -> Poll<Result<Flow, Interrupted>> {
        let Scratch { input, output } = scratch;
        for _ in 0..from.reads_in_a_turn() {
            if self.state == State::Closed {
                return Poll::Ready(Ok(Flow::Closed(self.how_it_ended(dialogue))));
            }
            // Back-pressure: while something is stuck, the source is not read.
            let flushed = ready!(to.poll_flush(cx));
            let said = match flushed {
                Ok(()) if self.has_to_say(dialogue) => {
                    self.say(to, cx, output, (dialogue, session))
                }
                other => other,
            };
            if let Err(error) = said {
                return self.broken(Broken::Destination(error));
            }
            if let State::Parting | State::Ending = self.state {
                if let Err(error) = ready!(to.poll_finish(cx)) {
                    return self.broken(Broken::Destination(error));
                }
                if self.state == State::Ending {
                    self.state = State::Closed;
                    continue;
                }
            }
            if to.is_stuck() {
                continue;
            }
            if let Some(pause) = &mut self.pause {
                // Nobody is throttled on the way out.
                if !dialogue.is_ending() {
                    ready!(pause.as_mut().poll(cx));
                }
                self.pause = None;
            }
            if self.swallowed > SWALLOWED_BYTES {
                return Poll::Pending;
            }
            if self.bulk.as_mut().is_some_and(|bulk| !bulk.goes_on()) {
                return Poll::Ready(Err(Interrupted::Others));
            }
            input.begin_with(&self.held);
            if !self.has_more {
                match ready!(from.poll_receive(cx, input)) {
                    Ok(Received::Bytes) => session.heard(self.source),
                    Ok(end @ (Received::End | Received::Truncated)) => {
                        self.is_truncated = end == Received::Truncated;
                        self.state = State::Ending;
                        // Half a header tells nobody anything, and would stand in the way.
                        self.held = Box::default();
                        self.hurry();
                        dialogue.source_ended(self.source);
                        continue;
                    }
                    Err(error) => return self.broken(Broken::Source(error)),
                }
            }
            if let Err(error) = self.pass_on(to, cx, (input.received(), output), dialogue, session)
            {
                return self.broken(Broken::Destination(error));
            }
            // All that there was has gone on, and what comes next is awaited already.
            if self.is_at_rest(from, to, dialogue) {
                return Poll::Pending;
            }
        }
        Poll::Ready(Err(Interrupted::Used))
    }

    /// Whether there is nothing to be done until something comes from its source, and nothing has:
    /// so it is when a message has gone on, and nearly always with the other direction.
    #[inline]
    pub(super) fn is_at_rest(&self, from: &Leg, to: &Leg, dialogue: &Dialogue) -> bool {
        from.is_silent()
            && self.state == State::Open
            && !self.has_more
            && self.bulk.is_none()
            && !to.is_stuck()
            && !self.has_to_say(dialogue)
    }

    /// Sends what we ourselves have to say this way, if [`Direction::has_to_say`]. Nothing may be
    /// stuck.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub(super) fn say(
        &mut self,
        to: &mut Leg,
        cx: &mut Context<'_>,
        output: &mut Output,
        (dialogue, session): (&mut Dialogue, &Entry),
    ) -> io::Result<()> {
        let side = self.source.other();
        let (Some(passage), Some(ours)) = (&mut self.passage, dialogue.take_waiting(side)) else {
            return Ok(());
        };
        passage.inserted(&ours);
        dialogue.placed(side, &ours, session);
        to.send(&ours.frame, cx, output)
    }

    /// Whether there is something of ours to be sent this way, and a place for it.
    #[inline]
    pub(super) fn has_to_say(&self, dialogue: &Dialogue) -> bool {
        self.state != State::Closed
            && dialogue.waiting(self.source.other()).is_some_and(|ours| {
                self.passage.as_ref().is_some_and(|passage| passage.takes(ours))
            })
    }

    /// There is no time for a Close of ours to wait for the end of a message, or it will not come.
    pub(super) fn hurry(&mut self) {
        if let Some(passage) = &mut self.passage {
            passage.hurry();
        }
    }

    /// Sends on what of `bytes` may go on.
    fn pass_on(
        &mut self,
        to: &mut Leg,
        cx: &mut Context<'_>,
        (bytes, output): (&[u8], &mut Output),
        dialogue: &mut Dialogue,
        session: &Entry,
    ) -> io::Result<()> {
        self.has_more = false;
        let budget = dialogue.budget(self.source);
        let Some(passage) = &mut self.passage else {
            let (forward, rest) = bytes.split_at(bytes.len().min(budget));
            self.hold(rest, !rest.is_empty(), dialogue);
            dialogue.spent(self.source, forward.len());
            session.relayed(self.source, forward.len());
            return to.send(forward, cx, output);
        };
        let side = self.source.other();
        let ours = dialogue.take_waiting(side);
        let followed = passage.follow(bytes, budget, ours.as_deref(), |step, bytes| {
            dialogue.judge(self.source, step, bytes, session)
        });
        match ours {
            Some(ours) if followed.is_inserted => dialogue.placed(side, &ours, session),
            Some(ours) => dialogue.keep(side, ours),
            None => {}
        }
        if passage.has_said() {
            dialogue.told_by_peer(side);
            if dialogue.is_over_for(side) {
                passage.give_up();
                self.state = State::Parting;
            }
        }
        if !passage.is_open() {
            self.swallowed += bytes.len() - followed.relayed - followed.rest.len();
        }
        if followed.relayed > 0 {
            dialogue.spent(self.source, followed.relayed);
            session.relayed(self.source, followed.relayed);
            session.record().counted(self.source, passage.counts());
        }
        let is_held = followed.stop == Some(Stop::Held);
        if let Some(Stop::Violated(violation)) = followed.stop {
            match dialogue.violated(self.source, violation, session) {
                Tolerance::LetPass if passage.is_open() => self.passage = None,
                _ => passage.give_up(),
            }
            self.has_more = true;
        }
        self.hold(followed.rest, is_held, dialogue);
        match self.state {
            _ if followed.forward.is_empty() => Ok(()),
            State::Parting => to.send_last(&followed.forward, cx, output),
            State::Open | State::Ending | State::Closed => to.send(&followed.forward, cx, output),
        }
    }

    /// Keeps what could not go on yet, for a throttle's sake or for more to come.
    fn hold(&mut self, rest: &[u8], is_throttled: bool, dialogue: &Dialogue) {
        if !(rest.is_empty() && self.held.is_empty()) {
            self.held = rest.into();
        }
        if is_throttled {
            self.has_more = true;
            self.pause = Some(Box::pin(sleep(dialogue.pause())));
        }
    }

    fn how_it_ended(&self, dialogue: &Dialogue) -> End {
        match (self.is_truncated, dialogue.is_followed()) {
            (true, _) => End::Truncated,
            (false, true) => End::Gone,
            (false, false) => End::Closed,
        }
    }

    fn broken(&mut self, broken: Broken) -> Poll<Result<Flow, Interrupted>> {
        self.hurry();
        self.state = match broken {
            // Its destination can still be told.
            Broken::Source(_) => State::Ending,
            Broken::Destination(_) => State::Closed,
        };
        Poll::Ready(Ok(Flow::Broken(broken)))
    }
}
