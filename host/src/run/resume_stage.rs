//! The second phase of a stage that had started before: its network is opened again.

use beespace_core::build::Stage;
use beespace_core::ids::StepNumber;
use beespace_core::status::Status;
use tokio_util::sync::CancellationToken;

use super::engine_retry::EngineRetry;
use super::stage_run::StageRun;
use crate::engine::EngineError;

/// Opens the network of a stage again: a reboot or a restart of the engine has stopped its pause container, and the network
/// of a stage that waited for approval was closed. In the latter case nothing runs that an unreachable engine could
/// harm, so the stage waits for the engine.
pub(super) async fn reopen(run: &StageRun, stage: &Stage) {
    let is_filled = stage.step(StepNumber::CLONE).is_some_and(|clone| clone.status == Status::Success);
    if !is_filled {
        return;
    }
    let mut retry = EngineRetry::new();
    while let Err(error) = try_reopen(run).await {
        let waited_for_approval = stage.awaiting_approval_since.is_some();
        let may_wait = waited_for_approval && run.stage().is_ok_and(|stage| stage.cancel_requested.is_none());
        if !may_wait || !retry.should_retry(&error, &CancellationToken::new()).await {
            tracing::warn!(stage = %run.id, %error, "could not reopen the stage's network; its steps will report the error");
            return;
        }
    }
}

/// Opens the stage only when something of it still exists: a workspace that was removed must not come back empty.
async fn try_reopen(run: &StageRun) -> Result<(), EngineError> {
    if run.app.engine.inventory().await?.contains(&run.id) {
        run.app.engine.open(run.id).await?;
        run.opened.cancel();
    }
    Ok(())
}
