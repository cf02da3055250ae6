//! Whose turn it is among the directions of a worker that have more to relay than one turn takes.
//!
//! What has just come is in the processor's cache, what has waited in the kernel's buffers is not:
//! to relay one stream for some megabytes and then the next costs a fifth less than to take from
//! all of them in small pieces. So one of them goes on for many turns, and the others wait. Only they
//! do: whoever has little to relay has its turn in between, as before.
//!
//! Nobody is woken by anybody: who waits looks again at each of its turns, and goes on by itself if
//! the one who should has not been seen since.

use std::cell::Cell;

/// Turns that one goes on for before the next has its own. A turn is half a MiB.
const TURNS: u32 = 8;
/// With more than so many, looking would cost more than it brings, and the way round take too long.
const CROWD: usize = 32;

thread_local! {
    static ROUND: Round = Round::default();
}

/// What those of one worker know of each other.
#[derive(Debug, Default)]
struct Round {
    /// Who goes on, and for how many turns.
    holder: Cell<Option<u64>>,
    left: Cell<u32>,
    /// Turns that were used by a holder.
    used: Cell<u64>,
    /// How many there are.
    count: Cell<usize>,
    /// The next one's number.
    next: Cell<u64>,
}

/// A direction that had more to relay than one turn takes.
#[derive(Debug)]
pub(super) struct Bulk {
    number: u64,
    /// How many turns the others had used when it last looked.
    seen: Option<u64>,
}

impl Bulk {
    /// One that has just used its first turn.
    pub(super) fn new() -> Self {
        ROUND.with(|round| {
            let number = round.next.replace(round.next.get() + 1);
            round.count.set(round.count.get() + 1);
            Self { number, seen: None }
        })
    }

    /// Whether it goes on now. Where not, it is to ask again after others had a turn.
    pub(super) fn goes_on(&mut self) -> bool {
        ROUND.with(|round| {
            let is_others = round.holder.get().is_some_and(|holder| holder != self.number);
            if !is_others || round.count.get() > CROWD {
                return true;
            }
            let used = Some(round.used.get());
            // A holder has its turn between any two of ours, unless something has become of it.
            let is_lost = std::mem::replace(&mut self.seen, used) == used;
            if is_lost {
                round.holder.set(None);
            }
            is_lost
        })
    }

    /// It has used its turn, and has more.
    pub(super) fn has_more(&mut self) {
        self.seen = None;
        ROUND.with(|round| {
            match round.holder.get() {
                None => round.left.set(TURNS),
                Some(holder) if holder == self.number => {}
                Some(_) => return,
            }
            round.used.set(round.used.get() + 1);
            let left = round.left.get() - 1;
            round.left.set(left);
            round.holder.set((left > 0).then_some(self.number));
        });
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        ROUND.with(|round| {
            round.count.set(round.count.get() - 1);
            if round.holder.get() == Some(self.number) {
                round.holder.set(None);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURNS: usize = super::TURNS as usize;

    /// Has each of them asked in turn, again and again, and says who went on the first `len` times.
    fn order(bulks: &mut [Bulk], len: usize) -> Vec<usize> {
        let mut order = Vec::new();
        for _ in 0..2 * len {
            for (at, bulk) in bulks.iter_mut().enumerate() {
                if bulk.goes_on() {
                    bulk.has_more();
                    order.push(at);
                }
            }
        }
        order.truncate(len);
        order
    }

    fn some(count: usize) -> Vec<Bulk> {
        (0..count).map(|_| Bulk::new()).collect()
    }

    /// So often this one, then so often that one.
    fn runs(order: &[usize]) -> Vec<(usize, usize)> {
        order.chunk_by(|one, other| one == other).map(|run| (run[0], run.len())).collect()
    }

    #[test]
    fn each_goes_on_for_some_turns_and_all_have_theirs() {
        let order = order(&mut some(3), 4 * TURNS);
        assert_eq!(runs(&order), [(0, TURNS), (1, TURNS), (2, TURNS), (0, TURNS)]);
    }

    #[test]
    fn who_has_nothing_more_leaves_it_to_the_others() {
        let mut bulks = some(2);
        assert_eq!(runs(&order(&mut bulks, 2)), [(0, 2)]);
        bulks.remove(0);
        assert_eq!(order(&mut bulks, 20).len(), 20);
        drop(bulks);
        ROUND.with(|round| assert_eq!((round.holder.get(), round.count.get()), (None, 0)));
    }

    /// One that holds the turn and is not polled any more, for whatever reason, stops nobody.
    #[test]
    fn who_is_not_seen_any_more_is_not_waited_for() {
        let mut bulks = some(3);
        assert!(bulks[0].goes_on());
        bulks[0].has_more();
        let _lost = bulks.remove(0);
        assert_eq!(runs(&order(&mut bulks, 2 * TURNS)), [(0, TURNS), (1, TURNS)]);
    }

    #[test]
    fn in_a_crowd_everybody_goes_on() {
        let mut bulks = some(CROWD + 1);
        let expected: Vec<_> = (0..=CROWD).collect();
        assert_eq!(order(&mut bulks, CROWD + 1), expected);
    }
}
