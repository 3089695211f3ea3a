//! How containers and steps end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::status::Status;
use crate::units::format_duration;

/// Where a piece of a step's output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
    /// Said by the host, not by the program: progress of a pull, why a step ended.
    Host,
}

/// How many bytes of a container's output are kept, before masking, of each stream. Who follows the container again begins after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    pub stdout: u64,
    pub stderr: u64,
}

impl Stored {
    /// However much it was: nothing of it is wanted again.
    pub const END: Self = Self { stdout: u64::MAX, stderr: u64::MAX };
}

/// How one container ended. Only [`ExitCause::Exited`] says something about the user's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The id in the plan.
    pub container: String,
    pub cause: ExitCause,
    /// What the program returned; none where it never ran or nobody saw its end.
    pub code: Option<i32>,
    /// Text for people (`no such image registry.example/tool:3`); mostly empty for `exited`.
    pub message: String,
    pub duration_ms: u64,
    /// The engine was away when it ended: the last of its output may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_incomplete: bool,
}

impl Exit {
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.cause == ExitCause::Exited && self.code == Some(0)
    }

    /// Why the step did not end well, for people; none where it did.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let named = |code: &str, fallback: &str| {
            Some(Reason::new(code, if self.message.is_empty() { fallback.to_owned() } else { self.message.clone() }))
        };
        match (self.cause, self.code) {
            (ExitCause::Exited, Some(0)) => None,
            (ExitCause::Exited, Some(code)) => named("exit-code", &format!("the program returned {code}")),
            (ExitCause::Exited, None) => named("exit-code", "the program ended, nobody knows how"),
            (ExitCause::TimedOut, _) => named("step-timeout", "the step ran into its time limit")
                .map(|reason| reason.help("raise `timeout` of the step, or find what it waits for")),
            (ExitCause::OutOfMemory, _) => named("out-of-memory", "the program needed more memory than it may have")
                .map(|reason| reason.help("let it use less, or ask for a higher `[limits] step_memory`")),
            (ExitCause::Cancelled, _) => named("cancelled", "it was stopped"),
            (ExitCause::ImageFailed, _) => named("image-failed", "the image is not to be had"),
            (ExitCause::StartFailed, _) => named("start-failed", "the container could not be started"),
            (ExitCause::Lost, _) => named("lost", "nobody saw how the container ended")
                .map(|reason| reason.help("restart the build; the engine or the server went away while it ran")),
        }
    }

    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    Exited,
    TimedOut,
    /// Killed by the memory limit, and the program did not end with 0.
    OutOfMemory,
    Cancelled,
    /// The image is not to be had.
    ImageFailed,
    /// The engine could not start it (no such command in the image).
    StartFailed,
    /// Nobody saw its end.
    Lost,
}

impl ExitCause {
    /// The word for a step that ended so.
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

/// What an engine saw of a container that was started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedExit {
    pub code: Option<i32>,
    /// The memory limit killed a process of it; not always the one that counts.
    pub out_of_memory: bool,
    /// Why the host stopped it, where it did.
    pub stopped: Option<StopCause>,
    /// Who saw it end.
    pub observers: ExitObservers,
    /// What the engine says besides.
    pub trouble: String,
    pub duration_ms: u64,
}

/// Who saw a container end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExitObservers {
    /// The host and the engine.
    #[default]
    Both,
    /// The engine alone: the host was away.
    EngineOnly,
    /// Nobody: the engine was away, and with it whoever keeps the output.
    Neither,
}

impl ObservedExit {
    /// It ended as a container does that an engine stops because it stops itself, and nobody knows better.
    fn was_killed_unobserved(&self) -> bool {
        self.observers != ExitObservers::Both && matches!(self.code, Some(EXIT_CODE_SIGKILL | EXIT_CODE_SIGTERM))
    }
}

/// What a program returns that KILL has ended.
pub const EXIT_CODE_SIGKILL: i32 = 128 + 9;
/// And one that TERM has.
pub const EXIT_CODE_SIGTERM: i32 = 128 + 15;

/// Why the host stopped a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    Cancelled,
    /// After this long.
    TimedOut(Duration),
}

impl Exit {
    /// A container that was never started.
    #[must_use]
    pub fn unstarted(container: &str, cause: ExitCause, message: impl Into<String>) -> Self {
        Self {
            container: container.to_owned(),
            cause,
            code: None,
            message: message.into(),
            duration_ms: 0,
            output_incomplete: false,
        }
    }

    /// A container of which nothing is left.
    #[must_use]
    pub fn lost(container: &str) -> Self {
        Self::unstarted(container, ExitCause::Lost, "nobody saw how it ended: its container is gone")
    }

    /// A container that was never made: what it should have run in is gone.
    #[must_use]
    pub fn lost_stage(container: &str) -> Self {
        Self::unstarted(container, ExitCause::Lost, "it never ran: the engine has lost the stage's workspace")
    }

    /// A container that was ended in the moment in which its turn came.
    #[must_use]
    pub fn lost_before_start(container: &str) -> Self {
        Self::unstarted(
            container,
            ExitCause::Lost,
            "it never ran: somebody else has ended its container, or the engine was stopped",
        )
    }

    /// Reads what was seen. What the host did comes first: a program that is told to stop ends with whatever code it likes.
    #[must_use]
    pub fn observed(container: &str, seen: ObservedExit) -> Self {
        let succeeded = seen.code == Some(0);
        let (cause, message) = match seen.stopped {
            Some(StopCause::Cancelled) => (ExitCause::Cancelled, "it was cancelled".to_owned()),
            Some(StopCause::TimedOut(after)) => (ExitCause::TimedOut, format!("it took longer than {}", format_duration(after))),
            None if seen.out_of_memory && !succeeded => {
                (ExitCause::OutOfMemory, "it needed more memory than it may have, and was killed".to_owned())
            }
            None if seen.out_of_memory => {
                (ExitCause::Exited, "one of its processes needed more memory than it may have, and was killed".to_owned())
            }
            None if seen.code.is_none() => (ExitCause::Lost, "nobody saw how it ended".to_owned()),
            None if seen.was_killed_unobserved() => (
                ExitCause::Lost,
                "it was stopped while nobody watched, as a restart of the engine or of its machine does".to_owned(),
            ),
            // Not by us and not by its own limit: the engine, another process of the container, or a machine short of memory.
            None if seen.code == Some(EXIT_CODE_SIGKILL) => {
                (ExitCause::Exited, "something killed it (exit code 137), possibly for want of memory".to_owned())
            }
            None => (ExitCause::Exited, String::new()),
        };
        let message = match (message.is_empty(), seen.trouble.is_empty()) {
            (_, true) => message,
            (true, false) => seen.trouble,
            (false, false) => format!("{message}: {}", seen.trouble),
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

/// Something that stands beside a status: what happened and what to do, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, for searching: `image-failed`, `waiting-for-gogs`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Why, part by part (a `when` that does not hold).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Reason>,
}

impl Reason {
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), help: None, parts: Vec::new() }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn part(mut self, part: Self) -> Self {
        self.parts.push(part);
        self
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        for (index, part) in self.parts.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { "; " })?;
            write!(f, "{part}")?;
        }
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// What a step type wants after a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// Another round; its plan passes `step.admit` again.
    Run(crate::plan::StepPlan),
    Done(Conclusion),
}

/// How a step type ends its step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// `success`, `failure` or `skipped`.
    pub status: Status,
    /// What later steps may read.
    pub outputs: serde_json::Map<String, serde_json::Value>,
    pub findings: Vec<crate::policy::Finding>,
    /// Text for people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed_end(seen: ObservedExit) -> (ExitCause, Status) {
        let exit = Exit::observed("step", seen);
        (exit.cause, exit.cause.status(exit.code))
    }

    #[test]
    fn an_end_is_named_by_its_cause() {
        let code = |code| ObservedExit { code: Some(code), ..ObservedExit::default() };
        assert_eq!(observed_end(code(0)), (ExitCause::Exited, Status::Success));
        assert_eq!(observed_end(code(3)), (ExitCause::Exited, Status::Failure));
        assert_eq!(observed_end(ObservedExit::default()), (ExitCause::Lost, Status::Error));
        let oom = ObservedExit { out_of_memory: true, ..code(137) };
        assert_eq!(observed_end(oom), (ExitCause::OutOfMemory, Status::Failure));
    }

    #[test]
    fn a_program_is_not_blamed_for_an_engine_that_stopped_it() {
        for (watched_by, code, cause) in [
            (ExitObservers::Both, EXIT_CODE_SIGTERM, ExitCause::Exited),
            (ExitObservers::EngineOnly, EXIT_CODE_SIGTERM, ExitCause::Lost),
            (ExitObservers::Neither, EXIT_CODE_SIGKILL, ExitCause::Lost),
            (ExitObservers::Neither, 1, ExitCause::Exited),
        ] {
            let exit =
                Exit::observed("step", ObservedExit { code: Some(code), observers: watched_by, ..ObservedExit::default() });
            assert_eq!(
                (exit.cause, exit.output_incomplete),
                (cause, watched_by == ExitObservers::Neither),
                "{watched_by:?} {code}"
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
    fn a_killed_child_does_not_fail_a_program_that_succeeded() {
        let seen = ObservedExit { code: Some(0), out_of_memory: true, ..ObservedExit::default() };
        let exit = Exit::observed("step", seen);
        assert!(exit.is_success());
        assert!(exit.message.contains("memory"));
    }

    #[test]
    fn what_the_host_did_counts_more_than_the_code() {
        let seen =
            |stopped| ObservedExit { code: Some(0), out_of_memory: true, stopped: Some(stopped), ..ObservedExit::default() };
        assert_eq!(observed_end(seen(StopCause::Cancelled)), (ExitCause::Cancelled, Status::Killed));
        assert_eq!(observed_end(seen(StopCause::TimedOut(Duration::from_secs(90)))), (ExitCause::TimedOut, Status::Killed));
    }
}
