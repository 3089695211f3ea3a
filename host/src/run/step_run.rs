//! The state of a step that runs, and how a step ended.

use std::sync::Arc;

use beespace_core::build::{Stage, Step};
use beespace_core::exit::Exit;
use beespace_core::ids::StepNumber;
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::step_type::Conclusion;
use beespace_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::stage_run::StageRun;
use super::step_log::StepLog;

/// A step that runs in this process.
pub(super) struct StepRun {
    pub(super) run: Arc<StageRun>,
    /// The stage and the step as they were when the step started.
    pub(super) stage: Stage,
    pub(super) step: Step,
    pub(super) log: StepLog,
    pub(super) cancel: CancellationToken,
}

/// How a step ended, or that it is blocked.
pub(super) struct StepOutcome {
    pub(super) status: Status,
    pub(super) reason: Option<Reason>,
    pub(super) conclusion: Option<Conclusion>,
    /// The exits of the containers of the last round.
    pub(super) exits: Vec<Exit>,
}

impl StepOutcome {
    pub(super) fn new(status: Status, reason: Option<Reason>) -> Self {
        Self { status, reason, conclusion: None, exits: Vec::new() }
    }

    pub(super) fn with_exits(self, exits: Vec<Exit>) -> Self {
        Self { exits, ..self }
    }

    pub(super) fn error(reason: Reason) -> Self {
        Self::new(Status::Error, Some(reason))
    }
}

/// A step's outcome as it is stored in the stage's row.
pub(super) struct FinishedStep {
    pub(super) number: StepNumber,
    pub(super) outcome: StepOutcome,
    /// Why the step's log is incomplete; none when it is complete.
    pub(super) log_incomplete: Option<String>,
    pub(super) at: Timestamp,
}

impl FinishedStep {
    pub(super) fn apply(&self, stage: &mut Stage) {
        let outcome = &self.outcome;
        if let Some(step) = stage.step_mut(self.number) {
            // A step that was cancelled does not wait for approval.
            let is_cancelled = outcome.status == Status::Blocked && step.reason.is_some();
            step.status = if is_cancelled { Status::Killed } else { outcome.status };
            // A step that was cancelled keeps the reason of the cancellation.
            if !(step.status == Status::Killed && step.reason.is_some()) {
                step.reason.clone_from(&outcome.reason);
            }
            if !outcome.exits.is_empty() {
                step.exits.clone_from(&outcome.exits);
            }
            if let Some(conclusion) = &outcome.conclusion {
                step.findings.clone_from(&conclusion.findings);
            }
            step.log_incomplete.clone_from(&self.log_incomplete);
            step.finished_at = step.status.is_over().then_some(self.at);
        }
    }
}
