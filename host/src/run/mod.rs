//! Runs a stage: the sources into its workspace, then its steps as a graph. Every change is stored before it is acted on, so that
//! another process can resume the stage if this one ends at any point.
//!
//! A stage passes through four phases:
//!
//! | phase | file |
//! |---|---|
//! | admit: disk space, policies that changed, approval of the pipeline | `admission.rs`, `approved.rs` |
//! | reopen: the network of a stage that had started before | `resume_stage.rs` |
//! | drive: steps start, end and are cancelled until none moves | `step_loop.rs`, `transitions.rs`, `step_tasks.rs` |
//! | close: logs, containers, network and workspace | `close_stage.rs` |
//!
//! A step's own path is `step.rs` (its rounds), `round.rs` (the containers of one round), `container.rs` (one container, in
//! one of the slots of `container_slots.rs`) and `next_round.rs` (the step type's reaction). `workspace.rs` is the clone step,
//! with `source_retry.rs`; `prefetch.rs` prepares later steps.

mod admission;
mod approved;
mod close_stage;
mod container;
mod container_slots;
mod engine_retry;
mod image_digests;
mod next_attempt;
mod next_round;
mod prefetch;
mod resolve_image;
mod resume_stage;
mod round;
mod secrets;
mod source_retry;
mod stage_run;
mod step;
mod step_log;
mod step_loop;
mod step_run;
mod step_tasks;
mod transitions;
mod workspace;

use std::sync::Arc;
use std::time::Duration;

use beespace_core::ids::StageId;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::app::App;
use crate::store::Queue;
use crate::store::build::key_of_stage;
use crate::worker::WorkError;
use admission::Admission;
pub use close_stage::abort;

/// Runs a stage from its stored state to its end, or until it waits for approval.
///
/// # Errors
/// [`WorkError::HandedOver`] when the server stops: the containers keep running. [`WorkError::Wait`] while the disk is too
/// full to start.
pub async fn stage(app: &Arc<App>, id: StageId) -> Result<(), WorkError> {
    // Subscribe before the row is read for the first time, so that no cancel request is missed.
    let changes = app.store.watch_changes();
    let (run, stage) = match admission::admit(app, id).await? {
        Admission::Admitted(run, stage) => (run, stage),
        Admission::Refused(reason) => return Ok(abort(app, id, reason).await?),
        Admission::NotRunning(run, stage) => return close_stage::close(app, run.as_deref(), &stage).await,
    };
    tokio::select! {
        () = resume_stage::reopen(&run, &stage) => {}
        () = app.stopping.cancelled() => return Err(WorkError::HandedOver),
    }
    let reset = AbortOnDropHandle::new(tokio::spawn(reset_attempts_once_stable(Arc::clone(app), id).in_current_span()));
    let (tasks, stage) = step_loop::drive(&run, &stage, changes).await?;
    drop(reset);
    tasks.wind_down(&run).await;
    close_stage::close(app, Some(&run), &stage).await
}

/// After this long we assume that the stage is not what crashes the server. The stage's timeout bounds how often its attempts
/// can be reset.
const RESET_ATTEMPTS_AFTER: Duration = Duration::from_secs(10);

/// Resets the attempts of a stage that keeps running, so that crashes with another cause do not turn it into a dead letter.
async fn reset_attempts_once_stable(app: Arc<App>, id: StageId) {
    sleep(RESET_ATTEMPTS_AFTER).await;
    if let Err(error) = app.store.write(move |write| write.reset_attempts(Queue::Run, &key_of_stage(id))).await {
        tracing::warn!(stage = %id, %error, "could not reset the stage's attempt counter");
    }
}
