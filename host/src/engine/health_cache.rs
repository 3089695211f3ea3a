//! What the engine said of itself a moment ago: whoever asks whether the server is ready need not be known, and must not be able to
//! keep the engine busy.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// So long an answer is good.
const MAX_AGE: Duration = Duration::from_secs(5);
/// Longer than this the engine does not answer.
const TIMEOUT: Duration = Duration::from_secs(5);

type HealthResult = Result<String, String>;

/// The last answer. All who ask meanwhile get the same.
#[derive(Debug, Clone, Default)]
pub struct HealthCache(Arc<Mutex<Option<(Instant, HealthResult)>>>);

impl HealthCache {
    /// Kind and version of the engine, or why it cannot be used; `ask` asks it, where the last answer is old.
    ///
    /// # Errors
    /// What the engine says, or that it says nothing.
    pub async fn get<E: std::fmt::Display>(&self, ask: impl Future<Output = Result<super::EngineInfo, E>>) -> HealthResult {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < MAX_AGE
        {
            return answer.clone();
        }
        let answer = match tokio::time::timeout(TIMEOUT, ask).await {
            Ok(Ok(info)) => Ok(format!("{} {}", info.kind, info.version)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::engine::dummy::Dummy;
    use crate::engine::{Engine as _, EngineError, EngineInfo};

    #[tokio::test]
    async fn however_many_ask_the_engine_is_asked_once() {
        let (recent, asked) = (HealthCache::default(), AtomicUsize::new(0));
        let dummy = Dummy::new();
        let ask = async || {
            asked.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
            dummy.check().await
        };
        let answers = futures::future::join_all((0..100).map(|_| recent.get(ask()))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|told| told.starts_with("dummy "))), "{answers:?}");
        assert_eq!(asked.load(Relaxed), 1);
        recent.0.lock().await.as_mut().unwrap().0 -= MAX_AGE;
        let away = async { Err::<EngineInfo, _>(EngineError::InvalidAddress { host: "no socket".to_owned() }) };
        assert!(recent.get(away).await.unwrap_err().contains("no socket"), "an old answer is asked for anew");
    }
}
