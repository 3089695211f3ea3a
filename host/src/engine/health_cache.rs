//! A cache of the engine's health. `/readyz` needs no sign-in, so frequent requests must not keep the engine busy.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::contract::EngineInfo;

/// How long a result is valid.
const MAX_AGE: Duration = Duration::from_secs(5);
/// An engine that takes longer counts as not responding.
const TIMEOUT: Duration = Duration::from_secs(5);

type HealthResult = Result<String, String>;

/// The last result. Concurrent requests get the same one.
#[derive(Debug, Clone, Default)]
pub struct HealthCache(Arc<Mutex<Option<(Instant, HealthResult)>>>);

impl HealthCache {
    /// The kind and version of the engine, or why it cannot be used. Calls `check` if the last result is too old.
    ///
    /// # Errors
    /// The engine's error, or that it does not respond.
    pub async fn get<E: std::fmt::Display>(&self, check: impl Future<Output = Result<EngineInfo, E>>) -> HealthResult {
        let mut last = self.0.lock().await;
        if let Some((at, result)) = &*last
            && at.elapsed() < MAX_AGE
        {
            return result.clone();
        }
        let result = match tokio::time::timeout(TIMEOUT, check).await {
            Ok(Ok(info)) => Ok(format!("{} {}", info.kind, info.version)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no response within {} s", TIMEOUT.as_secs())),
        };
        *last = Some((Instant::now(), result.clone()));
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::engine::dummy::Dummy;
    use crate::engine::{Engine as _, EngineError, EngineInfo};

    #[tokio::test]
    async fn concurrent_requests_call_the_engine_once() {
        let (cache, calls) = (HealthCache::default(), AtomicUsize::new(0));
        let dummy = Dummy::new();
        let check = async || {
            calls.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
            dummy.check().await
        };
        let results = futures::future::join_all((0..100).map(|_| cache.get(check()))).await;
        assert!(results.iter().all(|result| result.as_ref().is_ok_and(|text| text.starts_with("dummy "))), "{results:?}");
        assert_eq!(calls.load(Relaxed), 1);
        cache.0.lock().await.as_mut().unwrap().0 -= MAX_AGE;
        let failing = async { Err::<EngineInfo, _>(EngineError::InvalidAddress { host: "no socket".to_owned() }) };
        assert!(cache.get(failing).await.unwrap_err().contains("no socket"), "an old result is replaced");
    }
}
