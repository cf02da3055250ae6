//! The pace at which handshakes are let through, over all workers (`limits.handshake_rate`): when
//! everybody comes back at once, backends are asked one after the other.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Pace;

/// Lets so many through in so long. Whoever is beyond that waits for a turn, and is turned away
/// only where that would take too long.
#[derive(Debug)]
pub struct Turnstile(Mutex<State>);

#[derive(Debug)]
struct State {
    /// `None` lets everybody through.
    pace: Option<Pace>,
    /// When all turns that have been given out will have been used up, at that pace.
    used_up: Instant,
}

/// Somebody's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// How long it is until then.
    pub wait: Duration,
    /// For how long it makes others wait.
    takes: Duration,
}

/// A turn would have come too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Turnstile {
    /// Nobody has come yet.
    pub fn new(pace: Option<Pace>, now: Instant) -> Self {
        Self(Mutex::new(State { pace, used_up: now }))
    }

    /// Goes at another pace from `now` on. Turns that have been given out stand; newcomers wait no
    /// longer than if as many had come at the new pace as may come at once.
    pub fn change(&self, pace: Option<Pace>, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = pace
            && state.pace != Some(pace)
        {
            state.used_up = state.used_up.min(now + pace.rate.per);
        }
        state.pace = pace;
    }

    /// Takes a turn back that was not used: newcomers come sooner.
    pub fn take_back(&self, turn: &Turn) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used_up) = state.used_up.checked_sub(turn.takes) {
            state.used_up = used_up;
        }
    }

    /// Takes the next turn from `now`. After a silence, as many as the
    /// rate gives in its second, minute or hour need not wait: the generic cell rate algorithm
    /// (ITU-T I.371, annex A).
    ///
    /// # Errors
    ///
    /// [`TooMany`] where that would be longer than the pace says; no turn is taken then.
    pub fn turn(&self, now: Instant) -> Result<Turn, TooMany> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Pace { rate, wait }) = state.pace else {
            return Ok(Turn { wait: Duration::ZERO, takes: Duration::ZERO });
        };
        let takes = rate.per.div_f64(rate.amount as f64);
        let used_up = state.used_up.max(now) + takes;
        let waits = used_up.saturating_duration_since(now + rate.per);
        if waits > wait {
            return Err(TooMany);
        }
        state.used_up = used_up;
        Ok(Turn { wait: waits, takes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::units::Rate;

    fn pace(rate: &str, wait_ms: u64) -> Option<Pace> {
        let rate = Rate::parse_count(rate).expect("a rate");
        Some(Pace { rate, wait: Duration::from_millis(wait_ms) })
    }

    #[test]
    fn a_crowd_goes_through_one_after_the_other() {
        let now = Instant::now();
        let turnstile = Turnstile::new(pace("10/s", 500), now);
        let wait = |at| turnstile.turn(at).map(|turn| turn.wait);
        let waits: Vec<_> = (0..17).map(|_| wait(now)).collect();
        assert!(waits[..10].iter().all(|wait| *wait == Ok(Duration::ZERO)), "{waits:?}");
        for (place, wait) in (1..).zip(&waits[10..15]) {
            assert_eq!(*wait, Ok(Duration::from_millis(100 * place)));
        }
        assert_eq!(waits[15..], [Err(TooMany), Err(TooMany)]);
        // Whoever was turned away has used up nothing.
        let later = now + Duration::from_millis(100);
        assert_eq!(wait(later), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn a_turn_that_is_not_used_is_somebody_elses() {
        let now = Instant::now();
        let turnstile = Turnstile::new(pace("1/s", 3_000), now);
        let turns: Vec<_> = (0..5).map(|_| turnstile.turn(now)).collect();
        assert_eq!(turns[4], Err(TooMany));
        for turn in turns[1..4].iter().flatten() {
            turnstile.take_back(turn);
        }
        assert_eq!(turnstile.turn(now).map(|turn| turn.wait), Ok(Duration::from_secs(1)));
    }

    #[test]
    fn a_reload_changes_the_pace() {
        let now = Instant::now();
        let turnstile = Turnstile::new(pace("1/h", 0), now);
        let wait = |at| turnstile.turn(at).map(|turn| turn.wait);
        assert_eq!(wait(now), Ok(Duration::ZERO));
        assert_eq!(wait(now), Err(TooMany));
        // What was used up of an hour's does not stand in the way of a second's.
        turnstile.change(pace("10/s", 100), now);
        assert_eq!(wait(now), Ok(Duration::from_millis(100)));
        turnstile.change(pace("10/s", 100), now);
        assert_eq!(wait(now), Err(TooMany));
        turnstile.change(None, now);
        assert_eq!(wait(now), Ok(Duration::ZERO));
    }

    proptest! {
        /// In no second do more go through than twice the rate: those saved up, and those due.
        #[test]
        fn no_second_sees_more_than_twice_the_rate(
            comings in prop::collection::vec(0u64..300, 1..200),
            amount in 1u64..20,
        ) {
            let start = Instant::now();
            let turnstile = Turnstile::new(pace(&format!("{amount}/s"), 2_000), start);
            let mut now = start;
            let mut goings = Vec::new();
            for pause in comings {
                now += Duration::from_millis(pause);
                if let Ok(turn) = turnstile.turn(now) {
                    prop_assert!(turn.wait <= Duration::from_secs(2));
                    goings.push(now + turn.wait);
                }
            }
            goings.sort();
            for (at, going) in goings.iter().enumerate() {
                let within = |other: &&Instant| **other < *going + Duration::from_secs(1);
                let many = goings[at..].iter().take_while(within).count() as u64;
                prop_assert!(many <= 2 * amount, "{many} in a second at {amount}/s");
            }
        }
    }
}
