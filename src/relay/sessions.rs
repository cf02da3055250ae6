//! The sessions of one worker, and the sweep that finds what is due: a session notes that
//! something went through it, and at each tick, once a second as a rule, the worker looks. No
//! timer is armed per session, let alone per read.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
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
    open: RefCell<HashMap<u64, Rc<Session>>>,
    /// With which words what opens from now on is to end at once: the process stops.
    ending: RefCell<Option<Rc<Parting>>>,
    watchers: RefCell<Vec<Rc<Watcher>>>,
}

/// What the worker and the relay of one session know of each other.
#[derive(Debug)]
pub(super) struct Session {
    record: Record,
    route: Arc<Route>,
    endpoint: Arc<Endpoint>,
    all: Rc<Sessions>,
    opened: Instant,
    is_active: Cell<bool>,
    client: LegWatch,
    upstream: LegWatch,
    /// When a sweep last found it active, or when it came to the stage it is in.
    since: Cell<Instant>,
    stage: Cell<Stage>,
    pace: Cell<Pace>,
    /// With which words it is sent away, if it is.
    parting: RefCell<Option<Rc<Parting>>>,
    order: Cell<Option<Order>>,
    waker: RefCell<Option<Waker>>,
}

/// How much went through it as of late.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Bytes since `since`.
    bytes: u64,
    since: Instant,
    per_second: f32,
}

/// How long its bytes are gathered before they are made into a rate.
const PACE_OVER: Duration = Duration::from_secs(1);

impl Pace {
    fn new(now: Instant) -> Self {
        Self { bytes: 0, since: now, per_second: 0.0 }
    }

    fn with(self, bytes: u64, now: Instant) -> Self {
        let (bytes, took) = (self.bytes + bytes, now.saturating_duration_since(self.since));
        if took < PACE_OVER {
            return Self { bytes, ..self };
        }
        Self { bytes: 0, since: now, per_second: (bytes as f64 / took.as_secs_f64()) as f32 }
    }
}

/// How a leg is doing.
#[derive(Debug)]
struct LegWatch {
    /// Whether anything came from it since the last sweep.
    is_heard: Cell<bool>,
    /// Whether it is not being read: then its silence says nothing.
    is_unread: Cell<bool>,
    silent_since: Cell<Instant>,
    ping: Cell<Ping>,
}

/// A Ping of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ping {
    /// There is none, or it was answered: by any byte at all.
    None,
    /// It waits for its place in the stream, and its time runs from here.
    Wanted(Instant),
    /// It was sent, and its time runs from here.
    Sent(Instant),
    /// There will be none.
    Never,
}

impl LegWatch {
    fn new(now: Instant, ping: Ping) -> Self {
        Self {
            is_heard: Cell::new(true),
            is_unread: Cell::new(false),
            silent_since: Cell::new(now),
            ping: Cell::new(ping),
        }
    }

    /// What is due on it at `now`.
    fn sweep(&self, side: Side, now: Instant, limits: config::Ping) -> Option<Order> {
        if self.is_heard.take() || self.is_unread.get() {
            self.silent_since.set(now);
            if self.ping.get() != Ping::Never {
                self.ping.set(Ping::None);
            }
            return None;
        }
        match self.ping.get() {
            Ping::None
                if now.saturating_duration_since(self.silent_since.get()) >= limits.after =>
            {
                self.ping.set(Ping::Wanted(now));
                Some(Order::Look)
            }
            Ping::None | Ping::Never => None,
            Ping::Wanted(since) | Ping::Sent(since) => {
                let is_over = now.saturating_duration_since(since) >= limits.timeout;
                Some(if is_over { Order::Dead(side) } else { Order::Look })
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
            open: RefCell::default(),
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
        let id = record.id();
        let now = Instant::now();
        let ping = if route.config.ping.is_some() { Ping::None } else { Ping::Never };
        let session = Rc::new(Session {
            record,
            route: route.clone(),
            endpoint: endpoint.clone(),
            all: self.clone(),
            opened: now,
            is_active: Cell::new(true),
            client: LegWatch::new(now, ping),
            upstream: LegWatch::new(now, ping),
            since: Cell::new(now),
            stage: Cell::new(Stage::Open),
            pace: Cell::new(Pace::new(now)),
            parting: RefCell::default(),
            order: Cell::new(None),
            waker: RefCell::new(None),
        });
        self.open.borrow_mut().insert(id, session.clone());
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

    /// Finds what is due at `now`.
    pub fn sweep(&self, now: Instant) {
        for session in self.open.borrow().values() {
            session.sweep(now);
        }
        self.watchers.borrow_mut().retain(|watcher| watcher.is_there());
    }

    /// What opens from now on ends at once: the process stops.
    pub fn end_newcomers(&self, parting: Parting) {
        *self.ending.borrow_mut() = Some(Rc::new(parting));
    }

    /// The process leaves now: what is still open is put on record as cut.
    pub fn cut_all(&self) {
        for session in self.open.borrow().values() {
            session.record.ended(EndedBy::Tidegate, "cut: the process left");
        }
    }

    pub(super) fn find(&self, id: u64) -> Option<Rc<Session>> {
        self.open.borrow().get(&id).cloned()
    }

    pub(super) fn all_ids(&self) -> Vec<u64> {
        self.open.borrow().keys().copied().collect()
    }

    pub(super) fn ids_of(&self, who: &Who) -> Vec<u64> {
        let now = Instant::now();
        let open = self.open.borrow();
        open.iter().filter(|(_, session)| session.is_one_of(who, now)).map(|(id, _)| *id).collect()
    }

    /// Whether a session is still one of these.
    pub(super) fn is_one_of(&self, id: u64, who: &Who) -> bool {
        self.find(id).is_some_and(|session| session.is_one_of(who, Instant::now()))
    }

    /// Tells one of them to leave, if it is still there.
    pub(super) fn send_away(&self, id: u64, parting: &Rc<Parting>) {
        if let Some(session) = self.find(id) {
            session.send_away(parting);
        }
    }

    /// Gives an order to one of them, if it is still there.
    pub(super) fn order(&self, id: u64, order: Order) {
        if let Some(session) = self.find(id) {
            session.give(order);
        }
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
        all.open.borrow_mut().remove(&self.0.record.id());
        all.tell_watchers("end", &self.0);
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

    fn is_one_of(&self, who: &Who, now: Instant) -> bool {
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
        now.saturating_duration_since(self.opened)
    }

    /// How long nothing has gone through it.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        if self.is_active.get() {
            return Duration::ZERO;
        }
        now.saturating_duration_since(self.since.get())
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
    pub(super) fn parting(&self) -> Option<Rc<Parting>> {
        self.parting.borrow().clone()
    }

    /// Tells it to leave; whoever says so first has the words.
    pub(super) fn send_away(&self, parting: &Rc<Parting>) {
        let why = {
            let mut known = self.parting.borrow_mut();
            known.get_or_insert_with(|| parting.clone()).why
        };
        self.give(Order::End(why));
    }

    /// Who ended it and why; the first to say so is right.
    pub(super) fn ended(&self, by: EndedBy, why: impl fmt::Display) {
        self.record.ended(by, why);
    }

    /// So many bytes of one side have gone on to the other. On the path of every read.
    pub(super) fn relayed(&self, source: Side, bytes: usize) {
        self.is_active.set(true);
        self.record.relayed(source, bytes as u64);
    }

    fn leg(&self, side: Side) -> &LegWatch {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }

    /// Something came from this side. On the path of every read: one store.
    pub(super) fn heard(&self, side: Side) {
        self.leg(side).is_heard.set(true);
    }

    /// Whether this side is not being read: the other one is stuck, or it is throttled.
    pub(super) fn unread(&self, side: Side, is_unread: bool) {
        self.leg(side).is_unread.set(is_unread);
    }

    /// How it stands with our Ping to this side.
    pub(super) fn ping(&self, side: Side) -> Ping {
        self.leg(side).ping.get()
    }

    /// A Ping to this side was sent at `now`.
    pub(super) fn pinged(&self, side: Side, now: Instant) {
        self.leg(side).ping.set(Ping::Sent(now));
        self.record.pinged(side);
    }

    /// A Ping may still be on its way to this side: its time runs from now.
    pub(super) fn postpone(&self, side: Side) {
        let ping = &self.leg(side).ping;
        let now = Instant::now();
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
        self.is_active.set(true);
    }

    /// What is on its way to a side that is to leave still moves: its time begins anew.
    pub(super) fn is_being_told(&self) {
        if matches!(self.stage.get(), Stage::Leaving | Stage::Closing) {
            self.since.set(Instant::now());
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
        self.since.set(Instant::now());
    }

    /// Remembers whom to wake for an order.
    pub(super) fn remember(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// What the relay is told to do, once.
    pub(super) fn take_order(&self) -> Option<Order> {
        self.order.take()
    }

    fn give(&self, order: Order) {
        let known = self.order.get();
        if known.is_none_or(|known| known.weight() <= order.weight()) {
            self.order.set(Some(order));
        }
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Gives the order that is due, if one is. Activity counts from the sweep that finds it, so a
    /// session is ended up to one sweep late and never early.
    fn sweep(&self, now: Instant) {
        let (is_active, stage) = (self.is_active.take(), self.stage.get());
        // Nothing is counted where nothing was relayed.
        let bytes = if is_active { self.record.bring_up() } else { 0 };
        self.pace.set(self.pace.get().with(bytes, now));
        if stage == Stage::Open
            && let Some(order) = self.sweep_legs(now)
        {
            self.give(order);
        }
        if is_active && stage == Stage::Open {
            self.since.set(now);
        }
        let (limit, order) = match stage {
            Stage::Open => (self.route.config.idle_timeout, Order::End(Why::Idle)),
            Stage::HalfClosed => {
                (self.route.config.half_close_timeout, Order::End(Why::HalfClosed))
            }
            Stage::Leaving => (self.route.config.close_timeout, Order::GiveUp),
            Stage::Closing => (self.route.config.close_timeout, Order::Cut(Why::NotLeaving)),
        };
        if now.saturating_duration_since(self.since.get()) >= limit {
            self.give(order);
        } else if self.client.is_unread.get()
            || self.upstream.is_unread.get()
            || matches!(stage, Stage::Leaving | Stage::Closing)
        {
            self.give(Order::Look);
        }
    }

    /// What is due while both sides are there: that it is too old, a Ping.
    fn sweep_legs(&self, now: Instant) -> Option<Order> {
        let age = now.saturating_duration_since(self.opened);
        if self.route.config.max_age.is_some_and(|max_age| age >= max_age) {
            return Some(Order::End(Why::MaxAge));
        }
        let limits = self.route.config.ping?;
        let due =
            [Side::Client, Side::Upstream].map(|side| self.leg(side).sweep(side, now, limits));
        due.into_iter().flatten().max_by_key(|order| order.weight())
    }
}
