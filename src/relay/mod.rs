//! The relay: two open legs joined until both directions are closed. HTTP is over by then.
//!
//! One task polls both directions of a session. Nobody owns a buffer while nothing is stuck in
//! it: a leg is read into the worker's scratch buffers and written to the other one at once; only
//! what the kernel does not take stays behind, with the leg it is for, and until that is gone its
//! source is not read.
//!
//! Frames are followed on their way (`direction`, with `ws::passage`), and what they mean for the
//! session is kept in one place (`dialogue`). A side that goes without a Close is told to the other
//! in one, before the FIN or instead of the RST that would follow; where frames are not followed,
//! FIN is half-close and goes through, and RST ends the other side at once.

mod allowance;
mod backlog;
pub mod departure;
mod dialogue;
mod direction;
mod legs;
pub mod sessions;
mod trace;
mod turns;
pub mod view;
mod wire;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use crate::route::Route;
use crate::telemetry::record::{EndedBy, Record, Side};
use crate::transport::Stream;
use crate::upstream::endpoint::Endpoint;
use crate::ws::close::CloseCode;
use dialogue::Dialogue;
use direction::{Broken, Direction, End, Flow};
use legs::Leg;
use sessions::{Entry, Order, Ping, Sessions, Why};

pub use legs::Scratch;

thread_local! {
    /// A worker's scratch buffers. They are lent to one poll of one session at a time.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// How often a side that is to be reset is asked whether it has received everything.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Two open legs and what was agreed on for them.
pub struct Opening {
    /// The client's leg, and what was read of it already.
    pub client: (Stream, Bytes),
    /// The upstream's, likewise.
    pub upstream: (Stream, Bytes),
    /// The RSV bits that extensions gave a meaning to, in the places of `FrameHeader::reserved`.
    pub meaningful_reserved: u8,
    /// The route it came by.
    pub route: Arc<Route>,
    /// The endpoint that it leads to.
    pub endpoint: Arc<Endpoint>,
    /// Its record.
    pub record: Record,
}

/// The future that joins two legs until both are closed, and notes in the record who ended it and
/// why. It is most of what an idle session holds.
pub struct Relay {
    client: Leg,
    upstream: Leg,
    to_upstream: Direction,
    to_client: Direction,
    dialogue: Dialogue,
    /// Who ended its direction first and how; the other may go on for long, and end worse.
    first_end: Option<(Side, End)>,
    /// The side that takes nothing any more while the other has not ended.
    deaf: Option<Side>,
    /// What the client and the upstream had acknowledged when they were last looked at.
    acknowledged: [u64; 2],
    stage: Stage,
    session: Entry,
}

/// Where a relay stands. It only ever moves forward.
enum Stage {
    /// Both directions go on as long as they can.
    Relaying,
    /// One side is gone, and the other has not received everything yet: when to look again.
    Losing { gone: Side, look: Pin<Box<Sleep>> },
    /// Nothing more is relayed: both sides get their end behind what is stuck, with a Close before
    /// it where one is due and can be put, and are waited for.
    Closing,
}

const BOTH: [Side; 2] = [Side::Client, Side::Upstream];

impl Future for Relay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.session.remember(cx.waker()) {
            this.client.forget_waker();
            this.upstream.forget_waker();
        }
        if let Some(order) = this.session.take_order()
            && this.obey(order).is_ready()
        {
            return Poll::Ready(());
        }
        SCRATCH.with_borrow_mut(|scratch| {
            if let Stage::Relaying = this.stage
                && this.poll_relay(cx, scratch).is_ready()
            {
                return Poll::Ready(());
            }
            // Relaying may just have come to one of the others.
            match this.stage {
                Stage::Relaying => Poll::Pending,
                Stage::Losing { .. } => this.poll_lose(cx),
                Stage::Closing => this.poll_close(cx, scratch),
            }
        })
    }
}

impl Relay {
    /// Opens the session.
    pub fn new(opening: Opening, sessions: &Rc<Sessions>) -> Self {
        let Opening { client, upstream, meaningful_reserved, route, endpoint, record } = opening;
        let session = sessions.open(record, &route, &endpoint);
        let dialogue = Dialogue::new(&route.config, std::time::Instant::now());
        let direction =
            |source| Direction::new(source, dialogue.passage(source, meaningful_reserved));
        Self {
            client: Leg::new(client.0, client.1),
            upstream: Leg::new(upstream.0, upstream.1),
            to_upstream: direction(Side::Client),
            to_client: direction(Side::Upstream),
            dialogue,
            first_end: None,
            deaf: None,
            acknowledged: [0; 2],
            stage: Stage::Relaying,
            session,
        }
    }

    /// Relays both ways. Pending also when that has led to another stage.
    fn poll_relay(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        for from in BOTH {
            match self.poll_direction(from, cx, scratch) {
                Poll::Ready(Flow::Broken(Broken::Source(error))) => {
                    return self.lose(from, &why(&error));
                }
                Poll::Ready(Flow::Broken(Broken::Destination(error))) => {
                    self.deafened(from.other(), &error);
                }
                Poll::Ready(Flow::Closed(end)) => {
                    self.first_end.get_or_insert((from, end));
                    self.session.half_closed();
                }
                Poll::Pending => {}
            }
        }
        self.session.unread(Side::Client, self.upstream.is_stuck() || self.to_upstream.is_paused());
        self.session.unread(Side::Upstream, self.client.is_stuck());
        if !matches!(self.stage, Stage::Relaying) {
            return Poll::Pending;
        }
        // What one direction gave us to say in the other, which had its turn before.
        let has_to_say = |direction: &Direction, leg: &Leg| {
            direction.has_to_say(&self.dialogue) && !leg.is_stuck()
        };
        if has_to_say(&self.to_upstream, &self.upstream)
            || has_to_say(&self.to_client, &self.client)
        {
            cx.waker().wake_by_ref();
        }
        if !(self.to_upstream.is_closed() && self.to_client.is_closed()) {
            if BOTH.iter().all(|side| self.is_settled(*side)) {
                self.close();
            }
            return Poll::Pending;
        }
        if let Some((by, end)) = self.first_end {
            self.session.ended(by.into(), end.name());
        }
        // The other may still be sending to a side that is gone. Closing on unread input would be a
        // reset, and take with it what that one has not received yet.
        self.deaf.map_or(Poll::Ready(()), |gone| self.lose(gone, "reset"))
    }

    fn poll_direction(
        &mut self,
        from: Side,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<Flow> {
        let about = (&mut self.dialogue, &self.session);
        let (direction, from, to) = match from {
            Side::Client => (&mut self.to_upstream, &mut self.client, &mut self.upstream),
            Side::Upstream => (&mut self.to_client, &mut self.upstream, &mut self.client),
        };
        if direction.is_at_rest(from, to, about.0) {
            return Poll::Pending;
        }
        direction.poll(from, to, cx, scratch, about)
    }

    /// Whether we are ending the session and nothing more is expected of this side.
    fn is_settled(&self, side: Side) -> bool {
        self.dialogue.is_settled(side, self.direction_from(side).has_ended())
    }

    /// Nothing more can be said to one side; but what it said before it went, its Close perhaps,
    /// may still wait to be read, so the other direction runs to its end.
    fn deafened(&mut self, side: Side, error: &io::Error) {
        if error.kind() == io::ErrorKind::QuotaExceeded {
            self.session.ended(EndedBy::Tidegate, error);
            self.dialogue.lost(side, CloseCode::InternalError, "the proxy cannot go on");
            self.close();
            return;
        }
        // Whether it has closed, left or been cut off, its own direction tells.
        self.session.half_closed();
        self.deaf = Some(side);
    }

    /// One side is gone. The other hears of it in a Close, where one can be put; where not, by a
    /// reset: at once, unless something of what the lost one said is still on its way to it, which
    /// a reset would take back.
    fn lose(&mut self, gone: Side, why: &str) -> Poll<()> {
        self.session.ended(gone.into(), why);
        let (code, reason) = dialogue::gone(gone);
        self.dialogue.lost(gone, code, reason);
        let left = gone.other();
        self.direction_from_mut(gone).hurry();
        if self.direction_from(gone).has_to_say(&self.dialogue) || self.dialogue.is_told(left) {
            self.leg_mut(gone).abandon();
            self.close();
            return Poll::Pending;
        }
        let left = self.leg(left);
        if left.is_delivered() {
            left.reset();
            return Poll::Ready(());
        }
        self.session.half_closed();
        self.stage = Stage::Losing { gone, look: Box::pin(sleep(LOOK_AGAIN)) };
        Poll::Pending
    }

    /// Waits until the side that is left has everything, and resets it.
    fn poll_lose(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Losing { gone, look } = &mut self.stage else { return Poll::Pending };
        let left = match gone {
            Side::Client => &mut self.upstream,
            Side::Upstream => &mut self.client,
        };
        loop {
            if let Poll::Ready(Err(_)) = left.poll_flush(cx) {
                return Poll::Ready(());
            }
            if left.is_delivered() {
                left.reset();
                return Poll::Ready(());
            }
            // The kernel has no word for "everything has arrived".
            ready!(look.as_mut().poll(cx));
            look.as_mut().reset(Instant::now() + LOOK_AGAIN);
        }
    }

    fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }

    fn leg_mut(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }

    fn direction_from(&self, side: Side) -> &Direction {
        match side {
            Side::Client => &self.to_upstream,
            Side::Upstream => &self.to_client,
        }
    }

    fn direction_from_mut(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Client => &mut self.to_upstream,
            Side::Upstream => &mut self.to_client,
        }
    }

    fn obey(&mut self, order: Order) -> Poll<()> {
        let is_relaying = matches!(self.stage, Stage::Relaying);
        match order {
            Order::Look => return self.look(),
            Order::Dead(side) => {
                // Otherwise it is on its way out already.
                if is_relaying {
                    if matches!(self.session.ping(side), Ping::Wanted(_)) {
                        self.session.record().reason("it took nothing, not even a Ping");
                    }
                    return self.lose(side, "ping timeout");
                }
            }
            Order::End(why) => {
                if let Some(gone) = self.deaf {
                    self.session.ended(gone.into(), "reset");
                }
                if !(is_relaying && self.dialogue.say_goodbye(why, &self.session)) {
                    self.session.ended(EndedBy::Tidegate, why);
                    self.close();
                }
            }
            Order::GiveUp => {
                self.session.ended(EndedBy::Tidegate, Why::NotLeaving);
                self.dialogue.give_up();
                self.close();
            }
            // What the kernels have not delivered yet, they still may.
            Order::Cut(why) => {
                self.session.ended(EndedBy::Tidegate, why);
                if BOTH.iter().any(|side| self.leg(*side).is_stuck()) {
                    self.session.record().reason("a side did not take all that was sent to it");
                }
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Finds out what nobody tells: that a leg which is not being read was reset, and how far what
    /// was sent has come.
    fn look(&mut self) -> Poll<()> {
        if let Stage::Relaying = self.stage {
            match BOTH.into_iter().find(|side| self.leg(*side).is_reset()) {
                // What it said before can still be read, at the pace of the other.
                Some(gone)
                    if self.leg(gone).has_unread() || self.direction_from(gone).has_more() =>
                {
                    self.session.half_closed();
                }
                Some(gone) => return self.lose(gone, "reset"),
                None => {}
            }
        }
        if self.to_upstream.is_paused() {
            self.session.moves();
        }
        for side in BOTH {
            let acknowledged = self.leg(side).acknowledged();
            let before = std::mem::replace(&mut self.acknowledged[side as usize], acknowledged);
            self.look_at_leg(side, acknowledged != before);
        }
        Poll::Pending
    }

    /// `has_moved`: whether this side has taken something since it was last looked at.
    fn look_at_leg(&mut self, side: Side, has_moved: bool) {
        let leg = self.leg(side);
        let is_taking = has_moved && !leg.is_delivered();
        let is_last = matches!(self.stage, Stage::Closing) || self.dialogue.is_told(side);
        if is_taking {
            self.session.moves();
            // Slow is not dead: its Close, and what was sent before it, is still on its way.
            if is_last {
                self.session.is_being_told();
            }
        }
        match self.session.ping(side) {
            Ping::Wanted(_) if self.dialogue.waiting(side).is_none() => {
                self.dialogue.want_ping(side);
            }
            // As long as it takes what is in the way of the Ping, it is there. Where only a frame
            // of the other side's is in the way, that one's own Ping will tell.
            Ping::Wanted(_) if has_moved || !self.leg(side).is_stuck() => {
                self.session.postpone(side);
            }
            Ping::Sent(_) if is_taking => self.session.postpone(side),
            Ping::Wanted(_) | Ping::Sent(_) | Ping::None | Ping::Never => {}
        }
    }

    fn close(&mut self) {
        for side in BOTH {
            self.direction_from_mut(side.other()).hurry();
            let direction = self.direction_from(side.other());
            let is_unsaid = self.dialogue.waiting(side).is_some_and(|ours| ours.is_close);
            if is_unsaid && !direction.is_closed() && !direction.has_to_say(&self.dialogue) {
                self.session.record().reason("a frame in flight left no place for a Close");
            }
        }
        self.stage = Stage::Closing;
        self.session.closing();
    }

    /// Gives both sides their FIN behind what is stuck, and waits for theirs.
    fn poll_close(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let about = (&mut self.dialogue, &self.session);
        let client = close_leg(&mut self.client, &mut self.to_client, cx, scratch, about);
        let about = (&mut self.dialogue, &self.session);
        let upstream = close_leg(&mut self.upstream, &mut self.to_upstream, cx, scratch, about);
        if client.is_ready() && upstream.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Ends a leg, with what we still have to say to it before its FIN. `direction` is the one that
/// leads to it.
fn close_leg(
    leg: &mut Leg,
    direction: &mut Direction,
    cx: &mut Context<'_>,
    scratch: &mut Scratch,
    (dialogue, session): (&mut Dialogue, &Entry),
) -> Poll<()> {
    let Scratch { input, output } = scratch;
    if direction.has_to_say(dialogue) && !leg.is_closed() {
        let flushed = ready!(leg.poll_flush(cx));
        // What goes wrong here, ending it finds out too.
        let _ = flushed.and_then(|()| direction.say(leg, cx, output, (dialogue, session)));
    }
    leg.poll_close(cx, input)
}

/// How the log names the end of a connection.
fn why(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted => "reset".into(),
        Kind::TimedOut => "lost: the network is silent".into(),
        // What TLS says of a record that cannot be opened, for one.
        _ => format!("lost: {error}"),
    }
}
