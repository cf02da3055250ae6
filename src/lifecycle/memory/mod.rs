//! Gives back the memory of a crowd that has come or gone. An allocator keeps what is freed for
//! whoever comes next, which is as it should be for a connection or two; but what a crowd has left
//! behind, or has needed for its handshakes only, may not be wanted again for hours, and nobody else on
//! the machine could have it.
//!
//! [`Crowd`] says when it is worth it, [`trim`] asks the allocator.

mod trim;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::listener::limits::Limits;

/// How often somebody looks whether a crowd has come or gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So many connections, come or gone, are worth looking for what they have left: some MiB.
const WORTH_IT: usize = 256;

/// Gives memory back whenever that is worth it, as long as the process lives. The allocator holds
/// up who asks it for memory meanwhile, so this is not done for a few connections, nor while a crowd
/// is on its way, and the thread that is busy with it is none that relays.
pub async fn give_back(limits: Arc<Limits>) -> Infallible {
    let mut crowd = Crowd::default();
    loop {
        sleep(LOOK_EVERY).await;
        if crowd.has_moved(limits.most_connections(), limits.connections()) {
            let began = Instant::now();
            trim::trim();
            tracing::debug!(took = ?began.elapsed(), "gave back what a crowd has left in memory");
        }
    }
}

/// Connections that come and go in numbers.
#[derive(Debug, Default)]
struct Crowd {
    /// How many there were when memory was last given back.
    settled: usize,
    /// How many there have been at the most since then.
    most: usize,
    /// How many there were when it was last looked.
    last: usize,
}

impl Crowd {
    /// Whether a good part of all has come or gone, and it is calm now: there are `open`, and there
    /// were `highest` at the most since this was last asked.
    fn has_moved(&mut self, highest: usize, open: usize) -> bool {
        self.most = self.most.max(highest);
        let is_calm = self.last.abs_diff(open) <= self.last.max(open) / 16;
        self.last = open;
        let is_much = |moved: usize, of: usize| moved >= WORTH_IT && moved >= of / 4;
        let have_gone = is_much(self.most.saturating_sub(open), self.most);
        let have_come = is_much(open.saturating_sub(self.settled), open);
        let has_moved = is_calm && (have_gone || have_come);
        if has_moved {
            (self.settled, self.most) = (open, open);
        }
        has_moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_when_a_crowd_has_come_and_once_when_it_has_gone() {
        let mut crowd = Crowd::default();
        for (highest, open, has_moved) in [
            // They are coming.
            (5_000, 5_000, false),
            (9_500, 9_500, false),
            (9_501, 9_501, true),
            (9_501, 9_500, false),
            // They are going.
            (9_500, 4_000, false),
            (4_000, 0, false),
            (0, 0, true),
            (0, 0, false),
            // Gone as fast as they came.
            (1_000, 0, true),
            (0, 0, false),
        ] {
            assert_eq!(crowd.has_moved(highest, open), has_moved, "{open}");
        }
    }

    #[test]
    fn a_crowd_that_stays_and_a_few_that_come_and_go_keep_their_memory() {
        let mut crowd = Crowd { settled: 9_500, most: 9_500, last: 9_500 };
        for (highest, open) in [(9_500, 9_500), (9_600, 9_300), (9_300, 9_000), (9_800, 9_700)] {
            assert!(!crowd.has_moved(highest, open));
        }
        let mut few = Crowd::default();
        for (highest, open) in [(200, 200), (200, 200), (200, 0), (0, 0)] {
            assert!(!few.has_moved(highest, open));
        }
    }
}
