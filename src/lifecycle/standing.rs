//! Whether a route or an endpoint takes new sessions: changed by a reload and by an operator,
//! looked at once for every handshake.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module. The state is in the lowest two bits, and above them how often it has changed.
#[derive(Debug, Default)]
pub struct Standing(AtomicU64);

const STATE_BITS: u32 = 2;

/// What there is to stand as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It takes new sessions.
    Up = 0,
    /// An operator drains it, until that is taken back.
    Draining = 1,
    /// The configuration has it no more.
    Removed = 2,
}

impl State {
    /// What the admin interface calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Removed => "removed",
        }
    }
}

impl Standing {
    /// As it stands.
    pub fn state(&self) -> State {
        match self.0.load(Ordering::Acquire) & ((1 << STATE_BITS) - 1) {
            0 => State::Up,
            1 => State::Draining,
            _ => State::Removed,
        }
    }

    /// Whether it takes new sessions.
    pub fn is_up(&self) -> bool {
        self.state() == State::Up
    }

    /// How often it has changed: whoever acts on a state can tell that it was taken back meanwhile,
    /// even if it is the same again.
    pub fn changes(&self) -> u64 {
        self.0.load(Ordering::Acquire) >> STATE_BITS
    }

    /// Changes it. Only the control thread does.
    pub fn set(&self, state: State) {
        let changes = self.changes() + 1;
        self.0.store((changes << STATE_BITS) | u64::from(state as u8), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_and_done_again_is_not_the_same() {
        let standing = Standing::default();
        assert!(standing.is_up());
        standing.set(State::Draining);
        let drained = standing.changes();
        standing.set(State::Up);
        standing.set(State::Draining);
        assert_eq!(standing.state(), State::Draining);
        assert_ne!(standing.changes(), drained);
        standing.set(State::Removed);
        assert_eq!(standing.state(), State::Removed);
    }
}
