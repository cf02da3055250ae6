//! Which endpoint is next. No I/O, no state: what is known of the endpoints is an argument.

use crate::config::Balance;

/// What is known of one endpoint when one is to be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Sessions and requests that it serves now.
    pub in_flight: usize,
    /// Whether it failed a moment ago.
    pub is_resting: bool,
    /// Whether it is out of the question: it failed for this very request, or is being drained.
    pub is_out: bool,
}

/// The index of the endpoint to ask. `turn` counts up with every choice, or is a random number for
/// [`Balance::Random`].
///
/// One that rests is taken only where all others rest too: a wrong guess costs one refused
/// connection, no answer at all costs the user's request.
pub fn choose(balance: Balance, loads: &[Load], turn: usize) -> Option<usize> {
    let possible = || loads.iter().enumerate().filter(|(_, load)| !load.is_out);
    let awake: Vec<_> = possible().filter(|(_, load)| !load.is_resting).collect();
    let candidates = if awake.is_empty() { possible().collect() } else { awake };
    let fewest = candidates.iter().map(|(_, load)| load.in_flight).min()?;
    let candidates: Vec<usize> = candidates
        .into_iter()
        .filter(|(_, load)| match balance {
            Balance::LeastSessions => load.in_flight == fewest,
            Balance::RoundRobin | Balance::Random => true,
        })
        .map(|(index, _)| index)
        .collect();
    candidates.get(turn % candidates.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(in_flight: usize) -> Load {
        Load { in_flight, is_resting: false, is_out: false }
    }

    #[test]
    fn the_least_busy_is_chosen_and_equals_take_turns() {
        let loads = [load(3), load(1), load(1)];
        let chosen: Vec<_> =
            (0..4).map(|turn| choose(Balance::LeastSessions, &loads, turn)).collect();
        assert_eq!(chosen, [Some(1), Some(2), Some(1), Some(2)]);
    }

    #[test]
    fn round_robin_takes_each_in_turn() {
        let loads = [load(9), load(0), load(0)];
        let chosen: Vec<_> = (0..4).map(|turn| choose(Balance::RoundRobin, &loads, turn)).collect();
        assert_eq!(chosen, [Some(0), Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn a_resting_endpoint_is_the_last_resort_and_a_tried_one_none() {
        let resting = Load { is_resting: true, ..load(0) };
        let tried = Load { is_out: true, ..load(0) };
        for balance in [Balance::LeastSessions, Balance::RoundRobin, Balance::Random] {
            assert_eq!(choose(balance, &[resting, load(5)], 0), Some(1));
            assert_eq!(choose(balance, &[resting, tried], 7), Some(0));
            assert_eq!(choose(balance, &[tried], 0), None);
            assert_eq!(choose(balance, &[], 0), None);
        }
    }
}
