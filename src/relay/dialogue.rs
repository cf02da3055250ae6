//! What the two sides of a session have said to each other so far as it decides what goes on: the
//! closing handshake, our Pings, the limits of the route, and what we ourselves have to say.
//!
//! It reads and writes nothing. A [`Direction`](super::direction::Direction) shows it every frame
//! and takes its verdict; the relay asks it how far the ending has come.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::allowance::Allowance;
use super::sessions::{Entry, Why};
use super::trace::{Speaker, print_frame};
use crate::config::{self, Frames, OverRate, Trace};
use crate::random;
use crate::telemetry::record::{EndedBy, Side};
use crate::ws::close::{CloseCode, Said, close_frame};
use crate::ws::frame::{FrameHeader, Opcode};
use crate::ws::keepalive::Keepalive;
use crate::ws::passage::{Insertion, Passage, Verdict};
use crate::ws::tracker::{Masking, Step, Strictness, Tracker, Violation};

/// What has been said, and what is to be said, in one session.
pub(super) struct Dialogue {
    route: Arc<config::Route>,
    /// Whether frames are being followed: not with `frames = "off"`, and not any more after a
    /// violation that was let pass.
    is_followed: bool,
    client: Party,
    upstream: Party,
    /// What the client may still send, where that is limited.
    allowance: Option<Box<Allowance>>,
    /// Whether somebody has begun to end the session: whatever follows is an answer.
    is_ending: bool,
    /// How we end the session, once we do.
    farewell: Option<Box<Farewell>>,
}

/// One side of the dialogue.
#[derive(Default)]
struct Party {
    keepalive: Keepalive,
    /// What we have to say to it, until that has found its place in the stream.
    waiting: Option<Box<Insertion>>,
    /// Whether it has said Close.
    has_said: bool,
    /// Whether it was sent a Close, the other side's or ours.
    is_told: bool,
}

/// How we end a session. One side is told first. What the other still has to say to it, answers to
/// what came before, goes on until that one has closed; only then it is told as well.
#[derive(Debug)]
struct Farewell {
    reason: Rc<str>,
    /// Who is told last, and with which code.
    last: (Side, CloseCode),
    /// Whether a side did what it may not: then no answer is waited for (RFC 6455 §7.1.7).
    is_blame: bool,
}

impl Dialogue {
    /// The dialogue of a session on `route`, at its beginning.
    pub(super) fn new(route: &Arc<config::Route>, now: Instant) -> Self {
        Self {
            route: route.clone(),
            is_followed: route.frames != Frames::Off,
            client: Party::default(),
            upstream: Party::default(),
            allowance: Allowance::new(route, now).map(Box::new),
            is_ending: false,
            farewell: None,
        }
    }

    /// How what `source` says goes through; `None` where frames are not followed. `meaningful`
    /// has the RSV bits that were agreed on.
    pub(super) fn passage(&self, source: Side, meaningful: u8) -> Option<Passage> {
        let strictness = match self.route.frames {
            Frames::Off => return None,
            Frames::Track => Strictness::Lenient,
            Frames::Enforce => Strictness::Strict,
        };
        Some(Passage::new(Tracker::new(masking(source), strictness, meaningful)))
    }

    /// Whether frames are being followed.
    pub(super) fn is_followed(&self) -> bool {
        self.is_followed
    }

    fn party(&self, side: Side) -> &Party {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }

    fn party_mut(&mut self, side: Side) -> &mut Party {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }

    /// What is to become of a frame of `source`, whose bytes begin `bytes`.
    pub(super) fn judge(
        &mut self,
        source: Side,
        step: &Step<'_>,
        bytes: &[u8],
        session: &Entry,
    ) -> Verdict {
        match step {
            Step::Data { header, len, message_bytes } => {
                let verdict = self.judge_data(source, header, *len, *message_bytes, session);
                // What is held comes again.
                if verdict != Verdict::Hold {
                    self.trace(Speaker::Peer(source), header, &bytes[*len..], session);
                }
                verdict
            }
            Step::Control { header, payload, .. } => {
                self.trace(Speaker::Peer(source), header, payload, session);
                match header.opcode {
                    Opcode::Close => self.heard_close(source, &header.unmasked(payload), session),
                    Opcode::Pong => self.judge_pong(source, &header.unmasked(payload), session),
                    Opcode::Ping | Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                        Verdict::Pass
                    }
                }
            }
            Step::Payload(_) | Step::Missing => Verdict::Pass,
        }
    }

    fn judge_data(
        &mut self,
        source: Side,
        header: &FrameHeader,
        len: usize,
        message_bytes: u64,
        session: &Entry,
    ) -> Verdict {
        // Limits are kept while the session lasts, and as long as it is more than mere bytes.
        if self.farewell.is_some() || !self.is_followed {
            return Verdict::Pass;
        }
        let is_beyond = |limit: Option<config::units::ByteSize>, bytes: u64| {
            limit.is_some_and(|limit| bytes > limit.bytes())
        };
        let too_big = if is_beyond(self.route.max_frame, header.payload_len) {
            Some(Why::MaxFrame)
        } else if is_beyond(self.route.max_message, message_bytes) {
            Some(Why::MaxMessage)
        } else {
            None
        };
        if let Some(why) = too_big {
            self.blame(source, CloseCode::TooBig, why, session);
            return Verdict::Refuse;
        }
        let frame_bytes = header.payload_len.saturating_add(len as u64);
        let over = self
            .allowance_of(source)
            .and_then(|allowance| allowance.judge(header.opcode, frame_bytes));
        match (over, self.route.over_rate) {
            (None, _) => Verdict::Pass,
            (Some(_), OverRate::Throttle) => Verdict::Hold,
            (Some(why), OverRate::Close) => {
                self.blame(source, CloseCode::PolicyViolation, why, session);
                Verdict::Refuse
            }
        }
    }

    fn judge_pong(&mut self, source: Side, payload: &[u8], session: &Entry) -> Verdict {
        match self.party_mut(source).keepalive.pong(payload, Instant::now()) {
            Some(answer) => {
                if let Some(round_trip) = answer.round_trip {
                    session.record().round_trip(source, round_trip);
                }
                Verdict::TakeOut
            }
            None => Verdict::Pass,
        }
    }

    fn heard_close(&mut self, source: Side, payload: &[u8], session: &Entry) -> Verdict {
        self.party_mut(source).has_said = true;
        session.record().said_close(source, Said::read(payload));
        if !std::mem::replace(&mut self.is_ending, true) {
            session.ended(source.into(), "closed");
        }
        session.leaving();
        match &self.farewell {
            // It answers us; whoever is to blame gets a Close of its own.
            Some(farewell) if farewell.is_blame => {
                self.tell_last(source.other());
                Verdict::Refuse
            }
            Some(_) | None => Verdict::Pass,
        }
    }

    /// Says what we owe to `side` if it is the last that is told.
    fn tell_last(&mut self, side: Side) {
        if let Some(farewell) = &self.farewell
            && let (last, code) = farewell.last
            && last == side
        {
            let reason = farewell.reason.clone();
            self.want_close(side, code, &reason);
        }
    }

    /// `side` was sent the other side's Close.
    pub(super) fn told_by_peer(&mut self, side: Side) {
        let party = self.party_mut(side);
        party.is_told = true;
        party.waiting = None;
    }

    /// Whether `side`, which was just sent the other side's Close, is to be given its end at once:
    /// it has said Close itself, and to it we are the server (RFC 6455 §7.1.1). To the upstream
    /// we are the client, who waits for the server to close.
    pub(super) fn is_over_for(&self, side: Side) -> bool {
        side == Side::Client && self.client.has_said && self.upstream.is_told
    }

    /// `source` did what a header must not show. Whether it may go on, unfollowed.
    pub(super) fn violated(
        &mut self,
        source: Side,
        violation: Violation,
        session: &Entry,
    ) -> Tolerance {
        session.record().violated(source, violation);
        match self.route.frames {
            Frames::Track | Frames::Off => {
                self.is_followed = false;
                self.client.waiting = None;
                self.upstream.waiting = None;
                session.stop_pings();
                Tolerance::LetPass
            }
            Frames::Enforce => {
                if self.farewell.is_none() {
                    self.blame(
                        source,
                        CloseCode::ProtocolError,
                        Why::Violation(violation),
                        session,
                    );
                }
                Tolerance::Refuse
            }
        }
    }

    /// `source` has ended its direction. Without a Close before it, the other side is told so.
    pub(super) fn source_ended(&mut self, source: Side) {
        self.is_ending = true;
        let (code, reason) = gone(source);
        self.lost(source, code, reason);
    }

    /// Ends the session from our side, the client first: what it still has to say before its own
    /// Close goes to the upstream. Whether anybody can be told.
    pub(super) fn say_goodbye(&mut self, why: Why, session: &Entry) -> bool {
        session.ended(EndedBy::Tidegate, why);
        self.is_ending = true;
        if !self.is_followed {
            return false;
        }
        let parting = session.parting();
        let (code, reason) = match &parting {
            Some(parting) => (parting.code, &*parting.reason),
            None => (CloseCode::GoingAway, why.name()),
        };
        self.farewell.get_or_insert_with(|| {
            let last = (Side::Upstream, CloseCode::GoingAway);
            Box::new(Farewell { reason: reason.into(), last, is_blame: false })
        });
        if !self.client.is_told && !self.client.has_said {
            self.want_close(Side::Client, code, reason);
        }
        session.leaving();
        true
    }

    /// Who was told first took too long to close: nobody is waited for any more.
    pub(super) fn give_up(&mut self) {
        if self.is_followed
            && let Some(last) = self.farewell.as_ref().map(|farewell| farewell.last.0)
        {
            self.tell_last(last);
        }
    }

    /// `offender` did what it may not: it is told with `code`, the other side that it is over. A
    /// client is told last: answers to what it said before may be on their way.
    fn blame(&mut self, offender: Side, code: CloseCode, why: Why, session: &Entry) {
        session.ended(EndedBy::Tidegate, why);
        self.is_ending = true;
        let reason = why.name();
        let last = (offender, code);
        self.farewell = Some(Box::new(Farewell { reason: reason.into(), last, is_blame: true }));
        match offender {
            Side::Client => self.want_close(Side::Upstream, CloseCode::GoingAway, reason),
            Side::Upstream => {
                let is_nonsense = code == CloseCode::ProtocolError;
                let for_the_client =
                    if is_nonsense { CloseCode::BadGateway } else { CloseCode::GoingAway };
                self.want_close(Side::Client, for_the_client, reason);
                self.tell_last(Side::Upstream);
            }
        }
        session.leaving();
    }

    /// One leg was lost without a Close: the other side is to be told with `code`, unless we have
    /// something else to say to it.
    pub(super) fn lost(&mut self, gone: Side, code: CloseCode, reason: &str) {
        let left = gone.other();
        if self.is_followed && !self.party(left).is_told {
            self.tell_last(left);
            self.want_close(left, code, reason);
        }
    }

    fn want_close(&mut self, side: Side, code: CloseCode, reason: &str) {
        let party = self.party_mut(side);
        if party.is_told || party.waiting.as_ref().is_some_and(|waiting| waiting.is_close) {
            return;
        }
        let key = random::masking_key();
        let frame = close_frame(code, reason, masking(side.other()), key);
        party.waiting = Some(Box::new(Insertion { frame, is_close: true }));
    }

    /// Has a Ping for `side` ready, if nothing else is to be said to it.
    pub(super) fn want_ping(&mut self, side: Side) {
        if !self.is_followed || self.farewell.is_some() {
            return;
        }
        let party = self.party_mut(side);
        if party.waiting.is_none() && !party.is_told {
            let frame = party.keepalive.ping(masking(side.other()), random::bytes);
            party.waiting = Some(Box::new(Insertion { frame, is_close: false }));
        }
    }

    /// Takes what is to be said to `side`, to be given back to [`Dialogue::keep`] or
    /// [`Dialogue::placed`].
    pub(super) fn take_waiting(&mut self, side: Side) -> Option<Box<Insertion>> {
        self.party_mut(side).waiting.take()
    }

    /// There was no place for it yet.
    pub(super) fn keep(&mut self, side: Side, insertion: Box<Insertion>) {
        // Meanwhile something may have been wanted that matters more.
        self.party_mut(side).waiting.get_or_insert(insertion);
    }

    /// It has found its place in the stream.
    pub(super) fn placed(&mut self, side: Side, insertion: &Insertion, session: &Entry) {
        let Ok(Some((header, len))) = FrameHeader::parse(&insertion.frame) else { return };
        let payload = &insertion.frame[len..];
        self.trace(Speaker::Tidegate(side), &header, payload, session);
        let party = self.party_mut(side);
        if insertion.is_close {
            party.is_told = true;
            session.record().told_close(side, Said::read(&header.unmasked(payload)).code);
        } else {
            let now = Instant::now();
            party.keepalive.went_out(now);
            session.pinged(side, now);
        }
    }

    /// What is still to be said to `side`.
    pub(super) fn waiting(&self, side: Side) -> Option<&Insertion> {
        self.party(side).waiting.as_deref()
    }

    /// Whether a Close was sent to `side`.
    pub(super) fn is_told(&self, side: Side) -> bool {
        self.party(side).is_told
    }

    /// Whether we are ending the session and have nothing more to hear from `side`, which may
    /// have ended without a word.
    pub(super) fn is_settled(&self, side: Side, has_ended: bool) -> bool {
        let Some(farewell) = &self.farewell else { return false };
        let party = self.party(side);
        has_ended || (party.is_told && (party.has_said || farewell.is_blame))
    }

    /// What `source` may still send, if that is limited. Nobody is throttled on the way out: what
    /// is held back has to arrive before the end does.
    fn allowance_of(&mut self, source: Side) -> Option<&mut Allowance> {
        let is_limited = source == Side::Client && !self.is_ending;
        self.allowance.as_deref_mut().filter(|_| is_limited)
    }

    /// Whether somebody has begun to end the session.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// How many bytes of `source` may go on now.
    pub(super) fn budget(&mut self, source: Side) -> usize {
        self.allowance_of(source).map_or(usize::MAX, Allowance::budget)
    }

    /// So many bytes of `source` have gone on.
    pub(super) fn spent(&mut self, source: Side, bytes: usize) {
        if let Some(allowance) = self.allowance_of(source) {
            allowance.spent(bytes);
        }
    }

    /// How long a client that has used up its allowance is not read.
    pub(super) fn pause(&self) -> Duration {
        self.allowance.as_ref().map_or(Duration::ZERO, |allowance| allowance.pause())
    }

    fn trace(&self, speaker: Speaker, header: &FrameHeader, payload: &[u8], session: &Entry) {
        if self.route.trace != Trace::Off {
            print_frame(self.route.trace, speaker, header, payload, session);
        }
    }
}

/// What a violation leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tolerance {
    /// It and all that follows go on as they are.
    LetPass,
    /// Nothing more goes on.
    Refuse,
}

/// The code and the reason for the side that stays when one goes without a Close.
pub(super) fn gone(side: Side) -> (CloseCode, &'static str) {
    match side {
        Side::Client => (CloseCode::GoingAway, "the client is gone"),
        Side::Upstream => (CloseCode::BadGateway, "the upstream is gone"),
    }
}

/// Whether what comes from `source` is masked.
fn masking(source: Side) -> Masking {
    match source {
        Side::Client => Masking::Required,
        Side::Upstream => Masking::Forbidden,
    }
}
