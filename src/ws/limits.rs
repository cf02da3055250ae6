//! How much a peer may send in which time: a bucket of tokens that fills at a steady rate, and
//! holds what may come at once after a silence.

use std::time::{Duration, Instant};

/// A bucket that holds as much as its rate allows in one of its periods.
#[derive(Debug, Clone)]
pub struct Bucket {
    capacity: f64,
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket: `amount` in each `per`.
    pub fn new(amount: u64, per: Duration, now: Instant) -> Self {
        let capacity = amount as f64;
        Self {
            capacity,
            per_second: capacity / per.as_secs_f64(),
            tokens: capacity,
            filled_at: now,
        }
    }

    /// How much may be sent at `now`.
    pub fn available(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.filled_at);
        self.filled_at = now;
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.per_second).min(self.capacity);
        // Negative and broken parts are cut off: a part of a token is none.
        self.tokens as u64
    }

    /// Takes `amount` out; more than there was is a debt.
    pub fn take(&mut self, amount: u64) {
        self.tokens -= amount as f64;
    }

    /// How long until one of `portions` of all that it holds is there, or a token at the least.
    pub fn time_to_portion(&self, portions: u64) -> Duration {
        self.time_to((self.capacity as u64 / portions).max(1))
    }

    /// How long until `amount`, or all that it holds, is there; since it was last filled.
    pub fn time_to(&self, amount: u64) -> Duration {
        let missing = (amount as f64).min(self.capacity) - self.tokens;
        // Rounded up to the next millisecond, as timers are, so that nobody wakes in vain.
        let millis = (missing.max(0.0) / self.per_second * 1e3).ceil();
        Duration::from_secs_f64((millis / 1e3).min(1e9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_at_its_rate_and_no_further() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut bucket = Bucket::new(10, Duration::from_secs(1), start);
        assert_eq!(bucket.available(start), 10);
        bucket.take(10);
        assert_eq!(bucket.available(start), 0);
        assert_eq!(bucket.time_to(1), Duration::from_millis(100));
        assert_eq!(bucket.time_to(1_000), Duration::from_secs(1), "no more than it holds");
        assert_eq!(bucket.available(after(99)), 0);
        assert_eq!(bucket.available(after(101)), 1);
        assert_eq!(bucket.available(after(60_000)), 10);
        bucket.take(20);
        assert_eq!(bucket.available(after(60_500)), 0, "a debt is paid first");
        assert_eq!(bucket.time_to(1), Duration::from_millis(600));
    }
}
