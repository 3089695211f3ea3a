//! What goes wrong with a plugin: one error with a class, a text for people and, apart from it, the detail for us.

use beespace_core::policy::{ErrorClass, EvaluationError};
use wasmtime::Trap;

use crate::limits::Limits;
use crate::sanitize;

/// A call that gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct PluginError {
    pub class: ErrorClass,
    /// One sentence for people: the binding named, what happened, which budget.
    pub message: String,
    /// For the operator's log; may hold frames with names that the plugin's author chose (cleaned).
    pub detail: Option<String>,
}

impl PluginError {
    pub(crate) fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), detail: None }
    }
}

impl From<PluginError> for EvaluationError {
    fn from(error: PluginError) -> Self {
        Self { class: error.class, message: error.message }
    }
}

/// A budget of ours that a guest passed, on its way through wasmtime.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum OverBudget {
    #[error("memory")]
    Memory,
    #[error("log")]
    Log,
}

/// Turns what wasmtime said into our error. `who` names the plugin and its binding.
pub(crate) fn classify(who: &str, limits: &Limits, error: &wasmtime::Error) -> PluginError {
    let (class, what) = if let Some(over) = error.downcast_ref::<OverBudget>() {
        classify_over_budget(*over, limits)
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        classify_trap(*trap, limits)
    } else {
        classify_by_text(error, limits)
    };
    PluginError { class, message: format!("{who} {what}"), detail: Some(sanitize::sanitize(&format!("{error:?}"), 8 << 10)) }
}

pub(crate) fn guest_time_exceeded(limits: &Limits) -> String {
    format!("did not finish within {} ms of its own", limits.guest_time.as_millis())
}

pub(crate) fn total_time_exceeded(limits: &Limits) -> String {
    format!("did not finish within {} ms, waiting included", limits.total_time.as_millis())
}

fn classify_over_budget(over: OverBudget, limits: &Limits) -> (ErrorClass, String) {
    match over {
        OverBudget::Memory => (ErrorClass::Memory, format!("wanted more memory than its {} bytes", limits.memory_bytes)),
        OverBudget::Log => {
            let budget = format!("{} lines and {} bytes", limits.log_lines, limits.log_bytes);
            (ErrorClass::LogBudget, format!("went on logging far beyond its budget of {budget}"))
        }
    }
}

fn classify_trap(trap: Trap, limits: &Limits) -> (ErrorClass, String) {
    match trap {
        Trap::Interrupt => (ErrorClass::Timeout, guest_time_exceeded(limits)),
        Trap::StackOverflow => (ErrorClass::StackOverflow, "called itself too deeply: its stack of 512 KiB was full".to_owned()),
        Trap::AllocationTooLarge => (ErrorClass::Memory, format!("wanted more memory than its {} bytes", limits.memory_bytes)),
        Trap::InvalidChar
        | Trap::StringOutOfBounds
        | Trap::ListOutOfBounds
        | Trap::InvalidDiscriminant
        | Trap::UnalignedPointer => (ErrorClass::Malformed, format!("answered with something malformed ({trap})")),
        Trap::UnreachableCodeReached => (ErrorClass::Trap, "crashed (it panicked or aborted)".to_owned()),
        other => (ErrorClass::Trap, format!("crashed ({other})")),
    }
}

/// wasmtime's own errors have no types for these, only texts; `tests/it/wasm_hostile.rs` notices when they change.
fn classify_by_text(error: &wasmtime::Error, limits: &Limits) -> (ErrorClass, String) {
    let said = format!("{error:#}");
    if let Some(import) = said.split('`').nth(1).filter(|_| said.contains("unknown import")) {
        let import = sanitize::sanitize(import, 200);
        return (ErrorClass::Capability, format!("used {import}, which is not there while settings are checked"));
    }
    if said.contains("fuel allocated for hostcalls") {
        return (ErrorClass::OutputTooLarge, "passed more bytes than one call may".to_owned());
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return (ErrorClass::Busy, "found no free place to run".to_owned());
    }
    if said.contains("resource table has no free keys") || said.contains("handle limit exceeded") {
        return (ErrorClass::Memory, format!("held more than its {} open handles", limits.handles));
    }
    (ErrorClass::Malformed, format!("broke the interface ({})", sanitize::sanitize(&said, 300)))
}
