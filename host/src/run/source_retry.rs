//! Retry and backoff of checkouts.

use std::time::Duration;

use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use tokio::time::Instant;

use crate::disk;
use crate::source::SourceError;

/// How long a stage waits until the disk has room for its checkout. It occupies its slot, but no other stage starts then either.
const MAX_DISK_WAIT: Duration = Duration::from_secs(3_600);
/// How often git may be killed, or may fill the disk.
const MAX_FAILURES: u32 = 5;
/// The first delay after git was killed.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// The state of one sequence of attempts.
#[derive(Debug, Default)]
pub(super) struct SourceRetry {
    /// Since when the disk has had no room.
    no_room_since: Option<Instant>,
    failures: u32,
}

impl SourceRetry {
    /// The delay before another attempt; none if another attempt does not help.
    pub(super) fn next_delay(&mut self, error: &SourceError, now: Instant) -> Option<Duration> {
        if matches!(error, SourceError::NoRoom(_)) {
            let since = *self.no_room_since.get_or_insert(now);
            return (now.duration_since(since) < MAX_DISK_WAIT).then_some(disk::RECHECK_INTERVAL);
        }
        self.no_room_since = None;
        self.failures += 1;
        match error {
            SourceError::DiskFull(_) if self.failures < MAX_FAILURES => Some(disk::RECHECK_INTERVAL),
            SourceError::Killed { .. } if self.failures < MAX_FAILURES => Some(FIRST_BACKOFF * 2_u32.pow(self.failures - 1)),
            _ => None,
        }
    }
}

/// The error and its remedy after the last attempt.
pub(super) fn final_reason(error: &SourceError) -> Reason {
    let remedy = match error {
        SourceError::NoRoom(_) | SourceError::DiskFull(_) => "free disk space under `data.dir`",
        SourceError::TimedOut { .. } => "the repository is large or the disk of `data.dir` is slow: reduce `clone: { depth }`",
        _ => return error.reason(),
    };
    let code = if matches!(error, SourceError::TimedOut { .. }) { ReasonCode::SourceFailed } else { ReasonCode::DiskFull };
    Reason::new(code, error.to_string()).help(format!("{remedy}; then run `beespace build restart`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of attempts until the last one, and the time that they wait.
    fn waited(error: &SourceError) -> (u32, Duration) {
        let (mut retry, start) = (SourceRetry::default(), Instant::now());
        let (mut attempts, mut now) = (1, start);
        while let Some(delay) = retry.next_delay(error, now) {
            attempts += 1;
            now += delay;
        }
        (attempts, now - start)
    }

    #[test]
    fn a_disk_without_room_is_waited_for_and_not_for_ever() {
        let (attempts, waited) = waited(&SourceError::NoRoom("full".to_owned()));
        assert_eq!((attempts, waited), (241, MAX_DISK_WAIT));
        let text = final_reason(&SourceError::NoRoom("no room".to_owned())).to_string();
        assert!(text.contains("no room") && text.contains("`beespace build restart`") && !text.contains("by itself"), "{text}");
    }

    #[test]
    fn a_checkout_that_fills_the_disk_or_is_killed_has_a_few_attempts() {
        assert_eq!(waited(&SourceError::DiskFull("full".to_owned())).0, MAX_FAILURES);
        let killed = SourceError::Killed { what: "git reset".to_owned(), signal: 9 };
        assert_eq!(waited(&killed), (MAX_FAILURES, Duration::from_secs(1 + 2 + 4 + 8)));
    }

    #[test]
    fn other_errors_are_final_at_once() {
        let late = SourceError::TimedOut { what: "git reset".to_owned(), after: Duration::from_secs(600) };
        for error in [SourceError::OverLimit("too large".to_owned()), SourceError::Internal("broken".to_owned()), late] {
            assert_eq!(waited(&error).0, 1, "{error}");
            assert!(!final_reason(&error).to_string().contains("by itself"), "{error}");
        }
    }
}
