//! The exit of a container: its cause, and the step's status and reason that follow from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::reason_code::ReasonCode;
use crate::status::Status;
use crate::units::format_duration;

/// How one container ended. Only [`ExitCause::Exited`] is a result of the user's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The container's id in the plan.
    pub container: String,
    pub cause: ExitCause,
    /// The exit code of the program; `None` if it never ran or its exit was not observed.
    pub code: Option<i32>,
    /// Text for people (`no such image registry.example/tool:3`); usually empty for [`ExitCause::Exited`].
    pub message: String,
    pub duration_ms: u64,
    /// The engine was down when the container ended, so the last part of its output may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_incomplete: bool,
}

impl Exit {
    /// Whether the program exited with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.cause == ExitCause::Exited && self.code == Some(0)
    }

    /// Why the step did not succeed, for people; `None` if it did.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let named = |code: ReasonCode, fallback: &str| {
            Some(Reason::new(code, if self.message.is_empty() { fallback.to_owned() } else { self.message.clone() }))
        };
        match (self.cause, self.code) {
            (ExitCause::Exited, Some(0)) => None,
            (ExitCause::Exited, code) => named(ReasonCode::ExitCode, &exit_text(code)),
            (ExitCause::TimedOut, _) => named(ReasonCode::StepTimeout, "the step exceeded its timeout")
                .map(|reason| reason.help("raise the step's `timeout`, or find out what it waits for")),
            (ExitCause::OutOfMemory, _) => named(ReasonCode::OutOfMemory, "the program exceeded its memory limit")
                .map(|reason| reason.help("reduce its memory use, or ask an administrator to raise `[limits] step_memory`")),
            (ExitCause::Cancelled, _) => named(ReasonCode::Cancelled, "the step was cancelled"),
            (ExitCause::ImageFailed, _) => named(ReasonCode::ImageFailed, "the image could not be pulled"),
            (ExitCause::StartFailed, _) => named(ReasonCode::StartFailed, "the container could not be started"),
            (ExitCause::Lost, _) => named(ReasonCode::ContainerLost, "the exit of the container was not observed")
                .map(|reason| reason.help("restart the build; the engine or the server was down while the container ran")),
        }
    }

    /// How long the container ran.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }

    /// The exit of a container that was never started.
    #[must_use]
    pub fn not_started(container: &str, cause: ExitCause, message: impl Into<String>) -> Self {
        Self {
            container: container.to_owned(),
            cause,
            code: None,
            message: message.into(),
            duration_ms: 0,
            output_incomplete: false,
        }
    }

    /// The exit of a container that no longer exists.
    #[must_use]
    pub fn lost(container: &str) -> Self {
        Self::not_started(container, ExitCause::Lost, "the container no longer exists, and its exit was not observed")
    }

    /// The exit of a container that was never created, because the stage's workspace no longer exists.
    #[must_use]
    pub fn lost_workspace(container: &str) -> Self {
        Self::not_started(container, ExitCause::Lost, "the container never ran: the engine has lost the stage's workspace")
    }

    /// The exit of a prepared container that ended before its start signal.
    #[must_use]
    pub fn lost_before_start(container: &str) -> Self {
        Self::not_started(
            container,
            ExitCause::Lost,
            "the container never ran: another program stopped it, or the engine was stopped",
        )
    }

    /// Interprets an observed exit. The host's own action takes precedence, because a stopped program may exit with any code.
    #[must_use]
    pub fn observed(container: &str, seen: ObservedExit) -> Self {
        let succeeded = seen.code == Some(0);
        let (cause, message) = match seen.stopped {
            Some(StopCause::Cancelled) => (ExitCause::Cancelled, "the step was cancelled".to_owned()),
            Some(StopCause::TimedOut(after)) => {
                (ExitCause::TimedOut, format!("the step exceeded its timeout of {}", format_duration(after)))
            }
            None if seen.out_of_memory && !succeeded => {
                (ExitCause::OutOfMemory, "the program exceeded its memory limit and was killed".to_owned())
            }
            None if seen.out_of_memory => {
                (ExitCause::Exited, "one of the program's processes exceeded the memory limit and was killed".to_owned())
            }
            None if seen.code.is_none() => (ExitCause::Lost, "the exit of the container was not observed".to_owned()),
            None if seen.was_killed_unobserved() => (
                ExitCause::Lost,
                "the container was stopped while it was not observed, for example by a restart of the engine or its machine"
                    .to_owned(),
            ),
            // Neither the host nor the memory limit killed it: the engine did, a process of the container, or the kernel for
            // lack of memory.
            None if seen.code == Some(EXIT_CODE_SIGKILL) => {
                (ExitCause::Exited, format!("{}, possibly because the machine ran out of memory", exit_text(seen.code)))
            }
            None => (ExitCause::Exited, seen.process_limit.map(|limit| process_limit_text(seen.code, limit)).unwrap_or_default()),
        };
        let message = match (message.is_empty(), seen.engine_message.is_empty()) {
            (_, true) => message,
            (true, false) => seen.engine_message,
            (false, false) => format!("{message}: {}", seen.engine_message),
        };
        let output_incomplete = seen.observers == ExitObservers::Neither;
        Self {
            container: container.to_owned(),
            cause,
            code: seen.code,
            message,
            duration_ms: seen.duration_ms,
            output_incomplete,
        }
    }
}

/// The text for a program whose output reports that a process could not be started. Only the output shows it: an engine does not
/// report that the limit was met.
fn process_limit_text(code: Option<i32>, limit: u32) -> String {
    let exit = if code == Some(0) { "the program succeeded".to_owned() } else { exit_text(code) };
    format!(
        "{exit}, but it reported that a process could not be started: its limit is {limit} processes and threads \
         (`[limits] step_pids`)"
    )
}

/// The exit of a program. A code above 128 usually means that a signal ended the program, or the last command of a script.
fn exit_text(code: Option<i32>) -> String {
    let Some(code) = code else { return "the program exited with an unknown code".to_owned() };
    match SIGNALS.iter().find(|(signal, _)| code == EXIT_CODE_OF_SIGNALS + signal) {
        Some((signal, name)) => format!("the program exited with code {code}: killed by signal {signal} ({name})"),
        None => format!("the program exited with code {code}"),
    }
}

/// The signals that end programs, as Linux numbers them on every architecture that engines run on.
const SIGNALS: [(i32, &str); 13] = [
    (1, "hangup"),
    (2, "interrupt"),
    (3, "quit"),
    (4, "illegal instruction"),
    (6, "abort"),
    (7, "bus error"),
    (8, "arithmetic error"),
    (9, "kill"),
    (11, "segmentation fault"),
    (13, "broken pipe"),
    (15, "termination"),
    (24, "CPU time limit"),
    (31, "forbidden system call"),
];

/// Why a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// The program ended by itself.
    Exited,
    TimedOut,
    /// Killed by the memory limit, and the program did not exit with 0.
    OutOfMemory,
    Cancelled,
    /// The image could not be pulled.
    ImageFailed,
    /// The engine could not start the container (for example: no such command in the image).
    StartFailed,
    /// The exit was not observed.
    Lost,
}

impl ExitCause {
    /// The status of a step that ended for this cause.
    #[must_use]
    pub fn status(self, code: Option<i32>) -> Status {
        match self {
            Self::Exited if code == Some(0) => Status::Success,
            Self::Exited | Self::OutOfMemory => Status::Failure,
            Self::TimedOut | Self::Cancelled => Status::Killed,
            Self::ImageFailed | Self::StartFailed | Self::Lost => Status::Error,
        }
    }
}

/// An engine's report about the exit of a container that was started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedExit {
    pub code: Option<i32>,
    /// The memory limit killed a process of the container, not necessarily the main one.
    pub out_of_memory: bool,
    /// Why the host stopped the container; `None` if it did not.
    pub stopped: Option<StopCause>,
    /// The parties that were running when the container ended.
    pub observers: ExitObservers,
    /// The process limit of the container, if its output reports that a process or thread could not be started.
    pub process_limit: Option<u32>,
    /// An additional message of the engine; may be empty.
    pub engine_message: String,
    pub duration_ms: u64,
}

impl ObservedExit {
    /// Whether the exit looks like that of a container whose engine was stopped, and no better explanation exists.
    fn was_killed_unobserved(&self) -> bool {
        self.observers != ExitObservers::Both && matches!(self.code, Some(EXIT_CODE_SIGKILL | EXIT_CODE_SIGTERM))
    }
}

/// The parties that were running when a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExitObservers {
    /// The host and the engine.
    #[default]
    Both,
    /// Only the engine: the host was down.
    EngineOnly,
    /// Neither: the engine was down too, and it captures the output.
    Neither,
}

/// A shell, and an engine, report the end by signal N as the code 128 + N.
const EXIT_CODE_OF_SIGNALS: i32 = 128;

/// Exit code of a program that SIGKILL ended.
pub const EXIT_CODE_SIGKILL: i32 = EXIT_CODE_OF_SIGNALS + 9;
/// Exit code of a program that SIGTERM ended.
pub const EXIT_CODE_SIGTERM: i32 = EXIT_CODE_OF_SIGNALS + 15;

/// Why the host stopped a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    Cancelled,
    /// The timeout, with its duration.
    TimedOut(Duration),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed_end(seen: ObservedExit) -> (ExitCause, Status) {
        let exit = Exit::observed("step", seen);
        (exit.cause, exit.cause.status(exit.code))
    }

    #[test]
    fn an_exit_has_its_cause() {
        let code = |code| ObservedExit { code: Some(code), ..ObservedExit::default() };
        assert_eq!(observed_end(code(0)), (ExitCause::Exited, Status::Success));
        assert_eq!(observed_end(code(3)), (ExitCause::Exited, Status::Failure));
        assert_eq!(observed_end(ObservedExit::default()), (ExitCause::Lost, Status::Error));
        let oom = ObservedExit { out_of_memory: true, ..code(137) };
        assert_eq!(observed_end(oom), (ExitCause::OutOfMemory, Status::Failure));
    }

    #[test]
    fn a_program_is_not_blamed_for_an_engine_that_stopped_it() {
        for (observers, code, cause) in [
            (ExitObservers::Both, EXIT_CODE_SIGTERM, ExitCause::Exited),
            (ExitObservers::EngineOnly, EXIT_CODE_SIGTERM, ExitCause::Lost),
            (ExitObservers::Neither, EXIT_CODE_SIGKILL, ExitCause::Lost),
            (ExitObservers::Neither, 1, ExitCause::Exited),
        ] {
            let exit = Exit::observed("step", ObservedExit { code: Some(code), observers, ..ObservedExit::default() });
            assert_eq!(
                (exit.cause, exit.output_incomplete),
                (cause, observers == ExitObservers::Neither),
                "{observers:?} {code}"
            );
        }
        let cancelled = ObservedExit {
            code: Some(EXIT_CODE_SIGKILL),
            observers: ExitObservers::Neither,
            stopped: Some(StopCause::Cancelled),
            ..ObservedExit::default()
        };
        assert_eq!(observed_end(cancelled), (ExitCause::Cancelled, Status::Killed));
    }

    #[test]
    fn a_code_of_a_signal_is_explained() {
        let text = |code| {
            let exit = Exit::observed("step", ObservedExit { code: Some(code), ..ObservedExit::default() });
            exit.reason().unwrap().message
        };
        assert_eq!(text(139), "the program exited with code 139: killed by signal 11 (segmentation fault)");
        let killed =
            "the program exited with code 137: killed by signal 9 (kill), possibly because the machine ran out of memory";
        assert_eq!(text(137), killed);
        for code in [1, 127, 128, 255] {
            assert_eq!(text(code), format!("the program exited with code {code}"));
        }
    }

    #[test]
    fn a_killed_child_does_not_fail_a_program_that_succeeded() {
        let seen = ObservedExit { code: Some(0), out_of_memory: true, ..ObservedExit::default() };
        let exit = Exit::observed("step", seen);
        assert!(exit.is_success());
        assert!(exit.message.contains("memory"));
    }

    #[test]
    fn a_process_limit_that_a_program_met_is_named() {
        let message = |code| {
            let seen = ObservedExit { code: Some(code), process_limit: Some(512), ..ObservedExit::default() };
            Exit::observed("step", seen).message
        };
        let limit = "its limit is 512 processes and threads (`[limits] step_pids`)";
        assert!(message(2).starts_with("the program exited with code 2, but") && message(2).ends_with(limit), "{}", message(2));
        assert!(message(0).starts_with("the program succeeded, but"), "{}", message(0));
    }

    #[test]
    fn the_host_s_action_takes_precedence_over_the_exit_code() {
        let seen =
            |stopped| ObservedExit { code: Some(0), out_of_memory: true, stopped: Some(stopped), ..ObservedExit::default() };
        assert_eq!(observed_end(seen(StopCause::Cancelled)), (ExitCause::Cancelled, Status::Killed));
        assert_eq!(observed_end(seen(StopCause::TimedOut(Duration::from_secs(90)))), (ExitCause::TimedOut, Status::Killed));
    }
}
