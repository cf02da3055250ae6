//! Values that carry their unit in the text: durations (`"30s"`), sizes (`"64KiB"`) and rates
//! (`"100/s"`, `"1MiB/s"`).

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

/// A number of bytes, as `"64KiB"` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many KiB of 1,024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count * 1024)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Reads `"512B"`, `"64KiB"`, `"1MiB"` or `"1GiB"` (and `KB`, `MB`, `GB` by the thousand).
    ///
    /// # Errors
    ///
    /// What is wrong with the text and how it is written right.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text);
        let scale: u64 = match unit.to_ascii_lowercase().as_str() {
            "b" => 1,
            "kib" | "k" => 1 << 10,
            "mib" | "m" => 1 << 20,
            "gib" | "g" => 1 << 30,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return Err(UnitError::Size(text.into())),
        };
        let number: u64 = number.parse().map_err(|_| UnitError::Size(text.into()))?;
        number.checked_mul(scale).map(Self).ok_or_else(|| UnitError::TooLarge(text.into()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (scale, unit) in [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 >= scale && self.0.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// So much in so long, as `"100/s"` or `"1MiB/s"` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, or how many bytes; at least 1.
    pub amount: u64,
    /// In how long: a second, a minute or an hour.
    pub per: Duration,
}

impl Rate {
    /// Reads `"100/s"`, `"100/m"` or `"100/h"`.
    ///
    /// # Errors
    ///
    /// What is wrong with the text and how it is written right.
    pub fn parse_count(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::CountRate(text.into());
        let (count, per) = split_rate(text).ok_or_else(wrong)?;
        match split(count) {
            (number, "") => Self::new(text, number.parse().map_err(|_| wrong())?, per),
            _ => Err(wrong()),
        }
    }

    /// Reads `"1MiB/s"`, `"1MiB/m"` or `"1MiB/h"`, and the other sizes in the same way.
    ///
    /// # Errors
    ///
    /// What is wrong with the text and how it is written right.
    pub fn parse_size(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::SizeRate(text.into());
        let (size, per) = split_rate(text).ok_or_else(wrong)?;
        match ByteSize::parse(size) {
            Ok(size) => Self::new(text, size.bytes(), per),
            Err(UnitError::TooLarge(_)) => Err(UnitError::TooLarge(text.into())),
            Err(_) => Err(wrong()),
        }
    }

    /// How many, or how many bytes, a second.
    pub fn per_second(self) -> f64 {
        self.amount as f64 / self.per.as_secs_f64()
    }

    /// A rate of nothing would be a session on which nothing can ever be said.
    fn new(text: &str, amount: u64, per: Duration) -> Result<Self, UnitError> {
        match amount {
            0 => Err(UnitError::ZeroRate(text.into())),
            amount => Ok(Self { amount, per }),
        }
    }
}

/// Reads a network, or the address of one machine.
///
/// # Errors
///
/// What is wrong with the text and how it is written right.
pub fn network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse().map(|address: std::net::IpAddr| IpNet::from(address));
    text.parse().or_else(|_| single()).map_err(|_| {
        format!(
            "`{text}` is no network: write an IP address or a prefix, as in \"10.0.0.0/8\" or \
             \"::1\""
        )
    })
}

/// Reads `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"2d"`, or several of them in a row: `"1h30m"`.
///
/// # Errors
///
/// What is wrong with the text and how it is written right.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration(text.into());
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = split(rest);
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(millis).ok_or_else(|| UnitError::TooLarge(text.into()))?;
        total = total
            .checked_add(Duration::from_millis(part))
            .filter(|sum| *sum <= LONGEST)
            .ok_or_else(|| UnitError::TooLarge(text.into()))?;
        rest = next;
    }
    Ok(total)
}

/// A deadline that is further away than this is a slip of the pen, and arithmetic on instants
/// must not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The digits at the front, and what follows them.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..digits], text[digits..].trim_start())
}

/// What stands before the slash, and the time that is named after it.
fn split_rate(text: &str) -> Option<(&str, Duration)> {
    let (amount, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        _ => return None,
    };
    Some((amount, Duration::from_secs(seconds)))
}

/// Why a text is no duration, size or rate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number with a unit of time.
    #[error("`{0}` is no duration: write a whole number and ms, s, m, h or d, as in \"30s\"")]
    Duration(String),
    /// Not a number with a unit of size.
    #[error("`{0}` is no size: write a whole number and B, KiB, MiB or GiB, as in \"64KiB\"")]
    Size(String),
    /// Not a number with a slash and a unit of time.
    #[error("`{0}` is no rate: write a whole number and /s, /m or /h, as in \"100/s\"")]
    CountRate(String),
    /// Not a size with a slash and a unit of time.
    #[error("`{0}` is no rate of bytes: write a size and /s, /m or /h, as in \"1MiB/s\"")]
    SizeRate(String),
    /// Nothing in whatever time.
    #[error("`{0}` lets nothing through at all: write 1 or more")]
    ZeroRate(String),
    /// More than we can count to, or would ever wait for.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            (" 2 d ", 172_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5s", "30 parsecs", "1h 30", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("999999999d"), Err(UnitError::TooLarge("999999999d".into())));
    }

    #[test]
    fn sizes_carry_their_unit() {
        for (text, bytes) in
            [("0B", 0), ("512B", 512), ("64KiB", 65_536), ("2 MiB", 2 << 20), ("1kb", 1_000)]
        {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "64", "KiB", "64XiB", "99999999999GiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
        assert_eq!(ByteSize::kib(32).to_string(), "32KiB");
        assert_eq!(ByteSize(1_500).to_string(), "1500B");
    }

    #[test]
    fn rates_carry_their_unit() {
        for (text, amount, seconds) in [
            ("100/s", 100, 1),
            ("5/m", 5, 60),
            ("5/min", 5, 60),
            ("1/h", 1, 3_600),
            (" 20 / s ", 20, 1),
        ] {
            let rate = Rate { amount, per: Duration::from_secs(seconds) };
            assert_eq!(Rate::parse_count(text), Ok(rate), "{text}");
        }
        for text in [
            "",
            "100",
            "/s",
            "100/",
            "-1/s",
            "+1/s",
            "1.5/s",
            "100/d",
            "100/2s",
            "1/s/s",
            "1KiB/s",
            "99999999999999999999/s",
        ] {
            assert_eq!(Rate::parse_count(text), Err(UnitError::CountRate(text.into())), "{text}");
        }
        assert_eq!(Rate::parse_count("0/s"), Err(UnitError::ZeroRate("0/s".into())));
    }

    #[test]
    fn rates_of_bytes_carry_both_units() {
        for (text, amount, seconds) in [
            ("1MiB/s", 1 << 20, 1),
            ("64 KiB / min", 65_536, 60),
            ("1kb/m", 1_000, 60),
            ("512B/h", 512, 3_600),
        ] {
            let rate = Rate { amount, per: Duration::from_secs(seconds) };
            assert_eq!(Rate::parse_size(text), Ok(rate), "{text}");
        }
        for text in ["", "1MiB", "100/s", "/s", "KiB/s", "1XiB/s", "1MiB/ms", "1MiB/s/s"] {
            assert_eq!(Rate::parse_size(text), Err(UnitError::SizeRate(text.into())), "{text}");
        }
        assert_eq!(Rate::parse_size("0KiB/s"), Err(UnitError::ZeroRate("0KiB/s".into())));
        let far = "99999999999GiB/s";
        assert_eq!(Rate::parse_size(far), Err(UnitError::TooLarge(far.into())));
    }
}
