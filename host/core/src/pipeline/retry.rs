//! `retry`: further attempts at a step that did not succeed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::decode::Reader;
use super::diagnostics::quote;
use super::keywords::{FOREIGN_RETRY_REASONS, RETRY};
use super::spans::YamlPath;
use super::yaml::MapEntry;
use crate::exit::{Exit, ExitCause};
use crate::status::Status;

/// Most further attempts at a step.
pub const MAX_RETRIES: u16 = 10;

/// The longest delay between two attempts.
const MAX_DELAY: Duration = Duration::from_secs(3_600);

/// Further attempts at a step. Each has its own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Number of further attempts, from 1 to [`MAX_RETRIES`].
    pub max: u16,
    /// The results that are tried again, not empty.
    pub on: Vec<RetryOn>,
    /// The delay before the second attempt; it doubles with each further one. `None`: no delay.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "super::seconds")]
    pub backoff: Option<Duration>,
}

/// A result of a step that is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The step could not be run: its image, its engine or its container failed.
    Error,
    /// A container exceeded the step's `timeout`.
    Timeout,
    /// The user's program failed.
    Failure,
}

impl RetryOn {
    /// All results, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Error, Self::Timeout, Self::Failure];

    /// The keyword in pipeline files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Failure => "failure",
        }
    }

    /// The result of an attempt; `None` for one that is never tried again, because it succeeded or was stopped.
    #[must_use]
    pub fn of(status: Status, exits: &[Exit]) -> Option<Self> {
        match status {
            _ if status == Status::Success || status == Status::Declined => None,
            _ if exits.iter().any(|exit| exit.cause == ExitCause::Cancelled) => None,
            _ if exits.iter().any(|exit| exit.cause == ExitCause::TimedOut) => Some(Self::Timeout),
            Status::Error => Some(Self::Error),
            Status::Failure => Some(Self::Failure),
            _ => None,
        }
    }
}

impl Retry {
    /// The delay before the attempt after `attempt`, which ended with this result; `None` if there is no further attempt.
    #[must_use]
    pub fn delay_after(&self, attempt: u16, status: Status, exits: &[Exit]) -> Option<Duration> {
        let result = RetryOn::of(status, exits)?;
        if attempt > self.max || !self.on.contains(&result) {
            return None;
        }
        let doubled = 1_u32.checked_shl(u32::from(attempt.saturating_sub(1))).unwrap_or(u32::MAX);
        Some(self.backoff.unwrap_or_default().saturating_mul(doubled).min(MAX_DELAY))
    }
}

impl Reader {
    /// `retry`: a map with `max`.
    pub(super) fn retry(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<Retry> {
        let path = path.child("retry");
        path.record(&mut self.spans, entry.value.span);
        let expected = "`retry` to be a map such as `{ max: 2, on: [error, timeout], backoff: 5s }`";
        let fields = self.fields(&entry.value, expected, &RETRY)?;
        let Some(max) = fields.get("max") else {
            if !fields.has_typo_of("max") {
                self.diagnostics.add("missing-key", entry.value.span, "`retry` needs `max`, the number of further attempts");
            }
            return None;
        };
        let on = match fields.get("on") {
            Some(on) => self.retry_reasons(on, &path),
            None => RetryOn::ALL.to_vec(),
        };
        let backoff = fields.get("backoff").and_then(|entry| self.duration(entry, &path));
        Some(Retry { max: self.max_retries(max, &path)?, on, backoff })
    }

    fn max_retries(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<u16> {
        let expected = format!("`max` to be a number from 1 to {MAX_RETRIES}");
        path.child("max").record(&mut self.spans, entry.value.span);
        let text = self.text(&entry.value, &expected)?;
        let max = text.parse().ok().filter(|max| (1..=MAX_RETRIES).contains(max));
        if max.is_none() {
            self.wrong_type(&entry.value, &expected);
        }
        max
    }

    fn retry_reasons(&mut self, entry: &MapEntry, path: &YamlPath) -> Vec<RetryOn> {
        let words = RetryOn::ALL.map(|reason| (reason.as_str(), reason));
        let path = path.child("on");
        path.record(&mut self.spans, entry.value.span);
        let mut reasons = Vec::new();
        for (node, text) in self.texts(&entry.value, "`on` to be a list of `error`, `timeout` and `failure`").unwrap_or_default()
        {
            let Some(reason) = self.keyword(node.span, &text, "on", &words, FOREIGN_RETRY_REASONS) else { continue };
            if reasons.contains(&reason) {
                self.diagnostics.add("duplicate-name", node.span, format!("{} is listed twice in `on`", quote(&text)));
            }
            path.child(reasons.len()).record(&mut self.spans, node.span);
            reasons.push(reason);
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(cause: ExitCause) -> Exit {
        Exit::not_started("step", cause, "")
    }

    #[test]
    fn an_attempt_is_repeated_as_often_as_the_file_says() {
        let retry = Retry { max: 2, on: vec![RetryOn::Failure], backoff: Some(Duration::from_secs(5)) };
        let delay = |attempt| retry.delay_after(attempt, Status::Failure, &[]).map(|delay| delay.as_secs());
        assert_eq!([1, 2, 3].map(delay), [Some(5), Some(10), None]);
        assert_eq!(retry.delay_after(1, Status::Error, &[]), None);
        assert_eq!(retry.delay_after(1, Status::Success, &[]), None);
        let at_once = Retry { backoff: None, ..retry.clone() };
        assert_eq!(at_once.delay_after(2, Status::Failure, &[]), Some(Duration::ZERO));
        let long = Retry { max: 10, backoff: Some(Duration::from_secs(600)), ..retry };
        assert_eq!(long.delay_after(9, Status::Failure, &[]), Some(MAX_DELAY));
    }

    #[test]
    fn a_step_that_was_stopped_is_not_repeated() {
        assert_eq!(RetryOn::of(Status::Killed, &[exit(ExitCause::Cancelled)]), None);
        assert_eq!(RetryOn::of(Status::Killed, &[exit(ExitCause::TimedOut)]), Some(RetryOn::Timeout));
        assert_eq!(RetryOn::of(Status::Error, &[exit(ExitCause::ImageFailed)]), Some(RetryOn::Error));
        assert_eq!(RetryOn::of(Status::Failure, &[]), Some(RetryOn::Failure));
        assert_eq!(RetryOn::of(Status::Declined, &[]), None);
        assert_eq!(RetryOn::of(Status::Blocked, &[]), None);
    }
}
