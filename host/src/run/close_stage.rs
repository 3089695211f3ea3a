//! The last phase of a stage: its logs are finished and its resources are removed, or reduced while it waits for approval.

use std::time::Duration;

use beespace_core::build::Stage;
use beespace_core::ids::StageId;
use beespace_core::reason::Reason;
use beespace_core::status::Status;

use super::stage_run::{StageRun, update_stage};
use super::step;
use crate::app::App;
use crate::clock::now;
use crate::store::build::{Builds as _, key_of_stage};
use crate::store::{Queue, StoreError};
use crate::worker::WorkError;

/// The delay between two attempts to close a stage's network.
const CLOSE_RETRY: Duration = Duration::from_secs(15);

/// Finishes the logs of steps that ended while they waited, then closes or destroys the stage in the engine. Only after that the
/// stage leaves the queue.
///
/// # Errors
/// [`WorkError::Wait`] while the engine cannot close the stage's network; the store's.
pub(super) async fn close(app: &App, run: Option<&StageRun>, stage: &Stage) -> Result<(), WorkError> {
    if let Some(run) = run {
        step::finish_logs(run, stage).await;
    }
    close_or_destroy(app, stage).await?;
    let (id, status) = (stage.id(), stage.status);
    // The row is read again in the transaction: a person may have approved or ended the stage meanwhile, and then it stays
    // queued.
    let leave = app.store.write(move |write| match write.stage(id)? {
        Some(stage) if stage.status != status => Ok(()),
        _ => write.dequeue(Queue::Run, &key_of_stage(id)),
    });
    Ok(leave.await?)
}

/// Removes everything of a stage that is over. A stage that waits for approval keeps its workspace.
async fn close_or_destroy(app: &App, stage: &Stage) -> Result<(), WorkError> {
    let id = stage.id();
    if stage.status.is_over() {
        destroy_in_engine(app, id).await;
    } else if stage.awaiting_approval_since.is_some()
        && let Err(error) = app.engine.close(id).await
    {
        tracing::warn!(stage = %id, %error, "could not close the network of a stage that waits for approval; retrying");
        return Err(WorkError::Wait { until: now() + CLOSE_RETRY });
    }
    Ok(())
}

/// Ends a stage that cannot run to its end: its running containers are destroyed, its pending steps never start.
///
/// # Errors
/// The store's.
pub async fn abort(app: &App, id: StageId, reason: Reason) -> Result<(), StoreError> {
    let at = now();
    let end = move |stage: &mut Stage| {
        stage.status = Status::Error;
        stage.reason = Some(reason.clone());
        for step in stage.steps.iter_mut().filter(|step| !step.status.is_over()) {
            step.status = if step.started_at.is_some() { Status::Error } else { Status::Skipped };
            step.reason = Some(reason.clone());
            step.finished_at = step.started_at.map(|_| at);
        }
    };
    update_stage(app, id, end).await?;
    destroy_in_engine(app, id).await;
    Ok(())
}

/// Logs a failure instead of returning it: the periodic cleanup (`engine_cleanup.rs`) finds what is left by its labels within a
/// minute.
async fn destroy_in_engine(app: &App, id: StageId) {
    if let Err(error) = app.engine.destroy(id).await {
        tracing::warn!(stage = %id, %error, "could not remove the stage's containers, network or workspace");
    }
}
