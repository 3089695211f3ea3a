//! Prepares later steps while earlier ones run: their logs, their containers and the file list that their step types read.

use std::sync::Arc;

use anyhow::Context as _;
use beespace_core::build::{Stage, Step};
use beespace_core::ids::StepNumber;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::approved::ApprovalCheck;
use super::stage_run::StageRun;
use crate::engine::Launch;

/// Coordinates the prefetch of one step with the others.
pub(super) struct PrefetchSignal {
    /// Cancelled when this prefetch may start; none when it may start at once.
    pub(super) may_start: Option<CancellationToken>,
    /// Dropped when this prefetch is complete or abandoned.
    pub(super) done: DropGuard,
    /// Cancelled when the step itself starts, or never will.
    pub(super) too_late: CancellationToken,
}

/// Prepares what the step can use at once, as soon as the stage is open and the prefetch before it is done. A failure is
/// only logged: the step prepares everything that is missing when it starts.
pub(super) async fn prefetch(run: Arc<StageRun>, stage: Stage, number: StepNumber, signal: PrefetchSignal) {
    let PrefetchSignal { may_start, done: _done, too_late } = signal;
    run.opened.cancelled().await;
    if let Some(may_start) = &may_start {
        tokio::select! {
            () = may_start.cancelled() => {}
            () = too_late.cancelled() => return,
        }
    }
    if let Err(error) = try_prefetch(&run, &stage, number).await {
        let error = format!("{error:#}");
        tracing::debug!(stage = %run.id, step = %number, error, "prefetch failed; the step prepares itself when it starts");
    }
}

async fn try_prefetch(run: &StageRun, stage: &Stage, number: StepNumber) -> anyhow::Result<()> {
    let step = stage.step(number).context("the step is not in its stage")?;
    run.app.logs.create_files(run.step_id(step)).await?;
    if reads_source(run, step) {
        // Nothing here waits for the list: the step type does when it requests it.
        let files = Arc::clone(&run.change_set.files);
        tokio::spawn(async move { files.tree().await.map(drop) });
    }
    let _open = run.reopen_lock.read().await;
    for mut launch in first_launches(run, stage, step)? {
        run.images.resolve_present(run, &mut launch).await?;
        run.app.engine.prepare(&launch).await?;
    }
    Ok(())
}

/// Whether the step's type may read files of the commit.
pub(super) fn reads_source(run: &StageRun, step: &Step) -> bool {
    let uses = step.round.as_ref().and_then(|round| round.plan.uses.as_ref());
    uses.and_then(|name| run.app.plugins.step_types.get(name)).is_some_and(|step_type| step_type.plugin().reads_source())
}

/// The containers of a step that need no other container, launched as they will be if the earlier steps succeed. Empty when
/// the plan is not approved.
pub(super) fn first_launches(run: &StageRun, stage: &Stage, step: &Step) -> anyhow::Result<Vec<Launch>> {
    let Some(round) = &step.round else { return Ok(Vec::new()) };
    let ApprovalCheck::Approved(plan) = run.check_approval(stage, round.plan.clone(), round.decision)? else {
        return Ok(Vec::new());
    };
    // A missing secret is reported when the step runs.
    let Ok(secrets) = run.secrets.for_plan(plan.get()) else { return Ok(Vec::new()) };
    let (plan, env) = (Arc::new(plan), run.environment(stage, step));
    let first = plan.get().containers.iter().filter(|container| container.needs.is_empty());
    let launch = |container: &beespace_core::plan::Container| Launch {
        step: run.step_id(step),
        container: container.id.clone(),
        plan: Arc::clone(&plan),
        image: run.images.of(container),
        env: env.clone(),
        secrets: secrets.clone(),
    };
    // No more than can start at once.
    let most = usize::from(run.app.config.limits.stage_containers.get());
    Ok(first.take(most).map(launch).collect())
}
