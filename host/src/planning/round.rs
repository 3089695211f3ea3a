//! A further round of a step type, as policies admit it.

use beespace_core::baseline_policy::StepBounds;
use beespace_core::build::{Build, Stage};
use beespace_core::ids::StageId;
use beespace_core::pipeline::Action;
use beespace_core::plan::{self, StepPlan};
use beespace_core::policy::Decision;

use super::admit::{self, PolicyContext};
use super::previous::previous_stage;
use super::step::step_bounds;
use crate::app::App;
use crate::source::ChangeSet;

/// The description of the subject to approve when a step type plans a further round.
pub fn next_plan_subject(step: &str) -> String {
    format!("the next plan of step \"{step}\"")
}

/// Applies the settings of the pipeline file to the plan of a further round, and evaluates policies about it.
pub async fn admit_round(
    app: &App,
    build: &Build,
    stage: &Stage,
    mut plan: StepPlan,
    change_set: &ChangeSet,
) -> (Decision, StepPlan) {
    let id = StageId { build: build.id, stage: stage.number };
    let previous = previous_stage(app, build, &stage.pipeline);
    let context = PolicyContext { build, stage: id, event: &change_set.event, previous: previous.as_ref() };
    let written = stage.pipeline.steps.iter().find(|written| written.name == plan.step);
    if let Some(Action::Uses(action)) = written.map(|written| &written.action) {
        plan.uses = Some(action.plugin.clone());
    }
    if let Some(written) = written {
        plan::apply_file_settings(&mut plan, &stage.pipeline, written);
    }
    let bounds = written.map_or_else(StepBounds::default, |written| step_bounds(app, build, &stage.pipeline, written));
    admit::step(app, context, plan, bounds).await
}
