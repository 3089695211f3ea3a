//! One call of a plugin: it waits for a call slot, runs in a fresh store on the guest threads with a time limit, and every
//! failure becomes one error with a class.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use beespace_core::policy::ErrorClass;
use wasmtime::Store;

use crate::engine::TickingEngine;
use crate::error::{PluginError, classify, total_time_exceeded};
use crate::manifest::Kind;
use crate::sanitize::sanitize;
use crate::slots::{CallingBuild, MaxCalls, Slot, Slots};
use crate::state::{CallReport, State};
use crate::threads::{GuestThreads, SlownessScore};

/// The result of a call, with a report of what the call used and logged.
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

/// The body of a call: a future that borrows the store.
pub(crate) type CallBody<'a, T> = Pin<Box<dyn Future<Output = wasmtime::Result<T>> + Send + 'a>>;

/// Maximum length of the sentence about a failed call, in bytes.
const MAX_SENTENCE_BYTES: usize = 2 << 10;

/// Engine, threads and call slots: everything that a call needs and that outlives it.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    engine: TickingEngine,
    threads: Arc<GuestThreads>,
    slots: Arc<Slots>,
}

/// The plugin that is called, and the build for which it is called.
pub(crate) struct CallTarget<'a> {
    pub(crate) kind: Kind,
    pub(crate) label: &'a Arc<str>,
    pub(crate) slowness: &'a Arc<SlownessScore>,
    /// The build that the call belongs to, if its share of the slots is bounded.
    pub(crate) build: Option<CallingBuild>,
}

impl Sandbox {
    pub(crate) fn new(engine: TickingEngine, max: MaxCalls) -> std::io::Result<Self> {
        let threads = Arc::new(GuestThreads::start()?);
        Ok(Self { engine, threads, slots: Arc::new(Slots::new(max)) })
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(crate) fn engine(&self) -> &TickingEngine {
        &self.engine
    }

    pub(crate) fn threads(&self) -> &GuestThreads {
        &self.threads
    }

    /// Runs `body` in a fresh store. A panic in the host or in wasmtime ends this call only. If the caller stops waiting, the
    /// call continues in the background until it ends or reaches one of its limits.
    pub(crate) async fn call<T, F>(
        &self,
        CallTarget { kind, label, slowness, build }: CallTarget<'_>,
        state: State,
        body: F,
    ) -> CallOutcome<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Store<State>) -> CallBody<'a, T> + Send + 'static,
    {
        let Some(slot) = self.slots.acquire(kind, build).await else {
            let message = format!("{label} was not called: this server has no call slots for {kind} plugins");
            return CallOutcome::failed(PluginError::new(ErrorClass::Internal, message));
        };
        let (lane, ticks) = (slowness.lane(), state.ticks.clone());
        let call = call_in_store(self.engine.clone(), label.clone(), slowness.clone(), state, slot, body);
        match self.threads.run(lane, ticks, call).await {
            Ok(outcome) => outcome,
            Err(panicked) => {
                let mut error =
                    PluginError::new(ErrorClass::Internal, format!("{label} was interrupted by an internal error of Beespace"));
                error.detail = Some(panicked.to_string());
                tracing::error!(plugin = %label, "a plugin call panicked: {panicked}");
                CallOutcome::failed(error)
            }
        }
    }
}

async fn call_in_store<T, F>(
    engine: TickingEngine,
    label: Arc<str>,
    slowness: Arc<SlownessScore>,
    state: State,
    slot: Slot,
    body: F,
) -> CallOutcome<T>
where
    F: for<'a> FnOnce(&'a mut Store<State>) -> CallBody<'a, T>,
{
    let limits = state.limits.clone();
    let started = Instant::now();
    let mut store = match state.into_store(&engine) {
        Ok(store) => store,
        Err(error) => return CallOutcome::failed(classify(&label, &limits, &error)),
    };
    let result = match tokio::time::timeout(limits.total_time, body(&mut store)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(with_last_words(classify(&label, &limits, &error), store.data())),
        Err(_) => Err(PluginError::new(ErrorClass::Timeout, format!("{label} {}", total_time_exceeded(&limits)))),
    };
    slowness.record_call(&store.data().ticks, result.is_ok());
    let report = CallReport::of(store.data_mut(), started);
    // A store is never reused. The slot is released only after the memory of the store.
    drop(store);
    drop(slot);
    report_failure(&label, &result);
    CallOutcome { result, report }
}

/// The remedy for a crash that the plugin did not explain.
const NO_LAST_WORDS: &str = "the plugin logged no error before; its author can report panics and exceptions with `log.emit`";

/// Adds the last error line of the call to a crash. A plugin whose panics are logged reports its message and place this way; the
/// trap itself contains neither.
fn with_last_words(mut error: PluginError, state: &State) -> PluginError {
    if error.class == ErrorClass::Trap {
        let words = state.log.last_error().unwrap_or(NO_LAST_WORDS);
        error.message = sanitize(&format!("{}: {words}", error.message), MAX_SENTENCE_BYTES);
    }
    error
}

fn report_failure<T>(label: &str, result: &Result<T, PluginError>) {
    if let Err(error) = result {
        tracing::warn!(plugin = label, class = ?error.class, "{}", error.message);
        if let Some(detail) = &error.detail {
            tracing::debug!(plugin = label, "the failed call: {detail}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::state::HostResources;

    fn thread_name(_: &mut Store<State>) -> CallBody<'_, String> {
        Box::pin(async { Ok(std::thread::current().name().unwrap_or_default().to_owned()) })
    }

    fn fails(_: &mut Store<State>) -> CallBody<'_, ()> {
        Box::pin(async { Err(wasmtime::Trap::Interrupt.into()) })
    }

    #[tokio::test]
    async fn a_call_starts_on_slow_threads_after_the_previous_one_failed() {
        let sandbox = Sandbox::new(TickingEngine::start(4).unwrap(), MaxCalls::each(1)).unwrap();
        let (label, slowness) = (Arc::from("policy \"slow\""), Arc::new(SlownessScore::default()));
        let state = || State::new(&Limits::policy(), Arc::from("{}"), HostResources::default());
        let call = || CallTarget { kind: Kind::Policy, label: &label, slowness: &slowness, build: None };
        let thread = async || sandbox.call(call(), state(), thread_name).await.result.unwrap();
        assert_eq!(thread().await, "guest");
        assert_eq!(sandbox.call(call(), state(), fails).await.result.unwrap_err().class, ErrorClass::Timeout);
        assert_eq!(thread().await, "guest-slow");
    }
}
