//! Retry and backoff of engine calls.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::engine::EngineError;

/// How long an engine may be unreachable before its containers count as lost.
const MAX_ENGINE_DOWNTIME: Duration = Duration::from_secs(300);

/// A call to an unreachable engine fails sooner than this, so the failure of a longer call is a new one, with its own deadline.
const NEW_FAILURE_AFTER: Duration = Duration::from_secs(180);

/// The longest delay between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// The state of one sequence of attempts.
#[derive(Debug)]
pub(super) struct EngineRetry {
    deadline: Instant,
    backoff: Duration,
    /// The start of the attempt that has just failed.
    attempt_started: Instant,
}

impl EngineRetry {
    pub(super) fn new() -> Self {
        Self::at(Instant::now())
    }

    fn at(now: Instant) -> Self {
        Self { deadline: now + MAX_ENGINE_DOWNTIME, backoff: Duration::from_secs(1), attempt_started: now }
    }

    /// Whether to try again: waits for the backoff and returns true, or returns false when another attempt would not help.
    /// A cancel during the wait ends the wait, because the call that cancels the container has to be made at once.
    pub(super) async fn should_retry(&mut self, error: &EngineError, cancel: &CancellationToken) -> bool {
        let Some(backoff) = self.next_backoff(error, Instant::now()) else { return false };
        tracing::warn!(%error, "an engine call failed; retrying");
        let may_be_cancelled = !cancel.is_cancelled();
        tokio::select! {
            () = sleep(backoff) => {}
            () = cancel.cancelled(), if may_be_cancelled => {}
        }
        true
    }

    fn next_backoff(&mut self, error: &EngineError, now: Instant) -> Option<Duration> {
        if now.duration_since(self.attempt_started) > NEW_FAILURE_AFTER {
            *self = Self::at(now);
        }
        if !error.is_transient() || now >= self.deadline {
            return None;
        }
        let backoff = self.backoff;
        self.backoff = (backoff * 2).min(MAX_BACKOFF);
        self.attempt_started = now + backoff;
        Some(backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> EngineError {
        EngineError::Unreachable { host: "unix:///run/engine".to_owned(), cause: "connection refused".to_owned() }
    }

    /// How long attempts are repeated when every attempt takes `attempt` and fails.
    fn retried_for(retry: &mut EngineRetry, mut now: Instant, attempt: Duration) -> Duration {
        let began = now;
        while let Some(backoff) = retry.next_backoff(&unreachable(), now) {
            now += backoff + attempt;
        }
        now - began
    }

    #[test]
    fn an_unreachable_engine_is_retried_for_minutes_and_not_for_ever() {
        let now = Instant::now();
        for attempt in [Duration::from_millis(1), Duration::from_secs(60)] {
            let retried = retried_for(&mut EngineRetry::at(now), now, attempt);
            assert!((MAX_ENGINE_DOWNTIME..MAX_ENGINE_DOWNTIME + attempt + MAX_BACKOFF).contains(&retried), "{retried:?}");
        }
    }

    #[test]
    fn a_second_outage_has_its_own_deadline() {
        let now = Instant::now();
        let mut retry = EngineRetry::at(now);
        assert_eq!(retry.next_backoff(&unreachable(), now), Some(Duration::from_secs(1)));
        // The container was followed for an hour since.
        let later = now + Duration::from_secs(3_600);
        assert!(retried_for(&mut retry, later, Duration::from_millis(1)) >= MAX_ENGINE_DOWNTIME);
    }

    #[test]
    fn a_permanent_error_is_not_retried() {
        let now = Instant::now();
        let unkillable = EngineError::Unkillable { container: "a".to_owned(), after: Duration::from_secs(30) };
        assert_eq!(EngineRetry::at(now).next_backoff(&unkillable, now), None);
    }
}
