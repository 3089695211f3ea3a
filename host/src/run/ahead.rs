//! Makes the containers of a step ready while others run, so that its turn is no more than their start.

use std::sync::Arc;

use beespace_core::build::{Stage, Step};
use beespace_core::ids::StepNumber;

use super::StageRun;
use crate::engine::{EngineError, Launch};

/// Prepares what of the step can begin at once, once there is a place for it. That it cannot be done is no trouble: the step's turn comes.
pub(super) async fn prepare(run: Arc<StageRun>, stage: Stage, number: StepNumber) {
    run.opened.cancelled().await;
    let Some(step) = stage.steps.iter().find(|step| step.number == number) else { return };
    match launches(&run, &stage, step) {
        Ok(launches) => {
            for launch in launches {
                if let Err(error) = run.app.engine.prepare(&launch).await {
                    tell(&run, number, &error);
                }
            }
        }
        Err(error) => tracing::debug!(stage = %run.id, step = %number, error = format!("{error:#}"), "not prepared"),
    }
}

fn tell(run: &StageRun, number: StepNumber, error: &EngineError) {
    tracing::debug!(stage = %run.id, step = %number, %error, "a container could not be prepared; it is made when its turn comes");
}

/// The containers that need no other, as they run if everything goes well until then.
pub(super) fn launches(run: &StageRun, stage: &Stage, step: &Step) -> anyhow::Result<Vec<Launch>> {
    let Some(round) = &step.round else { return Ok(Vec::new()) };
    let Ok(plan) = run.approved(stage, (round.plan.clone(), round.decision))? else { return Ok(Vec::new()) };
    // A secret that is missing is told of when the step runs.
    let Ok(secrets) = run.secrets.of_plan(plan.get()) else { return Ok(Vec::new()) };
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
