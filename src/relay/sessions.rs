//! The sessions of one worker, and the sweep that finds what is due: a session notes that
//! something went through it, and at each tick, once a second as a rule, the worker looks. No
//! timer is armed per session, let alone per read.
//!
//! A session about which nothing can be due yet is not even looked at: when something may be is in
//! a table of all sessions, which a sweep runs through from one end to the other. Traffic only ever
//! makes that later, so it is not written there; what makes it earlier, and the first byte after a
//! sweep, has the session looked at with the next one.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::departure::{Parting, Who};
use super::view::Watcher;
use crate::admin::snapshot::SessionInfo;
use crate::config;
use crate::lifecycle::standing::{Standing, State};
use crate::proxy::Running;
use crate::route::Route;
use crate::telemetry::record::{EndedBy, Record, Side, seconds};
use crate::upstream::endpoint::Endpoint;
use crate::ws::close::CloseCode;
use crate::ws::tracker::Violation;

/// Why we end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// `idle_timeout`
    Idle,
    /// `half_close_timeout`
    HalfClosed,
    /// The peers did not leave within `close_timeout`.
    NotLeaving,
    /// `max_age`
    MaxAge,
    /// `max_frame`
    MaxFrame,
    /// `max_message`
    MaxMessage,
    /// `message_rate`
    MessageRate,
    /// `byte_rate`
    ByteRate,
    /// `frames = "enforce"`
    Violation(Violation),
    /// The process is stopping.
    Drain,
    /// Its route is drained.
    RouteDrained,
    /// Its route is gone from the configuration.
    RouteRemoved,
    /// Its endpoint is drained.
    EndpointDrained,
    /// Its endpoint is gone from the configuration.
    EndpointRemoved,
    /// An operator closes it.
    Operator,
}

impl Why {
    /// What it is called in the log and in the Close that a peer gets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle timeout",
            Self::HalfClosed => "half-close timeout",
            Self::NotLeaving => "close timeout",
            Self::MaxAge => "max_age",
            Self::MaxFrame => "max_frame",
            Self::MaxMessage => "max_message",
            Self::MessageRate => "message_rate",
            Self::ByteRate => "byte_rate",
            Self::Violation(_) => "protocol error",
            Self::Drain => "drain",
            Self::RouteDrained => "route drained",
            Self::RouteRemoved => "route removed",
            Self::EndpointDrained => "endpoint drained",
            Self::EndpointRemoved => "endpoint removed",
            Self::Operator => "closed by the operator",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Why {
    /// The code of the client's Close where the configuration has no other: whose endpoint is gone
    /// may come again at once, and finds another.
    pub fn code(self) -> CloseCode {
        match self {
            Self::EndpointDrained | Self::EndpointRemoved => CloseCode::ServiceRestart,
            _ => CloseCode::GoingAway,
        }
    }
}

/// What a session is told to do. Of two, the later in this list prevails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Find out what nobody tells: whether a leg that is not being read is still there, how far
    /// what was sent has come; and see what is due to be pinged.
    Look,
    /// Say goodbye to both sides, then leave.
    End(Why),
    /// A side did not answer a Close in time: nobody is waited for any more.
    GiveUp,
    /// This side has answered no Ping.
    Dead(Side),
    /// Leave.
    Cut(Why),
}

impl Order {
    fn weight(self) -> u8 {
        match self {
            Self::Look => 0,
            Self::End(_) => 1,
            Self::GiveUp => 2,
            Self::Dead(_) => 3,
            Self::Cut(_) => 4,
        }
    }
}

/// The sessions of one worker.
#[derive(Debug)]
pub struct Sessions {
    /// Has the words for those that are sent away.
    running: Arc<ArcSwap<Running>>,
    /// When all moments begin.
    beginning: Instant,
    open: RefCell<Vec<Row>>,
    last_sweep: Cell<Moment>,
    /// With which words what opens from now on is to end at once: the process stops.
    ending: RefCell<Option<Rc<Parting>>>,
    watchers: RefCell<Vec<Rc<Watcher>>>,
}

/// A session in the table of all.
#[derive(Debug)]
struct Row {
    /// Before this a sweep need not look at it.
    due: Cell<Moment>,
    session: Rc<Session>,
}

/// Nanoseconds since the worker began: half the room of an [`Instant`], of which each session has
/// many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    const FIRST: Self = Self(0);
    const NEVER: Self = Self(u64::MAX);

    fn plus(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What the worker and the relay of one session know of each other.
pub(super) struct Session {
    record: Record,
    route: Arc<Route>,
    endpoint: Arc<Endpoint>,
    all: Rc<Sessions>,
    /// Its index in the table of all.
    row: Cell<usize>,
    opened: Moment,
    is_active: Cell<bool>,
    client: LegWatch,
    upstream: LegWatch,
    /// When a sweep last found it active, or when it came to the stage it is in.
    since: Cell<Moment>,
    stage: Cell<Stage>,
    pace: Cell<Pace>,
    /// With which words it is sent away, if it is.
    parting: OnceCell<Rc<Parting>>,
    order: Cell<Option<Order>>,
    waker: Cell<Option<Waker>>,
}

// There is one for every session, beside its relay and its record.
const _: () = assert!(size_of::<Session>() <= 176);

/// How much went through it as of late.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Bytes since `since`.
    bytes: u64,
    since: Moment,
    per_second: f32,
}

/// How long its bytes are gathered before they are made into a rate.
const PACE_OVER: Duration = Duration::from_secs(1);

impl Pace {
    fn new(now: Moment) -> Self {
        Self { bytes: 0, since: now, per_second: 0.0 }
    }

    fn is_at_rest(self) -> bool {
        self.bytes == 0 && self.per_second == 0.0
    }

    /// With what has gone through since the sweep at `last`.
    fn with(mut self, bytes: u64, last: Moment, now: Moment) -> Self {
        if self.is_at_rest() {
            // Nobody has looked at it in the meantime.
            self.since = self.since.max(last);
        }
        let (bytes, took) = (self.bytes + bytes, now.since(self.since));
        if took < PACE_OVER {
            return Self { bytes, ..self };
        }
        Self { bytes: 0, since: now, per_second: (bytes as f64 / took.as_secs_f64()) as f32 }
    }

    /// When it changes although nothing goes through.
    fn due(self) -> Moment {
        if self.is_at_rest() { Moment::NEVER } else { self.since.plus(PACE_OVER) }
    }
}

/// How a leg is doing.
#[derive(Debug)]
struct LegWatch {
    /// Whether anything came from it since the last sweep.
    is_heard: Cell<bool>,
    /// Whether it is not being read: then its silence says nothing.
    is_unread: Cell<bool>,
    silent_since: Cell<Moment>,
    ping: Cell<Ping>,
}

/// A Ping of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ping {
    /// There is none, or it was answered: by any byte at all.
    None,
    /// It waits for its place in the stream, and its time runs from here.
    Wanted(Moment),
    /// It was sent, and its time runs from here.
    Sent(Moment),
    /// There will be none.
    Never,
}

impl LegWatch {
    fn new(now: Moment, ping: Ping) -> Self {
        Self {
            is_heard: Cell::new(true),
            is_unread: Cell::new(false),
            silent_since: Cell::new(now),
            ping: Cell::new(ping),
        }
    }

    /// What is due on it at `now`, and when something may be next.
    fn sweep(&self, side: Side, now: Moment, limits: config::Ping) -> (Option<Order>, Moment) {
        if self.is_heard.take() || self.is_unread.get() {
            self.silent_since.set(now);
            if self.ping.get() != Ping::Never {
                self.ping.set(Ping::None);
            }
        }
        match self.ping.get() {
            Ping::None => match self.silent_since.get().plus(limits.after) {
                due if due > now => (None, due),
                _ => {
                    self.ping.set(Ping::Wanted(now));
                    (Some(Order::Look), now)
                }
            },
            Ping::Never => (None, Moment::NEVER),
            Ping::Wanted(since) | Ping::Sent(since) => {
                let is_over = now.since(since) >= limits.timeout;
                (Some(if is_over { Order::Dead(side) } else { Order::Look }), now)
            }
        }
    }
}

/// How far a session has come. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    HalfClosed,
    /// Somebody has said Close, or is about to be told.
    Leaving,
    /// Both sides have been given their end.
    Closing,
}

impl Sessions {
    /// There are none yet.
    pub fn new(running: Arc<ArcSwap<Running>>) -> Rc<Self> {
        Rc::new(Self {
            running,
            beginning: Instant::now(),
            open: RefCell::default(),
            last_sweep: Cell::new(Moment::FIRST),
            ending: RefCell::default(),
            watchers: RefCell::default(),
        })
    }

    /// Opens a session. It is forgotten when its relay is over.
    pub(super) fn open(
        self: &Rc<Self>,
        record: Record,
        route: &Arc<Route>,
        endpoint: &Arc<Endpoint>,
    ) -> Entry {
        let now = self.now();
        let ping = if route.config.ping.is_some() { Ping::None } else { Ping::Never };
        let session = Rc::new(Session {
            record,
            route: route.clone(),
            endpoint: endpoint.clone(),
            all: self.clone(),
            row: Cell::new(self.open.borrow().len()),
            opened: now,
            is_active: Cell::new(true),
            client: LegWatch::new(now, ping),
            upstream: LegWatch::new(now, ping),
            since: Cell::new(now),
            stage: Cell::new(Stage::Open),
            pace: Cell::new(Pace::new(now)),
            parting: OnceCell::new(),
            order: Cell::new(None),
            waker: Cell::new(None),
        });
        self.open.borrow_mut().push(Row { due: Cell::new(now), session: session.clone() });
        self.tell_watchers("open", &session);
        if let Some(parting) = self.parting_at_once(&session) {
            session.send_away(&parting);
        }
        Entry(session)
    }

    /// What came to be refused while its handshake was on its way ends as soon as it begins.
    fn parting_at_once(&self, session: &Session) -> Option<Rc<Parting>> {
        if let Some(parting) = self.ending.borrow().as_ref() {
            return Some(parting.clone());
        }
        let why = match (session.route.standing.state(), session.endpoint.standing.state()) {
            (State::Up, State::Up) => return None,
            (State::Removed, _) => Why::RouteRemoved,
            (State::Draining, _) => Why::RouteDrained,
            (State::Up, State::Removed) => Why::EndpointRemoved,
            (State::Up, State::Draining) => Why::EndpointDrained,
        };
        Some(Rc::new(Parting::new(why, &self.running.load().drain)))
    }

    fn at(&self, instant: Instant) -> Moment {
        Moment::FIRST.plus(instant.saturating_duration_since(self.beginning))
    }

    fn now(&self) -> Moment {
        self.at(Instant::now())
    }

    /// Finds what is due at `now`.
    pub fn sweep(&self, now: Instant) {
        let now = self.at(now);
        let last = self.last_sweep.replace(now);
        for Row { due, session } in self.open.borrow().iter() {
            if due.get() <= now {
                due.set(session.sweep(last, now));
            }
        }
        self.watchers.borrow_mut().retain(|watcher| watcher.is_there());
    }

    /// Forgets a session, and gives back the room of a crowd that has gone.
    fn forget(&self, session: &Session) {
        let mut open = self.open.borrow_mut();
        let row = session.row.get();
        open.swap_remove(row);
        if let Some(moved) = open.get(row) {
            moved.session.row.set(row);
        }
        if open.len() < open.capacity() / 4 {
            let room = open.len() * 2;
            open.shrink_to(room);
        }
    }

    /// What opens from now on ends at once: the process stops.
    pub fn end_newcomers(&self, parting: Parting) {
        *self.ending.borrow_mut() = Some(Rc::new(parting));
    }

    /// The process leaves now: what is still open is put on record as cut.
    pub fn cut_all(&self) {
        for Row { session, .. } in self.open.borrow().iter() {
            session.record.ended(EndedBy::Tidegate, "cut: the process left");
        }
    }

    /// All of them, to be looked at as time goes by: none is kept from its end.
    pub(super) fn all(&self) -> Vec<Weak<Session>> {
        self.open.borrow().iter().map(|row| Rc::downgrade(&row.session)).collect()
    }

    /// These of them.
    pub(super) fn those(&self, who: &Who) -> Vec<Weak<Session>> {
        let now = Instant::now();
        let open = self.open.borrow();
        let those = open.iter().filter(|row| row.session.is_one_of(who, now));
        those.map(|row| Rc::downgrade(&row.session)).collect()
    }

    pub(super) fn add_watcher(&self, watcher: Rc<Watcher>) {
        self.watchers.borrow_mut().push(watcher);
    }

    fn tell_watchers(&self, event: &str, session: &Rc<Session>) {
        let watchers = self.watchers.borrow();
        if !watchers.is_empty() {
            let now = Instant::now();
            watchers.iter().for_each(|watcher| watcher.tell(event, session, now));
        }
    }
}

/// How often sessions on these routes are to be swept, so that nothing is found much later than
/// it is due: once a second, or more often where a time limit is short.
pub fn sweep_every<'r>(routes: impl Iterator<Item = &'r config::Route>) -> Duration {
    let shortest = routes
        .flat_map(|route| {
            let ping = route.ping.map(|ping| ping.after.min(ping.timeout));
            let always = [route.idle_timeout, route.half_close_timeout, route.close_timeout];
            always.into_iter().chain(ping).chain(route.max_age)
        })
        .min();
    let tick = shortest.map_or(SLOWEST_SWEEP, |shortest| shortest / 4);
    tick.clamp(FASTEST_SWEEP, SLOWEST_SWEEP)
}

const SLOWEST_SWEEP: Duration = Duration::from_secs(1);
const FASTEST_SWEEP: Duration = Duration::from_millis(1);

/// A relay's hold on its session, which is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Entry(Rc<Session>);

impl Deref for Entry {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let all = &self.0.all;
        all.forget(&self.0);
        all.tell_watchers("end", &self.0);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Session {
    /// Its record.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Its route.
    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// Its endpoint.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it is one of these at `now`.
    pub(super) fn is_one_of(&self, who: &Who, now: Instant) -> bool {
        match who {
            Who::All => true,
            Who::On { standing, .. } => self.is_on(standing),
            Who::Matching(filter) => filter.matches(self, now),
        }
    }

    fn is_on(&self, standing: &Arc<Standing>) -> bool {
        Arc::ptr_eq(standing, &self.route.standing)
            || Arc::ptr_eq(standing, &self.endpoint.standing)
    }

    /// How long it has been open.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.all.at(now).since(self.opened)
    }

    /// How long nothing has gone through it.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        if self.is_active.get() {
            return Duration::ZERO;
        }
        self.all.at(now).since(self.since.get())
    }

    /// How many bytes went through it in a second, as of late.
    pub(super) fn bytes_per_second(&self) -> f64 {
        f64::from(self.pace.get().per_second.round())
    }

    /// As the admin interface shows it.
    pub(super) fn info(&self, now: Instant) -> SessionInfo {
        let state = match self.stage.get() {
            Stage::Open | Stage::HalfClosed => "open",
            Stage::Leaving | Stage::Closing => "closing",
        };
        SessionInfo {
            state: state.into(),
            idle_s: seconds(self.idle(now)),
            bytes_per_s: self.bytes_per_second(),
            ..self.record.info()
        }
    }

    /// With which words it is sent away, if it is.
    pub(super) fn parting(&self) -> Option<&Parting> {
        self.parting.get().map(|parting| &**parting)
    }

    /// Tells it to leave; whoever says so first has the words.
    pub(super) fn send_away(&self, parting: &Rc<Parting>) {
        let why = self.parting.get_or_init(|| parting.clone()).why;
        self.give(Order::End(why));
    }

    /// Who ended it and why; the first to say so is right.
    pub(super) fn ended(&self, by: EndedBy, why: impl fmt::Display) {
        self.record.ended(by, why);
    }

    /// Has the next sweep look at it.
    fn is_to_be_swept(&self) {
        if let Some(row) = self.all.open.borrow().get(self.row.get()) {
            row.due.set(Moment::FIRST);
        }
    }

    /// So many bytes of one side have gone on to the other. On the path of every read.
    pub(super) fn relayed(&self, source: Side, bytes: usize) {
        self.moves();
        self.record.relayed(source, bytes as u64);
    }

    fn leg(&self, side: Side) -> &LegWatch {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }

    /// Something came from this side. On the path of every read.
    pub(super) fn heard(&self, side: Side) {
        if !self.leg(side).is_heard.replace(true) {
            self.is_to_be_swept();
        }
    }

    /// Whether this side is not being read: the other one is stuck, or it is throttled.
    pub(super) fn unread(&self, side: Side, is_unread: bool) {
        if !self.leg(side).is_unread.replace(is_unread) && is_unread {
            self.is_to_be_swept();
        }
    }

    /// How it stands with our Ping to this side.
    pub(super) fn ping(&self, side: Side) -> Ping {
        self.leg(side).ping.get()
    }

    /// A Ping to this side was sent at `now`.
    pub(super) fn pinged(&self, side: Side, now: Instant) {
        self.leg(side).ping.set(Ping::Sent(self.all.at(now)));
        self.record.pinged(side);
    }

    /// A Ping may still be on its way to this side: its time runs from now.
    pub(super) fn postpone(&self, side: Side) {
        let ping = &self.leg(side).ping;
        let now = self.all.now();
        ping.set(match ping.get() {
            Ping::Wanted(_) => Ping::Wanted(now),
            Ping::Sent(_) => Ping::Sent(now),
            other => other,
        });
    }

    /// Nobody is pinged any more.
    pub(super) fn stop_pings(&self) {
        self.client.ping.set(Ping::Never);
        self.upstream.ping.set(Ping::Never);
    }

    /// It is not idle, although nothing new goes through: something waits for our throttle, or is
    /// still being taken.
    pub(super) fn moves(&self) {
        if !self.is_active.replace(true) {
            self.is_to_be_swept();
        }
    }

    /// What is on its way to a side that is to leave still moves: its time begins anew.
    pub(super) fn is_being_told(&self) {
        if matches!(self.stage.get(), Stage::Leaving | Stage::Closing) {
            self.since.set(self.all.now());
        }
    }

    /// One direction is closed; the other is given its time.
    pub(super) fn half_closed(&self) {
        if self.stage.get() == Stage::Open {
            self.enter(Stage::HalfClosed);
        }
    }

    /// Somebody has said Close, or will be told: both sides are given their time.
    pub(super) fn leaving(&self) {
        if matches!(self.stage.get(), Stage::Open | Stage::HalfClosed) {
            self.enter(Stage::Leaving);
        }
    }

    /// Both sides are given their end, and a last time to leave.
    pub(super) fn closing(&self) {
        if self.stage.get() != Stage::Closing {
            self.enter(Stage::Closing);
        }
    }

    fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.since.set(self.all.now());
        self.is_to_be_swept();
    }

    /// Remembers whom to wake for an order. Whether that is somebody else than before.
    pub(super) fn remember(&self, waker: &Waker) -> bool {
        let known = self.waker.take().filter(|known| known.will_wake(waker));
        let is_new = known.is_none();
        self.waker.set(Some(known.unwrap_or_else(|| waker.clone())));
        is_new
    }

    /// What the relay is told to do, once.
    pub(super) fn take_order(&self) -> Option<Order> {
        self.order.take()
    }

    /// Tells its relay what to do.
    pub(super) fn give(&self, order: Order) {
        let known = self.order.get();
        if known.is_none_or(|known| known.weight() <= order.weight()) {
            self.order.set(Some(order));
        }
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            self.waker.set(Some(waker));
        }
    }

    /// Gives the order that is due at `now`, if one is, and says when something may be next if
    /// nothing happens; the sweep before was at `last`. Activity counts from the sweep that finds
    /// it, so a session is ended up to one sweep late and never early.
    fn sweep(&self, last: Moment, now: Moment) -> Moment {
        let (is_active, stage) = (self.is_active.take(), self.stage.get());
        // Nothing is counted where nothing was relayed.
        let bytes = if is_active { self.record.bring_up() } else { 0 };
        let pace = self.pace.get().with(bytes, last, now);
        self.pace.set(pace);
        let mut next = pace.due();
        if stage == Stage::Open {
            let (order, due) = self.sweep_legs(now);
            if let Some(order) = order {
                self.give(order);
            }
            next = next.min(due);
            if is_active {
                self.since.set(now);
            }
        }
        let (limit, order) = match stage {
            Stage::Open => (self.route.config.idle_timeout, Order::End(Why::Idle)),
            Stage::HalfClosed => {
                (self.route.config.half_close_timeout, Order::End(Why::HalfClosed))
            }
            Stage::Leaving => (self.route.config.close_timeout, Order::GiveUp),
            Stage::Closing => (self.route.config.close_timeout, Order::Cut(Why::NotLeaving)),
        };
        let due = self.since.get().plus(limit);
        if due <= now {
            self.give(order);
        } else if self.client.is_unread.get()
            || self.upstream.is_unread.get()
            || matches!(stage, Stage::Leaving | Stage::Closing)
        {
            self.give(Order::Look);
            return now;
        }
        next.min(due)
    }

    /// What is due while both sides are there, that it is too old or a Ping, and when something
    /// may be next.
    fn sweep_legs(&self, now: Moment) -> (Option<Order>, Moment) {
        let too_old = self.route.config.max_age.map(|max_age| self.opened.plus(max_age));
        let too_old = too_old.unwrap_or(Moment::NEVER);
        if too_old <= now {
            return (Some(Order::End(Why::MaxAge)), now);
        }
        let Some(limits) = self.route.config.ping else { return (None, too_old) };
        let (client, next) = self.client.sweep(Side::Client, now, limits);
        let (upstream, due) = self.upstream.sweep(Side::Upstream, now, limits);
        let order = [client, upstream].into_iter().flatten().max_by_key(|order| order.weight());
        (order, next.min(due).min(too_old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Moment {
        Moment::FIRST.plus(Duration::from_secs(second))
    }

    /// Nobody looks at a session that is silent; what it carries afterwards was not carried in all of
    /// that time.
    #[test]
    fn a_pace_is_that_of_late_after_a_silence_too() {
        let pace = Pace::new(second(0)).with(1_000, second(1), second(3));
        assert_eq!((pace.per_second, pace.due()), (500.0, second(4)));
        let pace = pace.with(0, second(3), second(4));
        assert_eq!((pace.per_second, pace.due()), (0.0, Moment::NEVER));
        let pace = pace.with(1_000, second(99), second(100));
        assert_eq!(pace.per_second, 1_000.0);
    }

    /// What is due next is never later than what comes of it.
    #[test]
    fn a_silent_leg_is_looked_at_again_when_its_ping_is_due() {
        let limits =
            config::Ping { after: Duration::from_secs(10), timeout: Duration::from_secs(5) };
        let leg = LegWatch::new(second(0), Ping::None);
        let sweep = |at| leg.sweep(Side::Client, second(at), limits);
        assert_eq!(sweep(1), (None, second(11)));
        leg.is_heard.set(true);
        assert_eq!(sweep(8), (None, second(18)));
        assert_eq!(sweep(17), (None, second(18)));
        assert_eq!(sweep(18), (Some(Order::Look), second(18)));
        assert_eq!(sweep(22), (Some(Order::Look), second(22)), "it waits for its Pong");
        assert_eq!(sweep(23), (Some(Order::Dead(Side::Client)), second(23)));
        leg.is_unread.set(true);
        assert_eq!(sweep(24), (None, second(34)), "whoever is not read cannot answer");
        leg.ping.set(Ping::Never);
        assert_eq!(sweep(99), (None, Moment::NEVER));
    }

    #[test]
    fn the_end_of_time_is_never_reached() {
        assert_eq!(second(1).plus(Duration::MAX), Moment::NEVER);
        assert_eq!(second(1).since(second(2)), Duration::ZERO);
    }
}
