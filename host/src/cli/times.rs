//! Times of the API as text for people: ages, times left, and durations.

use beespace_core::time::Timestamp;
use chrono::DateTime;

use crate::view::time;

/// A time of the API.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let millis = DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis();
    u64::try_from(millis).ok().map(Timestamp)
}

/// The age of a time of the API.
pub(super) fn age(text: &str, now: Timestamp) -> String {
    timestamp(text).map_or_else(String::new, |at| time::ago(at, now))
}

/// The time left until a time of the API; empty if there is none.
pub(super) fn until(text: Option<&str>, now: Timestamp) -> String {
    let left = text.and_then(timestamp).map(|at| at.since(now));
    left.map_or_else(
        String::new,
        |left| if left.is_zero() { "now".to_owned() } else { format!("in {}", time::format_duration(left)) },
    )
}

/// How long something took or has been running; empty before its start.
pub(super) fn duration(started: Option<&str>, finished: Option<&str>, now: Timestamp) -> String {
    time::elapsed(started.and_then(timestamp), finished.and_then(timestamp), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_relative_to_now() {
        let now = timestamp("2026-01-01T10:00:00.000Z").unwrap();
        assert_eq!(age("2026-01-01T09:57:00.000Z", now), time::ago(timestamp("2026-01-01T09:57:00Z").unwrap(), now));
        assert_eq!(until(Some("2026-01-01T10:01:30.000Z"), now), "in 1 min 30 s");
        assert_eq!((until(Some("2026-01-01T09:59:00Z"), now).as_str(), until(None, now).as_str()), ("now", ""));
        assert_eq!(age("yesterday", now), "");
    }
}
