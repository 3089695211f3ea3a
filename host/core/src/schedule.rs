//! Schedules: the times at which builds of a branch start by themselves.
//!
//! A time that the clock skips when daylight saving begins becomes the first moment after the gap; a time that it repeats when
//! daylight saving ends counts once. Expressions that run at intervals (`*/15 * * * *`) follow the hours that really pass.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::event::GivenParams;
use crate::time::Timestamp;

/// Most schedules of one repository.
pub const MAX_SCHEDULES: usize = 20;

/// The zone of a schedule that names none.
pub const DEFAULT_ZONE: &str = "UTC";

/// Longest expression, in bytes.
const MAX_EXPRESSION: usize = 200;
/// From here an expression is checked for whether it ever matches. The year has a 29 February.
const ANY_TIME: Timestamp = Timestamp(946_684_800_000);
/// The times that are compared for the shortest interval: of more than a week, so every pair of days is among them.
const COMPARED: Duration = Duration::from_secs(9 * 24 * 3600);

/// A schedule as a person or a pipeline file states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Unique in its repository; see [`is_schedule_name`].
    pub name: String,
    /// An expression of five fields, or `@daily` and its like.
    pub cron: String,
    /// IANA name of the time zone in which the expression is read.
    pub zone: String,
    /// Short name of the branch that is built; `None`: the default branch at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    #[serde(default, skip_serializing_if = "GivenParams::is_empty")]
    pub params: GivenParams,
    /// A schedule that is not enabled is kept, but starts nothing.
    pub enabled: bool,
}

impl Schedule {
    /// When it is due next after `now`; `None` if it is not enabled or its times are not valid.
    #[must_use]
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        Timetable::parse(&self.cron, &self.zone).ok().filter(|_| self.enabled)?.next_after(now)
    }
}

/// Whether a schedule can have this name: 1 to 100 letters, digits, `.`, `_` and `-`.
#[must_use]
pub fn is_schedule_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Why an expression and a zone are not a timetable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimetable {
    #[error("`{0}` is not a cron expression: expected five fields such as `0 3 * * *`, or `@daily`")]
    Expression(String),
    #[error("`{0}` never matches a day")]
    Never(String),
    #[error("`{0}` is not a time zone: expected a name such as `Europe/Berlin` or `UTC`")]
    Zone(String),
}

/// The times of a schedule.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

impl Timetable {
    /// Parses an expression of five fields or a nickname, and the name of a time zone.
    ///
    /// # Errors
    /// [`InvalidTimetable`].
    pub fn parse(expression: &str, zone: &str) -> Result<Self, InvalidTimetable> {
        let invalid = || InvalidTimetable::Expression(expression.chars().take(MAX_EXPRESSION).collect());
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = Some(expression).filter(|text| text.len() <= MAX_EXPRESSION).and_then(|text| parser.parse(text).ok());
        let zone = TimeZone::get(zone).map_err(|_| InvalidTimetable::Zone(zone.chars().take(MAX_EXPRESSION).collect()))?;
        let timetable = Self { cron: cron.ok_or_else(invalid)?, zone };
        match timetable.next_after(ANY_TIME) {
            Some(_) => Ok(timetable),
            None => Err(InvalidTimetable::Never(expression.to_owned())),
        }
    }

    /// The first time after `after`.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(i64::try_from(after.0).ok()?).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok().map(Timestamp)
    }

    /// Whether two times after `now` are closer to each other than `least`.
    #[must_use]
    pub fn is_closer_than(&self, least: Duration, now: Timestamp) -> bool {
        let Some(mut last) = self.next_after(now) else { return false };
        let end = last + COMPARED;
        while let Some(next) = self.next_after(last).filter(|next| *next <= end) {
            if next.since(last) < least {
                return true;
            }
            last = next;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(u64::try_from(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()).unwrap())
    }

    /// The next times after `now`, in UTC.
    fn times(expression: &str, zone: &str, now: &str, count: usize) -> Vec<String> {
        let timetable = Timetable::parse(expression, zone).unwrap();
        let next = |last: &Timestamp| timetable.next_after(*last);
        let text = |time: Timestamp| jiff::Timestamp::from_millisecond(i64::try_from(time.0).unwrap()).unwrap().to_string();
        std::iter::successors(next(&at(now)), next).take(count).map(text).collect()
    }

    #[test]
    fn five_fields_and_nicknames_are_read_in_their_zone() {
        let now = "2026-11-30T20:00:00Z";
        assert_eq!(times("0 3 * * *", "UTC", now, 2), ["2026-12-01T03:00:00Z", "2026-12-02T03:00:00Z"]);
        assert_eq!(times("30 8 * * mon-fri", "Asia/Kolkata", now, 1), ["2026-12-01T03:00:00Z"]);
        assert_eq!(times("@daily", "Europe/Berlin", now, 1), ["2026-11-30T23:00:00Z"]);
        assert_eq!(times("@weekly", "UTC", now, 1), ["2026-12-06T00:00:00Z"]);
        assert_eq!(times("0 0 29 2 *", "UTC", now, 2), ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
    }

    #[test]
    fn a_time_that_the_clock_skips_runs_after_the_gap_and_only_on_that_day() {
        let expected = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3), expected);
    }

    #[test]
    fn a_time_that_the_clock_repeats_runs_once() {
        let expected = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        assert_eq!(times("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", 3), expected);
    }

    #[test]
    fn intervals_follow_the_hours_that_pass() {
        let spring = times("0 * * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", 3);
        assert_eq!(spring, ["2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]);
        let autumn = times("0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 3);
        assert_eq!(autumn, ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"]);
    }

    #[test]
    fn what_is_no_timetable_is_refused() {
        for odd in ["", "* * * *", "0 * * * * *", "60 * * * *", "@reboot", "x", "0 0 * * * 2026"] {
            assert_eq!(Timetable::parse(odd, "UTC").unwrap_err(), InvalidTimetable::Expression(odd.to_owned()), "{odd}");
        }
        assert_eq!(Timetable::parse("0 0 30 2 *", "UTC").unwrap_err(), InvalidTimetable::Never("0 0 30 2 *".to_owned()));
        assert_eq!(Timetable::parse("@daily", "Mars").unwrap_err(), InvalidTimetable::Zone("Mars".to_owned()));
        assert!(Timetable::parse(&"1,".repeat(150), "UTC").is_err());
    }

    #[test]
    fn times_that_are_too_close_are_found_on_every_pair_of_days() {
        let is_close = |expression| {
            let timetable = Timetable::parse(expression, "UTC").unwrap();
            timetable.is_closer_than(Duration::from_secs(300), at("2026-11-30T20:00:00Z"))
        };
        for close in ["* * * * *", "*/4 * * * *", "0,1 3 * * *", "58,2 0,23 * * *", "58,0 0,23 * * 6,0"] {
            assert!(is_close(close), "{close}");
        }
        for wide in ["*/5 * * * *", "@daily", "0 0 29 2 *", "0,5 3 * * *", "58,0 0,23 * * 6"] {
            assert!(!is_close(wide), "{wide}");
        }
    }

    #[test]
    fn a_schedule_that_is_not_enabled_is_never_due() {
        let schedule = |enabled| Schedule {
            name: "nightly".to_owned(),
            cron: "@daily".to_owned(),
            zone: DEFAULT_ZONE.to_owned(),
            branch: None,
            params: GivenParams::new(),
            enabled,
        };
        let now = at("2026-11-30T20:00:00Z");
        assert_eq!(schedule(true).next_after(now), Some(at("2026-12-01T00:00:00Z")));
        assert_eq!(schedule(false).next_after(now), None);
    }
}
