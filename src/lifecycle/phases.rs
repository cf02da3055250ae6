//! Running, draining, leaving, cut: the phases of the process as one worker sees them, and the
//! count of what a drain waits for.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// Where the process stands. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Accepting and serving.
    Running,
    /// Handshakes are refused, requests are answered for the last time on their connection, and
    /// sessions are sent away.
    Draining,
    /// The last session has gone: nothing new is accepted, and what is in flight finishes.
    Leaving,
    /// What is left is dropped.
    Cut,
}

/// How long a connection on which nothing has come yet is kept when its worker leaves.
const NEWCOMER_GRACE: Duration = Duration::from_secs(2);
/// It passes in so many pieces, each of which lets the runtime look at what has come: on a machine
/// that is busy enough all of it may pass between two looks, each of which finds 1,024 connections
/// at the most, and as many as may wait to be accepted are to be found.
const GRACE_PIECES: u32 = 8;

/// One worker's view of the phases.
#[derive(Debug)]
pub struct Drain {
    phases: watch::Receiver<Phase>,
    /// What this worker has been told of so far.
    phase: Cell<Phase>,
    moved_on: Notify,
    alive: Cell<usize>,
    /// Loops that accept connections, and still let in who waits.
    open_doors: Cell<usize>,
    all_gone: Notify,
}

impl Drain {
    /// A worker of a process that goes through these.
    pub fn new(phases: watch::Receiver<Phase>) -> Rc<Self> {
        Rc::new(Self {
            phases,
            phase: Cell::new(Phase::Running),
            moved_on: Notify::new(),
            alive: Cell::new(0),
            open_doors: Cell::new(0),
            all_gone: Notify::new(),
        })
    }

    /// Whether handshakes are refused: from the very moment at which the process says so.
    pub fn is_draining(&self) -> bool {
        *self.phases.borrow() > Phase::Running
    }

    /// Resolves when handshakes are refused. May be dropped at any time.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves when nothing new is accepted any more. May be dropped at any time.
    pub async fn leaving(&self) {
        self.reached(Phase::Leaving).await;
    }

    async fn reached(&self, phase: Phase) {
        loop {
            let moved_on = self.moved_on.notified();
            if self.phase.get() >= phase {
                return;
            }
            moved_on.await;
        }
    }

    /// Resolves when nothing new is accepted any more, for a connection on which nothing has come
    /// yet a little later: who has connected a moment ago is about to speak.
    pub async fn leaving_after(&self, is_silent: impl Fn() -> bool) {
        self.leaving().await;
        for _ in 0..GRACE_PIECES {
            if !is_silent() {
                return;
            }
            sleep(NEWCOMER_GRACE / GRACE_PIECES).await;
        }
    }

    /// Something that a drain must wait for, until it is dropped.
    pub fn keep_alive(self: &Rc<Self>) -> Alive {
        self.alive.set(self.alive.get() + 1);
        Alive(self.clone())
    }

    /// A loop that accepts, until this is dropped.
    pub fn open_door(self: &Rc<Self>) -> OpenDoor {
        self.open_doors.set(self.open_doors.get() + 1);
        OpenDoor(self.clone())
    }

    /// Follows the process through its phases and calls `on_drain` when the drain begins. Resolves
    /// when everything has gone, or at the cut; says how many were still there.
    pub async fn follow(&self, on_drain: impl Fn()) -> usize {
        let mut phases = self.phases.clone();
        loop {
            let phase = *phases.borrow_and_update();
            if phase > self.phase.get() {
                let before = self.phase.replace(phase);
                self.moved_on.notify_waiters();
                if before == Phase::Running {
                    on_drain();
                }
            }
            let is_empty = self.alive.get() == 0 && self.open_doors.get() == 0;
            let has_left = phase == Phase::Leaving && is_empty;
            if phase == Phase::Cut || has_left {
                return self.alive.get();
            }
            tokio::select! {
                // The sender lives as long as the process; its loss means the end.
                changed = phases.changed() => if changed.is_err() { return self.alive.get() },
                () = self.all_gone.notified() => {}
            }
        }
    }
}

/// Holds up a drain until it is dropped.
#[derive(Debug)]
pub struct Alive(Rc<Drain>);

impl Drop for Alive {
    fn drop(&mut self) {
        let alive = self.0.alive.get() - 1;
        self.0.alive.set(alive);
        if alive == 0 {
            self.0.all_gone.notify_one();
        }
    }
}

/// Keeps a worker from leaving until it is dropped; it is nothing that could be cut.
#[derive(Debug)]
pub struct OpenDoor(Rc<Drain>);

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.0.open_doors.set(self.0.open_doors.get() - 1);
        self.0.all_gone.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving() -> Rc<Drain> {
        let drain = Drain::new(watch::channel(Phase::Leaving).1);
        drain.phase.set(Phase::Leaving);
        drain
    }

    /// However slowly they follow each other, there are some looks before a newcomer is given up.
    #[tokio::test]
    async fn newcomers_are_looked_at_again_before_their_time_is_over() {
        let looks = Cell::new(0);
        let is_silent = || {
            looks.set(looks.get() + 1);
            true
        };
        leaving().leaving_after(is_silent).await;
        assert_eq!(looks.get(), GRACE_PIECES);
    }

    #[tokio::test]
    async fn who_has_spoken_is_no_newcomer_any_more() {
        let looks = Cell::new(0);
        let is_silent = || looks.replace(looks.get() + 1) == 0;
        leaving().leaving_after(is_silent).await;
        assert_eq!(looks.get(), 2);
    }
}
