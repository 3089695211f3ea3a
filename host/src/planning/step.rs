//! Plans one step: an `image:` step from the pipeline file, another by its step type.

use std::collections::BTreeSet;

use beespace_core::baseline_policy::StepBounds;
use beespace_core::build::{Build, Stage};
use beespace_core::pipeline::{self, Action, ContainerLimits, ImageAction, Pipeline};
use beespace_core::plan::{self, Limits, StepPlan};
use beespace_core::plugin_context::PluginContext;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_wasm::{PlanError, StepInput};

use crate::app::App;
use crate::clock::now;
use crate::plugins;
use crate::source::ChangeSet;

/// The plan of a step's first round, before policies.
///
/// # Errors
/// The step type does not exist, rejects its settings, or makes no plan.
pub async fn plan_step(
    app: &App,
    build: &Build,
    stage: &Stage,
    step: &pipeline::Step,
    change_set: &ChangeSet,
) -> Result<StepPlan, Reason> {
    let action = match &step.action {
        Action::Image(action) => return Ok(image_plan(app, &stage.pipeline, step, action)),
        Action::Uses(action) => action,
    };
    let Some(step_type) = app.plugins.step_types.get(&action.plugin) else { return Err(unknown_step_type(app, &action.plugin)) };
    let problems = step_type.check_params(&action.with);
    if !problems.is_empty() {
        let reason = Reason::new(ReasonCode::InvalidStepSettings, format!("`with` of step \"{}\" is invalid", step.name));
        return Err(problems
            .iter()
            .fold(reason, |reason, problem| reason.part(Reason::new(ReasonCode::StepSetting, problem.to_string()))));
    }
    let input = step_input(build, stage, &step.name, change_set);
    let invocation = input.context.invocation_id.clone();
    let answer = plugins::when_free(|| step_type.make_plan(input.clone()), PlanError::class).await;
    plugins::forward_log(step_type.plugin(), &invocation, &answer.report);
    let mut plan = answer.result.map_err(|error| plan_error(&action.plugin, &error))?;
    plan.step.clone_from(&step.name);
    plan.uses = Some(action.plugin.clone());
    plan::apply_file_settings(&mut plan, &stage.pipeline, step);
    Ok(plan)
}

/// The plan of an `image:` step. The limits of the instance apply where they are lower than those of the file.
fn image_plan(app: &App, pipeline: &Pipeline, step: &pipeline::Step, action: &ImageAction) -> StepPlan {
    let mut plan = plan::plan_image_step(pipeline, step, action);
    for container in &mut plan.containers {
        container.limits.lower_to(&app.config.limits.of_container());
    }
    plan
}

/// The limits of a step that exceed those of the instance.
pub fn lowered_limits(app: &App, step: &pipeline::Step) -> Option<Reason> {
    let Action::Image(ImageAction { limits, .. }) = &step.action else { return None };
    let ContainerLimits { cpu_millis, memory_bytes, pids } = *limits;
    let lowered = Limits { cpu_millis, memory_bytes, pids, timeout_seconds: None }.lower_to(&app.config.limits.of_container());
    let message = format!("limits of the instance apply: {}", lowered.join(", "));
    (!lowered.is_empty()).then(|| Reason::new(ReasonCode::LimitLowered, message))
}

fn unknown_step_type(app: &App, name: &str) -> Reason {
    let known: Vec<&str> = app.plugins.step_types.keys().map(String::as_str).collect();
    let help = if known.is_empty() {
        "this instance has no step types: an administrator binds them as `[[step]]` in beespace.toml".to_owned()
    } else {
        format!("this instance has {}", known.join(", "))
    };
    Reason::new(ReasonCode::UnknownStepType, format!("step type {name:?} does not exist")).help(help)
}

fn plan_error(name: &str, error: &PlanError) -> Reason {
    Reason::new(ReasonCode::PlanningFailed, format!("{name} could not make a plan: {error}"))
}

/// The input of a step type's calls about one step.
pub fn step_input(build: &Build, stage: &Stage, step: &str, change_set: &ChangeSet) -> StepInput {
    let written = stage.pipeline.steps.iter().find(|written| written.name == step);
    let params = written.map_or(serde_json::Value::Null, |written| match &written.action {
        Action::Uses(action) => action.with.clone(),
        Action::Image(_) => serde_json::Value::Null,
    });
    let secrets = written.map(|written| secret_names(&stage.pipeline, written)).unwrap_or_default();
    StepInput {
        step: step.to_owned(),
        context: PluginContext::for_build(build, uuid::Uuid::now_v7().to_string(), now()),
        event: change_set.event.clone(),
        params,
        upstream: Vec::new(),
        secret_names: secrets.into_iter().collect(),
        source: change_set.files.clone(),
    }
}

/// The bounds that the baseline policy applies to a step: the instance's limits, the secrets that the pipeline file names for the
/// step, and the trust in the code.
pub fn step_bounds(app: &App, build: &Build, pipeline: &Pipeline, step: &pipeline::Step) -> StepBounds {
    StepBounds { limits: app.config.limits.of_container(), secrets: secret_names(pipeline, step), trust: build.trust() }
}

/// The names of the secrets that the pipeline file passes to a step.
pub fn secret_names(pipeline: &Pipeline, step: &pipeline::Step) -> BTreeSet<String> {
    pipeline.env_secret_names().chain(step.secret_names()).map(ToOwned::to_owned).collect()
}
