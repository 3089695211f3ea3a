//! The error of a plugin call: a class, a text for people, and separately the detail for the server log.

use beespace_core::policy::{ErrorClass, EvaluationError};
use wasmtime::Trap;

use crate::limits::Limits;
use crate::sanitize::sanitize;

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct PluginError {
    pub class: ErrorClass,
    /// One sentence for people with the binding, the cause and the limit that was exceeded.
    pub message: String,
    /// For the server log. It may contain stack frames with names that the plugin's author chose (sanitized).
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

/// Longest detail for the log, in bytes. It begins with the plugin's own stack; an interpreter's stack is long.
const MAX_DETAIL: usize = 2 << 10;

/// The text of ENOMEM. A plugin cannot choose the root cause of an error.
const OUT_OF_MEMORY: &str = "Cannot allocate memory (os error 12)";

/// A limit that a guest exceeded, as it passes through wasmtime as an error.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum OverBudget {
    #[error("memory")]
    Memory,
    #[error("log")]
    Log,
}

/// Converts an error of wasmtime. `label` names the plugin and its binding.
pub(crate) fn classify(label: &str, limits: &Limits, error: &wasmtime::Error) -> PluginError {
    let (class, what) = if let Some(over) = error.downcast_ref::<OverBudget>() {
        classify_over_budget(*over, limits)
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        classify_trap(*trap, limits)
    } else {
        classify_by_text(error, limits)
    };
    PluginError { class, message: format!("{label} {what}"), detail: Some(sanitize(&format!("{error:#}"), MAX_DETAIL)) }
}

pub(crate) fn guest_time_exceeded(limits: &Limits) -> String {
    format!("exceeded its time limit of {} ms", limits.guest_time.as_millis())
}

pub(crate) fn total_time_exceeded(limits: &Limits) -> String {
    format!("exceeded its total time limit of {} ms, which includes waiting", limits.total_time.as_millis())
}

fn classify_over_budget(over: OverBudget, limits: &Limits) -> (ErrorClass, String) {
    match over {
        OverBudget::Memory => (ErrorClass::Memory, format!("exceeded its memory limit of {} bytes", limits.memory_bytes)),
        OverBudget::Log => {
            let limit = format!("{} lines and {} bytes", limits.log_lines, limits.log_bytes);
            (ErrorClass::LogBudget, format!("exceeded its log limit of {limit} many times over"))
        }
    }
}

fn classify_trap(trap: Trap, limits: &Limits) -> (ErrorClass, String) {
    match trap {
        Trap::Interrupt => (ErrorClass::Timeout, guest_time_exceeded(limits)),
        Trap::StackOverflow => {
            (ErrorClass::StackOverflow, "exceeded its stack limit of 512 KiB: its recursion is too deep".to_owned())
        }
        Trap::AllocationTooLarge => (ErrorClass::Memory, format!("exceeded its memory limit of {} bytes", limits.memory_bytes)),
        Trap::InvalidChar
        | Trap::StringOutOfBounds
        | Trap::ListOutOfBounds
        | Trap::InvalidDiscriminant
        | Trap::UnalignedPointer => (ErrorClass::Malformed, format!("returned malformed data ({trap})")),
        Trap::UnreachableCodeReached => (ErrorClass::Trap, "crashed (panic or abort)".to_owned()),
        other => (ErrorClass::Trap, format!("crashed ({other})")),
    }
}

/// Classifies errors for which wasmtime has only texts, no types. `tests/it/wasm_hostile.rs` fails when these texts change.
fn classify_by_text(error: &wasmtime::Error, limits: &Limits) -> (ErrorClass, String) {
    let text = format!("{error:#}");
    if let Some(import) = text.split('`').nth(1).filter(|_| text.contains("unknown import")) {
        let import = sanitize(import, 200);
        return (ErrorClass::Capability, format!("called {import}, which is unavailable while settings are validated"));
    }
    if text.contains("fuel allocated for hostcalls") {
        return (ErrorClass::OutputTooLarge, "passed more data to the host than one call allows".to_owned());
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() || error.root_cause().to_string() == OUT_OF_MEMORY {
        let lacking = "was not called: this server has too little memory or address space (`ulimit -v`)";
        return (ErrorClass::Busy, lacking.to_owned());
    }
    if text.contains("resource table has no free keys") || text.contains("handle limit exceeded") {
        return (ErrorClass::Memory, format!("exceeded its limit of {} open handles", limits.handles));
    }
    (ErrorClass::Malformed, format!("violated the plugin interface ({})", sanitize(&text, 300)))
}
