//! Makes stages of a build: pipeline, admit, plan, admit. Nothing of it touches the engine.

use beespace_core::baseline_policy::StepBounds;
use beespace_core::build::{Build, PipelineFile, Round, Stage, Step};
use beespace_core::ids::{StageId, StageNumber, StepNumber};
use beespace_core::pipeline::eval_when;
use beespace_core::pipeline::{self, Action, EnvValue, Pipeline};
use beespace_core::plan::{self, Limits, StepPlan};
use beespace_core::plugin_context::PluginContext;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::policy::{Decision, Denial, Ruling};
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::user_action;
use beespace_wasm::{PlanError, StepInput};
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};

use crate::admit::{self, PolicyContext};
use crate::app::App;
use crate::change_set::Change;
use crate::clock::now;
use crate::plugins;
use crate::resolve::{self, Commit};
use crate::store::build::Prepared;

/// The one stage of a build, while a file holds one pipeline.
const FIRST_STAGE: StageNumber = StageNumber(1);

/// Reads the pipeline file of a commit and makes its stages, or says why there are none.
pub async fn stages(app: &App, mut build: Build, commit: &Commit) -> Result<Prepared, crate::worker::Trouble> {
    let (file, change) = tokio::join!(resolve::pipeline_file(commit), Change::of(app, &build));
    let Some(file) = file? else { return Ok(Prepared::Ignored(no_file(commit).await)) };
    let file = match file {
        Ok(file) => file,
        Err(reason) => return Ok(over(build, Status::Error, reason)),
    };
    let read = pipeline::read(&file.path, &file.bytes);
    let text = String::from_utf8_lossy(&file.bytes).into_owned();
    let located = match read {
        Ok(located) => located,
        Err(diagnostics) => {
            let count = diagnostics.len();
            build.file = Some(PipelineFile { path: file.path.clone(), text, diagnostics, spans: Default::default() });
            return Ok(over(build, Status::Error, invalid(&file.path, count)));
        }
    };
    build.file = Some(PipelineFile { path: file.path, text, diagnostics: Vec::new(), spans: located.spans });
    let remarks = match eval_when::pipeline_matches(located.pipeline.when.as_ref(), &change.facts) {
        Ok(remarks) => remarks,
        Err(reason) => {
            return Ok(over(
                build,
                Status::Skipped,
                Reason::new("when", "the pipeline does not run for this event").part(reason),
            ));
        }
    };
    let (stage, decisions) = stage(app, &build, located.pipeline, &change).await;
    let stage = Stage { remarks, ..stage };
    Ok(Prepared::Stages { build: Box::new(build), stages: vec![stage], decisions })
}

async fn no_file(commit: &Commit) -> Reason {
    let help = if resolve::has_pipeline_folder(commit).await {
        "files in `.beespace/` are not read yet: put the pipeline into `.beespace.yml`, in the root of the repository"
    } else {
        "add a `.beespace.yml` to the root of the repository"
    };
    Reason::new("no-pipeline-file", format!("no pipeline file at {}", commit.head.sha.short())).help(help)
}

fn invalid(path: &str, count: usize) -> Reason {
    let problems = if count == 1 { "a problem".to_owned() } else { format!("{count} problems") };
    Reason::new("invalid-file", format!("{path} has {problems}")).help("`beespace lint` says the same before you push")
}

/// The build ends without a stage.
pub fn over(mut build: Build, status: Status, reason: Reason) -> Prepared {
    build.status = status;
    build.reason = Some(reason);
    Prepared::Over { build: Box::new(build), decisions: Vec::new() }
}

/// Asks policies about the pipeline, plans its steps, asks about each plan.
pub(crate) async fn stage(app: &App, build: &Build, pipeline: Pipeline, change: &Change) -> (Stage, Vec<Decision>) {
    let id = StageId { build: build.id, stage: FIRST_STAGE };
    let previous = admit::previous_stage(app, build, FIRST_STAGE);
    let matter = PolicyContext { build, stage: id, event: &change.event, previous: previous.as_ref() };
    let (decision, pipeline) = admit::pipeline(app, matter, pipeline).await;
    let mut making = StageBuilder::new(id, pipeline, decision);
    if making.is_open() {
        let stage = &making.stage;
        let mut plans = Vec::new();
        for step in &stage.pipeline.steps {
            plans.push(plan_and_admit(app, matter, stage, step, change).boxed());
        }
        // None of them waits for another; two a core, so that none of these waits for our own part of it.
        let at_once = 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let plans: Vec<_> = stream::iter(plans).buffered(at_once).collect().await;
        for (index, plan) in plans.into_iter().enumerate() {
            match plan {
                Ok((decision, plan)) => making.record_plan(index, plan, decision),
                Err(reason) => making.record_plan_error(index, reason),
            }
        }
    }
    making.finish(app.config.engine.capacity.get())
}

/// A stage on its way: what was decided so far, and whether that leaves it anything to do.
struct StageBuilder {
    stage: Stage,
    decisions: Vec<Decision>,
}

impl StageBuilder {
    fn new(id: StageId, pipeline: Pipeline, decision: Decision) -> Self {
        let steps = pipeline.steps.iter().zip(1..).map(|(step, number)| Step::pending(StepNumber(number), step.name.clone()));
        let steps = std::iter::once(Step::pending(StepNumber::CLONE, "clone")).chain(steps).collect();
        let stage = Stage::pending(id, pipeline, Some(decision.id), steps, now());
        let mut making = Self { stage, decisions: Vec::new() };
        making.record_decision("the pipeline", decision);
        making
    }

    /// Whether there is still something to plan: a denied pipeline is not.
    fn is_open(&self) -> bool {
        !self.stage.status.is_over()
    }

    fn record_decision(&mut self, what: &str, decision: Decision) {
        match &decision.ruling {
            Ruling::Allowed => {}
            Ruling::Denied { by } => {
                self.stage.status = Status::Declined;
                self.stage.reason.get_or_insert_with(|| denied_reason(what, by));
            }
            Ruling::NeedsApproval { .. } => self.stage.approvals.extend(PendingApproval::for_decision(&decision, what)),
        }
        self.decisions.push(decision);
    }

    fn record_plan(&mut self, index: usize, plan: StepPlan, decision: Decision) {
        let id = decision.id;
        self.record_decision(&format!("step \"{}\"", plan.step), decision);
        if let Some(step) = self.stage.steps.get_mut(index + 1) {
            step.round = Some(Round::first(plan, id));
        }
    }

    fn record_plan_error(&mut self, index: usize, reason: Reason) {
        if let Some(step) = self.stage.steps.get_mut(index + 1) {
            step.status = Status::Error;
            step.reason = Some(reason.clone());
        }
        if self.stage.status != Status::Declined {
            self.stage.status = Status::Error;
            self.stage.reason.get_or_insert(reason);
        }
    }

    /// `capacity`: how many stages may run at once.
    fn finish(mut self, capacity: u16) -> (Stage, Vec<Decision>) {
        if self.stage.status.is_over() {
            self.stage.finished_at = Some(now());
            for step in self.stage.steps.iter_mut().filter(|step| !step.status.is_over()) {
                step.status = Status::Skipped;
                step.reason = Some(Reason::new("not-run", format!("nothing of the stage ran: it is {}", self.stage.status)));
            }
        } else if !self.stage.approvals.is_empty() {
            self.stage.status = Status::Blocked;
            // Nobody has said anything yet, so it does not matter whose word would not count.
            self.stage.reason = Some(user_action::blocked_reason(&self.stage, "", now()));
        } else {
            let message = format!("waits for its turn: {capacity} may run at once");
            self.stage.reason = Some(Reason::new("capacity", message));
        }
        (self.stage, self.decisions)
    }
}

/// Why something is not to run, policy by policy.
pub(crate) fn denied_reason(what: &str, by: &[Denial]) -> Reason {
    let parts = by.iter().map(|denial| denial_reason(&denial.policy, &denial.finding));
    parts.fold(Reason::new("denied", format!("policies deny {what}")), Reason::part)
}

fn denial_reason(policy: &str, finding: &beespace_core::policy::Finding) -> Reason {
    let reason = Reason::new(&finding.rule_id, format!("{policy}: {}", finding.message));
    match &finding.remedy {
        Some(remedy) => reason.help(remedy.clone()),
        None => reason,
    }
}

/// What a step is going to do, as policies leave it, and what they decided.
async fn plan_and_admit(
    app: &App,
    matter: PolicyContext<'_>,
    stage: &Stage,
    step: &pipeline::Step,
    change: &Change,
) -> Result<(Decision, StepPlan), Reason> {
    let plan = plan_step(app, matter.build, stage, step, change).await?;
    Ok(admit::step(app, matter, plan, bounds(app, &stage.pipeline, step)).await)
}

/// What a step is going to do: described by the file, or planned by its step type.
async fn plan_step(app: &App, build: &Build, stage: &Stage, step: &pipeline::Step, change: &Change) -> Result<StepPlan, Reason> {
    let action = match &step.action {
        Action::Image(action) => return Ok(plan::plan_image_step(&stage.pipeline, step, action)),
        Action::Uses(action) => action,
    };
    let Some(step_type) = app.plugins.step_types.get(&action.plugin) else { return Err(unknown_step_type(app, &action.plugin)) };
    let problems = step_type.check_params(&action.with);
    if !problems.is_empty() {
        let reason = Reason::new("invalid-settings", format!("`with` of step \"{}\" is not right", step.name));
        return Err(problems.iter().fold(reason, |reason, problem| reason.part(Reason::new("with", problem.to_string()))));
    }
    let input = step_input(build, stage, &step.name, change);
    let invocation = input.context.invocation_id.clone();
    let answer = step_type.make_plan(input).await;
    plugins::forward_log(step_type.plugin(), &invocation, &answer.report);
    let mut plan = answer.result.map_err(|error| plan_error(&action.plugin, &error))?;
    plan.step.clone_from(&step.name);
    plan.uses = Some(action.plugin.clone());
    plan::apply_file_settings(&mut plan, &stage.pipeline, step);
    Ok(plan)
}

fn unknown_step_type(app: &App, name: &str) -> Reason {
    let known: Vec<&str> = app.plugins.step_types.keys().map(String::as_str).collect();
    let help = if known.is_empty() {
        "this instance offers none: an administrator binds them as `[[step]]` in beespace.toml".to_owned()
    } else {
        format!("this instance offers {}", known.join(", "))
    };
    Reason::new("unknown-step-type", format!("there is no step type {name:?}")).help(help)
}

fn plan_error(name: &str, error: &PlanError) -> Reason {
    Reason::new("no-plan", format!("{name} made no plan: {error}"))
}

/// What a step type is asked with.
pub fn step_input(build: &Build, stage: &Stage, step: &str, change: &Change) -> StepInput {
    let written = stage.pipeline.steps.iter().find(|written| written.name == step);
    let params = written.map_or(serde_json::Value::Null, |written| match &written.action {
        Action::Uses(action) => action.with.clone(),
        Action::Image(_) => serde_json::Value::Null,
    });
    let secrets = written.map(|written| secrets_of(&stage.pipeline, written)).unwrap_or_default();
    StepInput {
        step: step.to_owned(),
        context: PluginContext::for_build(build, uuid::Uuid::now_v7().to_string(), now()),
        event: change.event.clone(),
        params,
        upstream: Vec::new(),
        secret_names: secrets.into_iter().collect(),
        source: change.files.clone(),
    }
}

/// What people are asked about a further round, in words.
pub fn next_plan_subject(step: &str) -> String {
    format!("the next plan of step \"{step}\"")
}

/// One more round of a step type, before policies.
pub async fn admit_round(app: &App, build: &Build, stage: &Stage, mut plan: StepPlan, change: &Change) -> (Decision, StepPlan) {
    let id = StageId { build: build.id, stage: stage.number };
    let previous = admit::previous_stage(app, build, stage.number);
    let matter = PolicyContext { build, stage: id, event: &change.event, previous: previous.as_ref() };
    let written = stage.pipeline.steps.iter().find(|written| written.name == plan.step);
    if let Some(Action::Uses(action)) = written.map(|written| &written.action) {
        plan.uses = Some(action.plugin.clone());
    }
    if let Some(written) = written {
        plan::apply_file_settings(&mut plan, &stage.pipeline, written);
    }
    let bounds = written.map_or_else(StepBounds::default, |written| bounds(app, &stage.pipeline, written));
    admit::step(app, matter, plan, bounds).await
}

fn secrets_of(pipeline: &Pipeline, step: &pipeline::Step) -> std::collections::BTreeSet<String> {
    let values = pipeline.env.values().chain(step.env.values());
    values
        .filter_map(|value| match value {
            EnvValue::FromSecret(name) => Some(name.clone()),
            EnvValue::Text(_) => None,
        })
        .collect()
}

fn bounds(app: &App, pipeline: &Pipeline, step: &pipeline::Step) -> StepBounds {
    let limits = &app.config.limits;
    StepBounds {
        limits: Limits {
            memory_bytes: Some(limits.step_memory),
            pids: Some(u32::from(limits.step_pids.get())),
            ..Limits::default()
        },
        secrets: secrets_of(pipeline, step),
    }
}
