//! Sending sessions away, one after the other: the process stops, a route or an endpoint is
//! drained or gone, an operator closes some. A crowd that is told all at once comes back all at
//! once; so the Closes are spread evenly, with some jitter.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::sessions::{Order, Session, Sessions, Why};
use super::view::Filter;
use crate::config;
use crate::lifecycle::standing::Standing;
use crate::random::random;
use crate::ws::close::CloseCode;

/// With which words sessions are sent away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parting {
    /// Why, for the log.
    pub why: Why,
    /// The code in the client's Close. The upstream's is 1001, unless the client answers first.
    pub code: CloseCode,
    /// The reason in both.
    pub reason: Box<str>,
}

impl Parting {
    /// With the words of the configuration, where it has some.
    pub fn new(why: Why, words: &config::Drain) -> Self {
        Self {
            why,
            code: words.close_code.unwrap_or(why.code()),
            reason: words.reason.as_deref().unwrap_or(why.name()).into(),
        }
    }
}

/// Which sessions are sent away, how fast, and with which words.
#[derive(Debug, Clone)]
pub struct Departure {
    /// Which.
    pub who: Who,
    /// With which words.
    pub parting: Parting,
    /// Over how long, if there are enough of them.
    pub spread: Duration,
    /// Nobody waits for longer than this after the one before.
    pub longest_pause: Duration,
    /// When those that are still there are cut; `None` leaves that to their `close_timeout`.
    pub cut_after: Option<Duration>,
}

/// Whom a departure is about.
#[derive(Debug, Clone)]
pub enum Who {
    /// Everybody.
    All,
    /// Those on a route or an endpoint, until its standing changes again.
    On {
        /// The standing.
        standing: Arc<Standing>,
        /// How often it had changed when this was decided.
        changes: u64,
    },
    /// Those that match.
    Matching(Filter),
}

impl Who {
    /// Those on what has this standing.
    pub fn on(standing: &Arc<Standing>) -> Self {
        Self::On { standing: standing.clone(), changes: standing.changes() }
    }

    fn is_taken_back(&self) -> bool {
        match self {
            Self::On { standing, changes } => standing.changes() != *changes,
            Self::All | Self::Matching(_) => false,
        }
    }
}

/// The longest pause between two of them at a drain: where there is no crowd, nobody is to wait.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Sessions {
    /// Sends sessions away. How many; they are told as time goes by.
    pub fn depart(&self, departure: Departure) -> usize {
        let mut those = self.those(&departure.who);
        shuffle(&mut those);
        let count = those.len();
        if count > 0 {
            tokio::task::spawn_local(async move { send_away(&those, departure).await });
        }
        count
    }
}

async fn send_away(those: &[Weak<Session>], departure: Departure) {
    let Departure { who, parting, spread, longest_pause, cut_after } = departure;
    let is_taken_back = || who.is_taken_back();
    let began = Instant::now();
    let parting = Rc::new(parting);
    for (session, due) in those.iter().zip(slots(those.len(), spread, longest_pause, random)) {
        let due = began + due;
        if due > Instant::now() {
            sleep_until(due).await;
        }
        if is_taken_back() {
            return;
        }
        // It may have become busy meanwhile, or be on its way out.
        if let Some(session) = session.upgrade()
            && session.is_one_of(&who, std::time::Instant::now())
        {
            session.send_away(&parting);
        }
    }
    let Some(cut_after) = cut_after else { return };
    sleep_until(began + cut_after).await;
    if !is_taken_back() {
        for session in those.iter().filter_map(Weak::upgrade) {
            session.give(Order::Cut(parting.why));
        }
    }
}

/// When each of `count` is due: each somewhere in its own share of `spread`.
fn slots(
    count: usize,
    spread: Duration,
    longest_pause: Duration,
    mut random: impl FnMut() -> u64,
) -> impl Iterator<Item = Duration> {
    let share = spread
        .checked_div(u32::try_from(count).unwrap_or(u32::MAX))
        .unwrap_or(Duration::ZERO)
        .min(longest_pause);
    (0..count).map(move |index| {
        let jitter = (random() >> 11) as f64 / (1u64 << 53) as f64;
        share.mul_f64(index as f64 + jitter)
    })
}

/// In no order that anybody could tell: neither the oldest nor the newest are sent away first.
fn shuffle<T>(those: &mut [T]) {
    for last in (1..those.len()).rev() {
        let any = usize::try_from(random() % (last as u64 + 1)).unwrap_or(last);
        those.swap(last, any);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_share_of_the_time() {
        for (count, spread, share) in [
            (2_000, Duration::from_secs(30), Duration::from_millis(15)),
            (10, Duration::from_secs(30), Duration::from_secs(1)),
            (1, Duration::from_secs(3600), Duration::from_secs(1)),
            (5, Duration::ZERO, Duration::ZERO),
        ] {
            let due: Vec<Duration> = slots(count, spread, LONGEST_PAUSE, random).collect();
            assert_eq!(due.len(), count);
            for (index, due) in (0u32..).zip(due) {
                assert!((share * index..=share * (index + 1)).contains(&due), "{index}: {due:?}");
            }
        }
        assert_eq!(slots(0, Duration::from_secs(1), LONGEST_PAUSE, random).count(), 0);
    }

    #[test]
    fn a_shuffle_keeps_everybody() {
        let mut ids: Vec<u64> = (0..100).collect();
        shuffle(&mut ids);
        assert!(!ids.is_sorted());
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..100));
    }
}
