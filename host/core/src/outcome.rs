//! How containers and steps end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// Where a piece of a step's output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
    /// Said by the host, not by the program: progress of a pull, why a step ended.
    Host,
}

/// How one container ended. Only [`ExitCause::Exited`] says something about the user's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The id in the plan.
    pub container: String,
    pub cause: ExitCause,
    /// What the program returned; none where it never ran or nobody saw its end.
    pub code: Option<i32>,
    /// Text for people (`no such image registry.example/tool:3`); empty for `exited`.
    pub message: String,
    pub duration_ms: u64,
}

impl Exit {
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.cause == ExitCause::Exited && self.code == Some(0)
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
