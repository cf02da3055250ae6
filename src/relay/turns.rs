//! Whose turn it is among the directions of a worker that have more to relay than one turn takes.
//!
//! What has just come is in the processor's cache, what has waited in the kernel's buffers is not:
//! to relay one stream for some megabytes and then the next costs a fifth less than to take from
//! all of them in small pieces. So one of them goes on for many turns, and the others wait. Only they
//! do: whoever has little to relay has its turn in between, as before.
//!
//! Nobody is woken by anybody: who waits looks again at each of its turns, and has the next one take
//! over if the one who should go on has not been seen for some of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::task::Context;

use tokio::task::yield_now;

/// Turns that one goes on for before the next has its own. A turn is half a MiB.
const TURNS: u32 = 8;
/// So many looks in a row at which the one who should go on has not, and it is lost: tokio turns
/// round the order of those who come back, so two of them may be next to each other.
const LOOKS: u32 = 3;
/// With more than so many, looking would cost more than it brings, and the way round take too long.
const CROWD: usize = 32;

thread_local! {
    static ROUND: Round = Round::default();
}

/// What those of one worker know of each other.
#[derive(Debug, Default)]
struct Round {
    /// Their numbers in the order in which they have their turns; the first goes on.
    order: RefCell<VecDeque<u64>>,
    /// How many turns the first has used.
    used: Cell<u32>,
    /// Turns that anybody has used or lost, which tells that somebody goes on.
    moves: Cell<u64>,
    /// The next one's number.
    next: Cell<u64>,
}

impl Round {
    fn is_first(&self, number: u64) -> bool {
        self.order.borrow().front() == Some(&number)
    }

    /// The next one has its turns.
    fn move_on(&self) {
        self.order.borrow_mut().rotate_left(1);
        self.used.set(0);
        self.moves.set(self.moves.get() + 1);
    }
}

/// A direction that had more to relay than one turn takes.
#[derive(Debug)]
pub(super) struct Bulk {
    number: u64,
    /// How many moves there had been when it last looked, and how often it has seen that.
    seen: (u64, u32),
}

impl Bulk {
    /// One that has just used its first turn.
    pub(super) fn new() -> Self {
        ROUND.with(|round| {
            let number = round.next.replace(round.next.get() + 1);
            round.order.borrow_mut().push_back(number);
            Self { number, seen: (0, 0) }
        })
    }

    /// Whether it goes on now. Where not, it is to ask again after others had a turn.
    pub(super) fn goes_on(&mut self) -> bool {
        ROUND.with(|round| {
            if round.is_first(self.number) || round.order.borrow().len() > CROWD {
                return true;
            }
            let moves = round.moves.get();
            let looks = if self.seen.0 == moves { self.seen.1 + 1 } else { 1 };
            self.seen = (moves, looks);
            if looks >= LOOKS {
                round.move_on();
            }
            round.is_first(self.number)
        })
    }

    /// It has used its turn, and has more.
    pub(super) fn has_more(&mut self) {
        ROUND.with(|round| {
            if !round.is_first(self.number) {
                return;
            }
            round.used.set(round.used.get() + 1);
            round.moves.set(round.moves.get() + 1);
            if round.used.get() >= TURNS {
                round.move_on();
            }
        });
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        ROUND.with(|round| {
            if round.is_first(self.number) {
                round.used.set(0);
            }
            round.order.borrow_mut().retain(|number| *number != self.number);
        });
    }
}

/// Has the task polled again when all others that are ready have been, and it was looked for more
/// of them. Tasks that wake themselves are polled up to sixty times before tokio looks, and for so
/// many turns of bulk, some twenty milliseconds, a small message would wait.
pub(super) fn come_back_after_others(cx: &mut Context<'_>) {
    // It hands the waker over when it is polled for the first time, and is never ready then.
    let _ = pin!(yield_now()).poll(cx);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

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
        ROUND.with(|round| assert_eq!(round.order.borrow().len(), 0));
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

    /// So tokio does it with tasks that yield.
    #[test]
    fn an_order_that_turns_round_each_time_takes_no_turns_away() {
        let mut bulks = some(3);
        let mut order = Vec::new();
        let mut places: Vec<_> = (0..bulks.len()).collect();
        while order.len() < 4 * TURNS {
            for &at in &places {
                if bulks[at].goes_on() {
                    bulks[at].has_more();
                    order.push(at);
                }
            }
            places.reverse();
        }
        order.truncate(4 * TURNS);
        assert_eq!(runs(&order), [(0, TURNS), (1, TURNS), (2, TURNS), (0, TURNS)]);
    }

    #[test]
    fn in_a_crowd_everybody_goes_on() {
        let mut bulks = some(CROWD + 1);
        let expected: Vec<_> = (0..=CROWD).collect();
        assert_eq!(order(&mut bulks, CROWD + 1), expected);
    }

    /// What comes for others is looked for after each turn, not after as many as tokio polls tasks
    /// in between.
    #[tokio::test]
    async fn others_hear_of_what_comes_after_a_turn() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        let hearing = tokio::spawn(async move { ours.read_u8().await });
        // It waits now.
        tokio::task::yield_now().await;
        theirs.write_u8(7).await.expect("room");
        let heard = hearing.abort_handle();
        let mut turns = 0;
        let relaying = tokio::spawn(poll_fn(move |cx| {
            if heard.is_finished() {
                return Poll::Ready(turns);
            }
            turns += 1;
            come_back_after_others(cx);
            Poll::Pending
        }));
        let turns = relaying.await.expect("no panic");
        assert_eq!(hearing.await.expect("no panic").expect("a byte"), 7);
        assert!(turns <= 3, "{turns} turns");
    }
}
