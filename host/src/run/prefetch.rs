//! Makes the log and the containers of a step ready while others run, and the list of files that it reads, so that little is left for its turn.

use std::sync::Arc;

use anyhow::Context as _;
use beespace_core::build::{Stage, Step};
use beespace_core::ids::StepNumber;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::StageRun;
use crate::engine::Launch;

/// When a step is made ready.
pub(super) struct PrefetchSignal {
    /// Cancelled when it may be.
    pub(super) may_start: Option<CancellationToken>,
    /// Says that it is, or will not be.
    pub(super) ready: DropGuard,
    pub(super) too_late: CancellationToken,
}

/// Prepares what of the step can begin at once, once there is a place for it and what comes `before` is ready. That it cannot be done is no trouble: the
/// step's turn comes.
pub(super) async fn prefetch(run: Arc<StageRun>, stage: Stage, number: StepNumber, turn: PrefetchSignal) {
    let PrefetchSignal { may_start: before, ready: _ready, too_late } = turn;
    run.opened.cancelled().await;
    if let Some(before) = &before {
        tokio::select! {
            () = before.cancelled() => {}
            () = too_late.cancelled() => return,
        }
    }
    if let Err(error) = try_prefetch(&run, &stage, number).await {
        let error = format!("{error:#}");
        tracing::debug!(stage = %run.id, step = %number, error, "not prepared; what it needs is made when its turn comes");
    }
}

async fn try_prefetch(run: &StageRun, stage: &Stage, number: StepNumber) -> anyhow::Result<()> {
    let step = stage.step(number).context("the step is not in its stage")?;
    run.app.logs.create_files(run.step_id(step)).await?;
    if reads_source(run, step) {
        // Nobody waits for it here: the step type does, should it ask for the list.
        let files = Arc::clone(&run.change.files);
        tokio::spawn(async move { files.tree().await.map(drop) });
    }
    let _stands = run.stands.read().await;
    for launch in launches(run, stage, step)? {
        run.app.engine.prepare(&launch).await?;
    }
    Ok(())
}

/// Whether its step type looks into the commit.
pub(super) fn reads_source(run: &StageRun, step: &Step) -> bool {
    let uses = step.round.as_ref().and_then(|round| round.plan.uses.as_ref());
    uses.and_then(|name| run.app.plugins.step_types.get(name)).is_some_and(|step_type| step_type.plugin().reads_source())
}

/// The containers that need no other, as they run if everything goes well until then.
pub(super) fn launches(run: &StageRun, stage: &Stage, step: &Step) -> anyhow::Result<Vec<Launch>> {
    let Some(round) = &step.round else { return Ok(Vec::new()) };
    let Ok(plan) = run.approved(stage, (round.plan.clone(), round.decision))? else { return Ok(Vec::new()) };
    // A secret that is missing is told of when the step runs.
    let Ok(secrets) = run.secrets.for_plan(plan.get()) else { return Ok(Vec::new()) };
    let (plan, env) = (Arc::new(plan), run.environment(stage, step));
    let first = plan.get().containers.iter().filter(|container| container.needs.is_empty());
    let launch = |container: &beespace_core::plan::Container| Launch {
        step: run.step_id(step),
        container: container.id.clone(),
        plan: Arc::clone(&plan),
        env: env.clone(),
        secrets: secrets.clone(),
        timeout: None,
    };
    Ok(first.map(launch).collect())
}
