//! The time of a line, as text. What changes once a second only is kept.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use super::record::time_text;

/// The time of a line: RFC 3339 in UTC, to the millisecond.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp([u8; 24]);

impl Stamp {
    /// As ASCII.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        // It is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Tells the time.
#[derive(Debug)]
pub(super) struct Clock {
    /// Since 1970, of what is shown.
    second: Cell<Option<u64>>,
    shown: Cell<[u8; 24]>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { second: Cell::new(None), shown: Cell::new(*b"0000-00-00T00:00:00.000Z") }
    }

    /// What time it is.
    pub(super) fn now(&self) -> Stamp {
        self.stamp(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }

    /// A time, told since 1970.
    pub(super) fn stamp(&self, since_1970: Duration) -> Stamp {
        let mut shown = self.shown.get();
        if self.second.replace(Some(since_1970.as_secs())) != Some(since_1970.as_secs()) {
            let seconds = "0000-00-00T00:00:00".len();
            // Longer only from the year 10000 on.
            let text = time_text(SystemTime::UNIX_EPOCH + since_1970);
            shown[..seconds].copy_from_slice(&text.as_bytes()[..seconds]);
            self.shown.set(shown);
        }
        let millis = since_1970.subsec_millis();
        for (place, digit) in [100, 10, 1].into_iter().zip(&mut shown[20..23]) {
            // A digit fits.
            *digit = b'0' + (millis / place % 10) as u8;
        }
        Stamp(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_rfc_3339_to_the_millisecond() {
        let clock = Clock::new();
        for (seconds, millis, shown) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (0, 7, "1970-01-01T00:00:00.007Z"),
            (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
            (951_782_400, 40, "2000-02-29T00:00:00.040Z"),
            // Back again, as when the clock is set.
            (951_782_399, 120, "2000-02-28T23:59:59.120Z"),
            (1_795_199_940, 999, "2026-11-20T18:39:00.999Z"),
        ] {
            let since_1970 = Duration::from_secs(seconds) + Duration::from_millis(millis);
            // What is less is left out, and not rounded into the next second.
            let stamp = clock.stamp(since_1970 + Duration::from_nanos(999_999));
            assert_eq!(stamp.as_str(), shown);
        }
    }
}
