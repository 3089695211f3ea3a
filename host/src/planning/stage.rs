//! Plans a whole stage: policies admit the pipeline, its steps are planned, and policies admit each plan. Nothing here uses
//! the engine.

use std::time::Duration;

use beespace_core::baseline_policy::withheld_secrets;
use beespace_core::build::{Build, Round, Stage, Step};
use beespace_core::ids::{StageId, StepNumber};
use beespace_core::pipeline::{self, Available, Pipeline, no_engine_for};
use beespace_core::plan::StepPlan;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::policy::{Decision, Ruling};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::trust::Trust;
use beespace_core::units::format_duration;
use beespace_core::user_action;
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};

use super::admit::{self, PolicyContext, denied_reason};
use super::plan_budget::PlanBudget;
use super::previous::previous_stage;
use super::step::{lowered_limits, plan_step, secret_names, step_bounds};
use crate::app::App;
use crate::clock::now;
use crate::source::ChangeSet;

/// Evaluates policies about the pipeline, plans its steps, and evaluates policies about each plan.
pub async fn plan_stage(
    app: &App,
    build: &Build,
    id: StageId,
    pipeline: Pipeline,
    (change_set, budget): (&ChangeSet, &PlanBudget),
) -> (Stage, Vec<Decision>) {
    let previous = previous_stage(app, build, &pipeline);
    let context = PolicyContext { build, stage: id, event: &change_set.event, previous: previous.as_ref() };
    let (decision, pipeline) = admit::pipeline(app, context, pipeline).await;
    let mut builder = StageBuilder::new(id, pipeline, build.trust(), decision);
    builder.check_engine(app);
    if builder.is_open() {
        let stage = &builder.stage;
        let mut plans = Vec::new();
        for step in &stage.pipeline.steps {
            plans.push(plan_and_admit(app, context, stage, step, (change_set, budget)).boxed());
        }
        // The plans do not depend on each other. Two per core, so that a core stays busy while a plan waits for a guest thread.
        let at_once = 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let plans: Vec<_> = stream::iter(plans).buffered(at_once).collect().await;
        for (index, plan) in plans.into_iter().enumerate() {
            match plan {
                Ok((decision, plan)) => builder.record_plan(index, plan, decision),
                Err(reason) => builder.record_plan_error(index, reason),
            }
        }
    }
    builder.finish(app)
}

/// Ends a stage with its status, and its steps, of which none has started.
pub(super) fn end_before_start(stage: &mut Stage) {
    stage.finished_at = Some(now());
    let reason = Reason::new(ReasonCode::NotRun, format!("no step ran: the stage's status is {}", stage.status));
    for step in stage.steps.iter_mut().filter(|step| !step.status.is_over()) {
        step.status = Status::Skipped;
        step.reason = Some(reason.clone());
    }
}

/// A timeout of the pipeline that exceeds the instance's limit.
fn lowered_timeout(written: Option<Duration>, most: Duration) -> Option<Reason> {
    let written = written.filter(|written| *written > most)?;
    let (written, most) = (format_duration(written), format_duration(most));
    let message = format!("the pipeline's `timeout` of {written} is lowered to {most}, the longest one of this instance");
    Some(Reason::new(ReasonCode::TimeoutLowered, message))
}

fn waiting_for_slot(app: &App) -> Reason {
    let capacity = app.config.engine.capacity;
    let share = app.config.limits.repository_capacity.filter(|share| *share < capacity);
    let share = share.map_or(String::new(), |share| format!(", {share} per repository"));
    Reason::new(ReasonCode::Capacity, format!("waiting for a free slot (capacity: {capacity}{share})"))
}

/// The plan of a step as policies leave it, and their decision.
async fn plan_and_admit(
    app: &App,
    context: PolicyContext<'_>,
    stage: &Stage,
    step: &pipeline::Step,
    (change_set, budget): (&ChangeSet, &PlanBudget),
) -> Result<(Decision, StepPlan), Reason> {
    let plan = plan_step(app, context.build, stage, step, change_set).await?;
    budget.take(&plan)?;
    Ok(admit::step(app, context, plan, step_bounds(app, context.build, &stage.pipeline, step)).await)
}

/// A stage that is being planned, and the decisions so far.
struct StageBuilder {
    stage: Stage,
    decisions: Vec<Decision>,
}

impl StageBuilder {
    fn new(id: StageId, pipeline: Pipeline, trust: Trust, decision: Decision) -> Self {
        let steps = pipeline.steps.iter().zip(1..).map(|(step, number)| Step {
            remarks: withheld_secrets(trust, &secret_names(&pipeline, step)).into_iter().collect(),
            ..Step::pending(StepNumber(number), step.name.clone())
        });
        let steps = std::iter::once(Step::pending(StepNumber::CLONE, "clone")).chain(steps).collect();
        let stage = Stage::pending(id, pipeline, Some(decision.id), steps, now());
        let mut builder = Self { stage, decisions: Vec::new() };
        builder.record_decision("the pipeline", decision);
        builder
    }

    /// Ends a stage at once that no engine can run.
    fn check_engine(&mut self, app: &App) {
        let engine = &app.config.engine;
        let available = Available { platform: &engine.platform(), labels: &engine.labels };
        if let Some(reason) = no_engine_for(&self.stage.pipeline, &available).filter(|_| self.is_open()) {
            self.stage.status = Status::Error;
            self.stage.reason = Some(reason);
        }
    }

    /// Whether the steps are to be planned: not those of a pipeline that was denied.
    fn is_open(&self) -> bool {
        !self.stage.status.is_over()
    }

    fn record_decision(&mut self, subject: &str, decision: Decision) {
        match &decision.ruling {
            Ruling::Allowed => {}
            Ruling::Denied { by } => {
                self.stage.status = Status::Declined;
                self.stage.reason.get_or_insert_with(|| denied_reason(subject, by));
            }
            Ruling::NeedsApproval { .. } => self.stage.approvals.extend(PendingApproval::for_decision(&decision, subject)),
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

    /// Gives the stage its status and reason.
    fn finish(mut self, app: &App) -> (Stage, Vec<Decision>) {
        self.stage.remarks.extend(lowered_timeout(self.stage.pipeline.timeout, app.config.limits.stage_timeout));
        let Stage { steps, pipeline, .. } = &mut self.stage;
        for (step, written) in steps.iter_mut().skip(1).zip(&pipeline.steps) {
            step.remarks.extend(lowered_limits(app, written));
        }
        if self.stage.status.is_over() {
            end_before_start(&mut self.stage);
        } else if !self.stage.approvals.is_empty() {
            self.stage.status = Status::Blocked;
            // No approval exists yet, so the person who caused the build is irrelevant.
            self.stage.reason = Some(user_action::blocked_reason(&self.stage, "", now()));
        } else {
            self.stage.reason = Some(waiting_for_slot(app));
        }
        (self.stage, self.decisions)
    }
}
