//! Durations (`90s`, `10m`, `1h30m`) and sizes (`512MiB`, `2GB`) as text, for the pipeline file and the configuration.

use std::time::Duration;

/// Description of a valid duration, for messages.
pub const DURATION_EXPECTED: &str = "a duration such as `90s`, `10m` or `1h30m`";

/// Description of a valid size, for messages.
pub const SIZE_EXPECTED: &str = "a size such as `512MiB` or `2GB`";

/// Parses `1h30m`: whole numbers with `d`, `h`, `m` or `s`, largest unit first, each unit once, at most 365 days in total.
/// `None` for everything else, including a number without a unit, which would be ambiguous.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    let mut smallest_so_far = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit = match tail.as_bytes().first()? {
            b'd' => 86_400,
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        if unit >= smallest_so_far {
            return None;
        }
        smallest_so_far = unit;
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = tail.get(1..)?;
    }
    (smallest_so_far != u64::MAX && seconds <= 365 * 86_400).then(|| Duration::from_secs(seconds))
}

/// Formats a duration as [`parse_duration`] reads it; fractions of a second are dropped.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (unit, letter) in [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')] {
        if rest >= unit {
            text.push_str(&(rest / unit).to_string());
            text.push(letter);
            rest %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Parses `512MiB`: a whole number with a unit, powers of 1024 with an `i`, powers of 1000 without. `None` for everything else.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, factor) = SIZES.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Formats a size exactly, in the largest unit that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// Parses a number of CPUs, `2` or `0.5`, as thousandths of a CPU: above 0, with at most three digits after the point.
#[must_use]
pub fn parse_cpus(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 3 {
        return None;
    }
    let thousandths: u32 = format!("{fraction:0<3}").parse().ok()?;
    let millis = whole.parse::<u32>().ok()?.checked_mul(1_000)?.checked_add(thousandths)?;
    (millis > 0).then_some(millis)
}

/// Formats thousandths of a CPU as [`parse_cpus`] reads them.
#[must_use]
pub fn format_cpus(millis: u32) -> String {
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5_400), ("2d", 172_800), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(format_duration(Duration::from_secs(5_400)), "1h30m");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        for text in ["", "90", "1.5h", "-1s", "m", "30m1h", "1h1h", "1y", "1h ", "366d", "99999999999999999999s", "1hé"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_round_trip() {
        for (text, bytes) in [("512MiB", 512 << 20), ("2GB", 2_000_000_000), ("0B", 0), ("1kB", 1000), ("4GiB", 4 << 30)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes), "{text}");
        }
        for text in ["", "12", "MiB", "1.5GB", "-1B", "1 GB", "1gb", "99999999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
