//! Timestamps in UTC milliseconds, as they are stored and sent. The host owns the clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Time since `earlier`; zero if the clock went back.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The delay after the n-th failed attempt: 1 s, 4 s, 16 s, … at most 10 min.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    Duration::from_secs(4_u64.saturating_pow(attempt.saturating_sub(1))).min(Duration::from_secs(600))
}
