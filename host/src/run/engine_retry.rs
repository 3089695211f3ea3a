//! With an engine that does not answer: how long, and how often it is asked again.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::engine::EngineError;

/// How long an engine may be away before its containers count as lost.
const MAX_ENGINE_DOWNTIME: Duration = Duration::from_secs(300);

/// No engine that stays away keeps us waiting as long in one attempt: after one of this length, the trouble is a new one.
const NEW_FAILURE_AFTER: Duration = Duration::from_secs(180);

/// Between two attempts at most.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// With an engine that does not answer.
#[derive(Debug)]
pub(super) struct EngineRetry {
    deadline: Instant,
    backoff: Duration,
    /// When the attempt began that has failed.
    attempt_started: Instant,
}

impl EngineRetry {
    pub(super) fn new() -> Self {
        Self::at(Instant::now())
    }

    fn at(now: Instant) -> Self {
        Self { deadline: now + MAX_ENGINE_DOWNTIME, backoff: Duration::from_secs(1), attempt_started: now }
    }

    /// Waits a while where asking again may help. False: it is over. Who is told to stop meanwhile asks again at once.
    pub(super) async fn should_retry(&mut self, trouble: &EngineError, cancel: &CancellationToken) -> bool {
        let Some(pause) = self.next_backoff(trouble, Instant::now()) else { return false };
        tracing::warn!(error = %trouble, "the engine is in trouble; asking again");
        let is_news = !cancel.is_cancelled();
        tokio::select! {
            () = sleep(pause) => {}
            () = cancel.cancelled(), if is_news => {}
        }
        true
    }

    fn next_backoff(&mut self, trouble: &EngineError, now: Instant) -> Option<Duration> {
        if now.duration_since(self.attempt_started) > NEW_FAILURE_AFTER {
            *self = Self::at(now);
        }
        if !trouble.is_transient() || now >= self.deadline {
            return None;
        }
        let pause = self.backoff;
        self.backoff = (pause * 2).min(MAX_BACKOFF);
        self.attempt_started = now + pause;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> EngineError {
        EngineError::Unreachable { host: "unix:///run/engine".to_owned(), cause: "connection refused".to_owned() }
    }

    /// How long an engine is borne with that answers every attempt with trouble, each after `attempt`.
    fn borne(patience: &mut EngineRetry, mut now: Instant, attempt: Duration) -> Duration {
        let began = now;
        while let Some(pause) = patience.next_backoff(&away(), now) {
            now += pause + attempt;
        }
        now - began
    }

    #[test]
    fn an_engine_may_be_away_for_minutes_and_not_for_ever() {
        let now = Instant::now();
        for attempt in [Duration::from_millis(1), Duration::from_secs(60)] {
            let borne = borne(&mut EngineRetry::at(now), now, attempt);
            assert!((MAX_ENGINE_DOWNTIME..MAX_ENGINE_DOWNTIME + attempt + MAX_BACKOFF).contains(&borne), "{borne:?}");
        }
    }

    #[test]
    fn an_engine_that_came_back_may_go_again() {
        let now = Instant::now();
        let mut patience = EngineRetry::at(now);
        assert_eq!(patience.next_backoff(&away(), now), Some(Duration::from_secs(1)));
        // The container was followed for an hour since.
        let later = now + Duration::from_secs(3_600);
        assert!(borne(&mut patience, later, Duration::from_millis(1)) >= MAX_ENGINE_DOWNTIME);
    }

    #[test]
    fn what_does_not_pass_is_not_waited_for() {
        let now = Instant::now();
        let unkillable = EngineError::Unkillable { container: "a".to_owned(), after: Duration::from_secs(30) };
        assert_eq!(EngineRetry::at(now).next_backoff(&unkillable, now), None);
    }
}
