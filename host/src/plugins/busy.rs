//! Calls that the server could not make for lack of memory or threads. This is no fault of the plugin or its caller, so the call
//! is repeated and never counts as an answer.

use std::future::Future;
use std::time::Duration;

use beespace_core::policy::ErrorClass;
use beespace_wasm::CallOutcome;

/// The pause before a call is repeated.
const PAUSE: Duration = Duration::from_secs(1);

/// Repeats a call until the server has the resources for it.
pub async fn when_free<T, E, C>(mut call: impl FnMut() -> C, class: impl Fn(&E) -> ErrorClass) -> CallOutcome<T, E>
where
    E: std::fmt::Display,
    C: Future<Output = CallOutcome<T, E>>,
{
    loop {
        let outcome = call().await;
        match &outcome.result {
            Err(error) if class(error) == ErrorClass::Busy => {
                tracing::warn!(%error, "a plugin could not be called; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            _ => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use beespace_wasm::CallReport;

    use super::*;

    #[tokio::test]
    async fn a_busy_host_is_asked_again_until_it_answers() {
        let mut calls = 0;
        let call = || {
            calls += 1;
            let result = if calls < 2 { Err("no memory") } else { Ok(calls) };
            std::future::ready(CallOutcome { result, report: CallReport::default() })
        };
        assert_eq!(when_free(call, |_| ErrorClass::Busy).await.result, Ok(2));
    }

    #[tokio::test]
    async fn another_error_is_an_answer() {
        let call = || std::future::ready(CallOutcome { result: Err::<(), _>("it trapped"), report: CallReport::default() });
        assert_eq!(when_free(call, |_| ErrorClass::Trap).await.result, Err("it trapped"));
    }
}
