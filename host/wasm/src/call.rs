//! One call: a place to run, a fresh store, a task of its own, an end by the clock, and one error with a class.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use beespace_core::policy::ErrorClass;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::Store;

use crate::engine::TickingEngine;
use crate::error::{PluginError, classify, total_time_exceeded};
use crate::state::{CallReport, State};
use crate::threads::{GuestThreads, SlownessScore};

/// How long a call waits for a free place before it is `busy`.
const QUEUE_TIME: Duration = Duration::from_secs(2);

/// What comes back from a call.
#[derive(Debug, Clone)]
pub struct CallOutcome<T, E = PluginError> {
    pub result: Result<T, E>,
    pub report: CallReport,
}

impl<T, E> CallOutcome<T, E> {
    pub(crate) fn failed(error: E) -> Self {
        Self { result: Err(error), report: CallReport::default() }
    }

    pub(crate) fn map_result<U, F>(self, convert: impl FnOnce(Result<T, E>) -> Result<U, F>) -> CallOutcome<U, F> {
        CallOutcome { result: convert(self.result), report: self.report }
    }
}

/// The body of a call, borrowing its store.
pub(crate) type CallBody<'a, T> = Pin<Box<dyn Future<Output = wasmtime::Result<T>> + Send + 'a>>;

/// How busy the plugins are: a call that finds no place waits for one, and is refused as `busy` after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSlots {
    pub taken: usize,
    pub total: usize,
}

/// Engine, threads and places: everything a call needs that outlives it.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    engine: TickingEngine,
    threads: Arc<GuestThreads>,
    slots: Arc<Semaphore>,
    total: usize,
}

impl Sandbox {
    pub(crate) fn new(engine: TickingEngine, places: usize) -> std::io::Result<Self> {
        let threads = Arc::new(GuestThreads::start()?);
        Ok(Self { engine, threads, slots: Arc::new(Semaphore::new(places)), total: places })
    }

    pub(crate) fn slots(&self) -> CallSlots {
        CallSlots { taken: self.total.saturating_sub(self.slots.available_permits()), total: self.total }
    }

    pub(crate) fn engine(&self) -> &TickingEngine {
        &self.engine
    }

    pub(crate) fn threads(&self) -> &GuestThreads {
        &self.threads
    }

    /// Runs `body` in a fresh store. A panic of ours or of wasmtime's ends this call and nothing else. Where the caller stops
    /// waiting, the call goes on to its end in the background, which its budgets bound.
    pub(crate) async fn call<T, F>(&self, who: &Arc<str>, debt: &Arc<SlownessScore>, state: State, body: F) -> CallOutcome<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Store<State>) -> CallBody<'a, T> + Send + 'static,
    {
        let Ok(Ok(place)) = tokio::time::timeout(QUEUE_TIME, self.slots.clone().acquire_owned()).await else {
            let waited = QUEUE_TIME.as_secs();
            return CallOutcome::failed(PluginError::new(ErrorClass::Busy, format!("{who} found no free place for {waited} s")));
        };
        let (begins, ticks) = (debt.lane(), state.ticks.clone());
        let call = call_in_store(self.engine.clone(), who.clone(), debt.clone(), state, place, body);
        match self.threads.run(begins, ticks, call).await {
            Ok(answer) => answer,
            Err(panicked) => {
                let mut error = PluginError::new(ErrorClass::Internal, format!("{who} met a fault of ours"));
                error.detail = Some(panicked.to_string());
                tracing::error!(plugin = %who, "a call panicked: {panicked}");
                CallOutcome::failed(error)
            }
        }
    }
}

async fn call_in_store<T, F>(
    engine: TickingEngine,
    who: Arc<str>,
    debt: Arc<SlownessScore>,
    state: State,
    place: OwnedSemaphorePermit,
    body: F,
) -> CallOutcome<T>
where
    F: for<'a> FnOnce(&'a mut Store<State>) -> CallBody<'a, T>,
{
    let limits = state.limits.clone();
    let started = Instant::now();
    let mut store = match state.into_store(&engine) {
        Ok(store) => store,
        Err(error) => return CallOutcome::failed(classify(&who, &limits, &error)),
    };
    let result = match tokio::time::timeout(limits.total_time, body(&mut store)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(classify(&who, &limits, &error)),
        Err(_) => Err(PluginError::new(ErrorClass::Timeout, format!("{who} {}", total_time_exceeded(&limits)))),
    };
    debt.record_call(&store.data().ticks, result.is_ok());
    let report = CallReport::of(store.data_mut(), started);
    // Never used again, whatever happened. The place is free only when its memory is.
    drop(store);
    drop(place);
    report_failure(&who, &result);
    CallOutcome { result, report }
}

fn report_failure<T>(who: &str, result: &Result<T, PluginError>) {
    if let Err(error) = result {
        tracing::warn!(plugin = who, class = ?error.class, detail = error.detail.as_deref(), "{}", error.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::state::Capabilities;

    fn thread_name(_: &mut Store<State>) -> CallBody<'_, String> {
        Box::pin(async { Ok(std::thread::current().name().unwrap_or_default().to_owned()) })
    }

    fn fails(_: &mut Store<State>) -> CallBody<'_, ()> {
        Box::pin(async { Err(wasmtime::Trap::Interrupt.into()) })
    }

    #[tokio::test]
    async fn a_plugin_that_gave_no_answer_begins_on_slow_threads_the_next_time() {
        let sandbox = Sandbox::new(TickingEngine::start(4).unwrap(), 4).unwrap();
        let (who, debt) = (Arc::from("policy \"hog\""), Arc::new(SlownessScore::default()));
        let state = || State::new(&Limits::policy(), Arc::from("{}"), Capabilities::default());
        let thread = async || sandbox.call(&who, &debt, state(), thread_name).await.result.unwrap();
        assert_eq!(thread().await, "guest");
        assert_eq!(sandbox.call(&who, &debt, state(), fails).await.result.unwrap_err().class, ErrorClass::Timeout);
        assert_eq!(thread().await, "guest-slow");
    }
}
