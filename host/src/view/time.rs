//! Times and durations as text and as HTML.

use std::fmt::Write as _;
use std::time::Duration;

use beespace_core::time::Timestamp;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::html::Html;

fn utc(at: Timestamp) -> DateTime<Utc> {
    i64::try_from(at.0).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

/// RFC 3339, to the millisecond.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    utc(at).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A `<time>` element such as `3 minutes ago`, with the exact time as its tooltip and for scripts.
#[must_use]
pub fn time_element(at: Timestamp, now: Timestamp) -> Html {
    let exact = utc(at).format("%Y-%m-%d %H:%M:%S UTC");
    Html::trusted(format!(r#"<time datetime="{}" title="{exact}">{}</time>"#, rfc3339(at), ago(at, now)))
}

/// Time since `at` in the largest unit that fits; after 30 days the date.
#[must_use]
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at).as_secs();
    let (count, unit) = match seconds {
        0..=9 => return "just now".to_owned(),
        10..=59 => (seconds, "second"),
        60..=3_599 => (seconds / 60, "minute"),
        3_600..=86_399 => (seconds / 3_600, "hour"),
        86_400..=2_591_999 => (seconds / 86_400, "day"),
        _ => return utc(at).format("%Y-%m-%d").to_string(),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `4 ms`, `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match seconds {
        0 if duration.as_millis() < 100 => write!(text, "{} ms", duration.as_millis()),
        0..=9 => write!(text, "{}.{} s", seconds, duration.subsec_millis() / 100),
        10..=59 => write!(text, "{seconds} s"),
        60..=3_599 => write!(text, "{} min {:02} s", seconds / 60, seconds % 60),
        _ => write!(text, "{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
    };
    text
}

/// How long something took or has been running; empty before its start.
#[must_use]
pub fn elapsed(started: Option<Timestamp>, finished: Option<Timestamp>, now: Timestamp) -> String {
    started.map_or_else(String::new, |started| format_duration(finished.unwrap_or(now).since(started)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_use_fitting_units() {
        let now = Timestamp(1_800_000_000_000);
        let before = |seconds: u64| Timestamp(now.0 - seconds * 1000);
        assert_eq!(ago(before(3), now), "just now");
        assert_eq!(ago(before(60), now), "1 minute ago");
        assert_eq!(ago(before(7_300), now), "2 hours ago");
        assert_eq!(ago(before(40 * 86_400), now), "2026-12-06");
        assert_eq!(format_duration(Duration::from_millis(4)), "4 ms");
        assert_eq!(format_duration(Duration::from_millis(450)), "0.4 s");
        assert_eq!(format_duration(Duration::from_secs(185)), "3 min 05 s");
        assert_eq!(format_duration(Duration::from_secs(7_800)), "2 h 10 min");
    }
}
