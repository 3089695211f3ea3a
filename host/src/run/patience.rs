//! With an engine that does not answer: how long, and how often it is asked again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::engine::EngineError;

/// How long an engine may be away before its containers count as lost.
const ENGINE_PATIENCE: Duration = Duration::from_secs(300);

/// With an engine that does not answer.
#[derive(Debug)]
pub(super) struct Patience {
    give_up: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { give_up: Instant::now() + ENGINE_PATIENCE, pause: Duration::from_secs(1) }
    }

    /// Waits a while where asking again may help. False: it is over.
    pub(super) async fn bears(&mut self, trouble: &EngineError) -> bool {
        if !trouble.is_passing() || Instant::now() >= self.give_up {
            return false;
        }
        tracing::warn!(error = %trouble, "the engine is in trouble; asking again");
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_secs(15));
        true
    }
}
