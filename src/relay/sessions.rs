//! The sessions of one worker, and the sweep that finds what is due: a session notes that
//! something went through it, and once a second the worker looks. No timer is armed per session,
//! let alone per read.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::telemetry::record::{EndedBy, Record};

/// How long a session may be in which state.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Silent in both directions.
    pub idle: Duration,
    /// With one direction closed.
    pub half_close: Duration,
    /// After both sides were told that it is over.
    pub close: Duration,
}

/// Why we end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// `idle_timeout`
    Idle,
    /// `half_close_timeout`
    HalfClosed,
    /// The peers did not leave within `close_timeout`.
    NotLeaving,
    /// The process is stopping.
    Drain,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle timeout",
            Self::HalfClosed => "half-close timeout",
            Self::NotLeaving => "close timeout",
            Self::Drain => "drain",
        })
    }
}

/// What a session is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Tell both sides, then leave.
    End(Why),
    /// Leave.
    Cut(Why),
    /// See whether a leg that is not being read is still there.
    Look,
}

/// The sessions of one worker.
#[derive(Debug, Default)]
pub struct Sessions {
    open: RefCell<HashMap<u64, Rc<Session>>>,
    /// Whether what opens from now on is to end at once: the process stops.
    is_ending: Cell<bool>,
}

/// What the worker and the relay of one session know of each other.
#[derive(Debug)]
pub(super) struct Session {
    record: Record,
    timeouts: Timeouts,
    all: Rc<Sessions>,
    is_active: Cell<bool>,
    is_stuck: Cell<bool>,
    /// When a sweep last found it active, half-closed, or closing.
    since: Cell<Instant>,
    stage: Cell<Stage>,
    order: Cell<Option<Order>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    HalfClosed,
    Closing,
}

impl Sessions {
    /// Opens a session. It is forgotten when its relay is over.
    pub(super) fn open(self: &Rc<Self>, record: Record, timeouts: Timeouts) -> Entry {
        let id = record.id();
        let session = Rc::new(Session {
            record,
            timeouts,
            all: self.clone(),
            is_active: Cell::new(true),
            is_stuck: Cell::new(false),
            since: Cell::new(Instant::now()),
            stage: Cell::new(Stage::Open),
            order: Cell::new(self.is_ending.get().then_some(Order::End(Why::Drain))),
            waker: RefCell::new(None),
        });
        self.open.borrow_mut().insert(id, session.clone());
        Entry(session)
    }

    /// Finds what is due at `now`.
    pub fn sweep(&self, now: Instant) {
        for session in self.open.borrow().values() {
            session.sweep(now);
        }
    }

    /// Ends every session: the process stops.
    pub fn end_all(&self) {
        self.is_ending.set(true);
        for session in self.open.borrow().values() {
            session.give(Order::End(Why::Drain));
        }
    }

    /// The process leaves now: what is still open is put on record as cut.
    pub fn cut_all(&self) {
        for session in self.open.borrow().values() {
            session.record.ended(EndedBy::Tidegate, "cut: the process left");
        }
    }
}

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
        self.0.all.open.borrow_mut().remove(&self.0.record.id());
    }
}

impl Session {
    /// Its record.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Something went through it. On the path of every read: one store.
    pub(super) fn active(&self) {
        self.is_active.set(true);
    }

    /// Whether something is stuck on its way, so that one side is not being read.
    pub(super) fn stuck(&self, is_stuck: bool) {
        self.is_stuck.set(is_stuck);
    }

    /// One direction is closed; the other is given its time.
    pub(super) fn half_closed(&self) {
        if self.stage.get() == Stage::Open {
            self.enter(Stage::HalfClosed);
        }
    }

    /// We are ending it; both sides are given their time.
    pub(super) fn closing(&self) {
        self.enter(Stage::Closing);
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
        self.order.set(Some(order));
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Gives the order that is due, if one is. Activity counts from the sweep that finds it, so a
    /// session is ended up to one sweep late and never early.
    fn sweep(&self, now: Instant) {
        let (is_active, stage) = (self.is_active.take(), self.stage.get());
        if is_active && stage == Stage::Open {
            self.since.set(now);
            return;
        }
        let (limit, order) = match stage {
            Stage::Open => (self.timeouts.idle, Order::End(Why::Idle)),
            Stage::HalfClosed => (self.timeouts.half_close, Order::End(Why::HalfClosed)),
            Stage::Closing => (self.timeouts.close, Order::Cut(Why::NotLeaving)),
        };
        if now.saturating_duration_since(self.since.get()) >= limit {
            self.give(order);
        } else if self.is_stuck.get() && self.order.get().is_none() {
            self.give(Order::Look);
        }
    }
}
