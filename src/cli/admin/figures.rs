//! Numbers as a person reads them at a glance: `1.2k`, `3.4 MiB`, `5m12s`.

/// A number of things: `0`, `999`, `1.2k`, `34M`.
pub(super) fn count(number: u64) -> String {
    scaled(number as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// A number of things in a second: `0`, `0.4`, `12`, `1.2k`. `None`, which is `-`, where it is not known.
pub(super) fn rate(per_second: Option<f64>) -> String {
    match per_second {
        None => UNKNOWN.to_owned(),
        Some(rate) if (0.05..9.95).contains(&rate) => format!("{rate:.1}"),
        Some(rate) => scaled(rate, 1000.0, &["", "k", "M", "G", "T", "P", "E"]),
    }
}

/// A number of bytes: `512 B`, `3.4 MiB`.
pub(super) fn bytes(number: u64) -> String {
    scaled(number as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

/// A number of bytes in a second, as [`bytes`].
pub(super) fn byte_rate(per_second: Option<f64>) -> String {
    // A cast of a float saturates, and no rate is negative.
    per_second.map_or_else(|| UNKNOWN.to_owned(), |rate| bytes(rate.round() as u64))
}

/// A span of time in two units: `12s`, `5m12s`, `3h05m`, `4d06h`.
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d{:02}h", hours % 24),
        () if hours > 0 => format!("{hours}h{:02}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{:02}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// A round trip: `0.4ms`, `12ms`, `1.2s`; `-` where none was measured.
pub(super) fn round_trip(ms: Option<f64>) -> String {
    match ms {
        None => UNKNOWN.to_owned(),
        Some(ms) if ms < 9.95 => format!("{ms:.1}ms"),
        Some(ms) if ms < 999.5 => format!("{ms:.0}ms"),
        Some(ms) => format!("{:.1}s", ms / 1000.0),
    }
}

/// `1 session`, `2 sessions`.
pub(super) fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

const UNKNOWN: &str = "-";

/// With one decimal below ten of a unit, so that a column of them stays narrow.
fn scaled(number: f64, base: f64, units: &[&str]) -> String {
    let mut scaled = number;
    let mut power = 0;
    // What would be rounded up to the base is one of the next unit.
    while scaled >= base - 0.5 && power + 1 < units.len() {
        scaled /= base;
        power += 1;
    }
    let unit = units.get(power).copied().unwrap_or_default();
    if power > 0 && scaled < 9.95 {
        format!("{scaled:.1}{unit}")
    } else {
        format!("{scaled:.0}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        for (number, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (1234, "1.2k"),
            (9_960, "10k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (34_000_000, "34M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(count(number), shown);
        }
    }

    #[test]
    fn rates_tell_little_from_nothing() {
        for (number, shown) in [
            (None, "-"),
            (Some(0.0), "0"),
            (Some(0.4), "0.4"),
            (Some(9.96), "10"),
            (Some(999.6), "1.0k"),
        ] {
            assert_eq!(rate(number), shown);
        }
        assert_eq!(byte_rate(Some(-1.0)), "0 B");
        assert_eq!(byte_rate(None), "-");
    }

    #[test]
    fn bytes_go_by_1024() {
        for (number, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (3_565_158, "3.4 MiB"),
            (120 << 20, "120 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(number), shown);
        }
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, shown) in [
            (-1.0, "0s"),
            (0.9, "0s"),
            (59.9, "59s"),
            (312.0, "5m12s"),
            (11_100.0, "3h05m"),
            (367_200.0, "4d06h"),
        ] {
            assert_eq!(span(seconds), shown);
        }
    }

    #[test]
    fn round_trips_have_the_unit_that_fits() {
        for (ms, shown) in
            [(None, "-"), (Some(0.42), "0.4ms"), (Some(12.3), "12ms"), (Some(1234.0), "1.2s")]
        {
            assert_eq!(round_trip(ms), shown);
        }
    }
}
