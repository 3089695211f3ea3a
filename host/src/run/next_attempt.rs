//! Further attempts at a step (`retry` in the pipeline file). Each has its own log and its own containers.

use std::time::Duration;

use beespace_core::ids::{StepId, StepNumber};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::units::format_duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::stage_run::StageRun;
use super::step_run::{StepOutcome, StepRun};

/// The attempt that follows one that did not succeed.
#[derive(Debug)]
pub(super) struct NextAttempt {
    /// The attempt that ended.
    ended: StepId,
    /// The number of the last attempt that may follow.
    last: u16,
    delay: Duration,
    /// Why it is necessary, for people.
    remark: Reason,
}

impl NextAttempt {
    /// The attempt after one that ended like this; none after the last one, and for a step that is being cancelled.
    pub(super) fn after(step_run: &StepRun, outcome: &StepOutcome) -> Option<Self> {
        let StepRun { run, stage, step, cancel, .. } = step_run;
        let written = stage.pipeline.steps.iter().find(|written| written.name == step.name)?;
        let retry = written.retry.as_ref().filter(|_| !cancel.is_cancelled())?;
        let delay = retry.delay_after(step.attempt, outcome.status, &outcome.exits)?;
        let cause = outcome.reason.as_ref().map_or_else(|| outcome.status.to_string(), |reason| reason.message.clone());
        let remark = Reason::new(ReasonCode::Retried, format!("attempt {} did not succeed: {cause}", step.attempt));
        Some(Self { ended: run.step_id(step), last: retry.max.saturating_add(1), delay, remark })
    }

    /// The last line of the log of the attempt that ended.
    pub(super) fn line(&self) -> String {
        let (next, last) = (self.ended.attempt.saturating_add(1), self.last);
        match self.delay {
            Duration::ZERO => format!("attempt {next} of {last} follows"),
            delay => format!("attempt {next} of {last} follows in {}", format_duration(delay)),
        }
    }

    /// Stores that the attempt begins, and waits for its time. A step that is cancelled meanwhile begins at once, and ends as
    /// cancelled.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn begin(self, run: &StageRun, number: StepNumber, cancel: &CancellationToken) -> anyhow::Result<()> {
        let remark = self.remark;
        // Stored before anything of the ended attempt is removed: a server that ends in between continues with the next one.
        run.update_step(number, move |step| step.begin_next_attempt(remark.clone())).await?;
        if let Err(error) = run.app.engine.release(self.ended).await {
            let step = self.ended;
            tracing::warn!(%step, %error, "could not remove a step's containers; they are removed when the stage ends");
        }
        tokio::select! {
            () = sleep(self.delay) => {}
            () = cancel.cancelled() => {}
        }
        Ok(())
    }
}
