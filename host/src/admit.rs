//! Asks policies: drives core's chain, one evaluation after the other, and hands back the decision with what it is about.

use std::time::Instant;

use beespace_core::baseline_policy;
use beespace_core::build::{Build, Stage};
use beespace_core::digest::Document;
use beespace_core::ids::{DecisionId, StageId, StageNumber};
use beespace_core::pipeline::Pipeline;
use beespace_core::plan::StepPlan;
use beespace_core::plugin_context::PluginContext;
use beespace_core::policy::chain::Chain;
use beespace_core::policy::{Decision, Point, Subject, Verdict, VerdictOutcome};
use beespace_wasm::PolicyRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;

use crate::app::App;
use crate::clock::now;
use crate::plugins;
use crate::store::StoreError;
use crate::store::build::Builds as _;

/// What a decision is made about, besides its subject.
#[derive(Debug, Clone, Copy)]
pub struct PolicyContext<'a> {
    pub build: &'a Build,
    pub stage: StageId,
    /// `beespace.event/v1`.
    pub event: &'a Document,
    /// The stage as the branch's last build ran it.
    pub previous: Option<&'a Stage>,
}

/// The stage at this place in the last build of the same branch that ran. A build that policies or people declined never counts:
/// nothing becomes right by having been tried before.
#[must_use]
pub fn previous_stage(app: &App, build: &Build, number: StageNumber) -> Option<Stage> {
    let branch = build.event.branch()?;
    let find = || {
        let read = app.store.read()?;
        let last = read.last_run(build.event.repository.id, branch)?;
        last.map_or(Ok(None), |last| read.stage(StageId { build: last, stage: number }))
    };
    // A policy that is told of none decides as about a first build.
    find().unwrap_or_else(|error: StoreError| {
        tracing::warn!(%error, build = %build.id, "policies are not told of the build before");
        None
    })
}

/// `pipeline.admit`: the pipeline, patched where policies may, and what was decided.
pub async fn pipeline(app: &App, matter: PolicyContext<'_>, pipeline: Pipeline) -> (Decision, Pipeline) {
    // Whatever a pipeline asks for ends up in plans, and in front of those stands the floor.
    let allow = |_: &Pipeline| Verdict { outcome: VerdictOutcome::Allow, ..Verdict::default() };
    let before = matter.previous.map(|stage| stage.pipeline.document());
    decide(app, matter, Point::PipelineAdmit, None, (before, pipeline), allow).await
}

/// `step.admit`: one plan of one round.
pub async fn step(
    app: &App,
    matter: PolicyContext<'_>,
    plan: StepPlan,
    bounds: baseline_policy::StepBounds,
) -> (Decision, StepPlan) {
    let name = plan.step.clone();
    let step = matter.previous.and_then(|stage| stage.steps.iter().find(|step| step.name == name));
    let before = step.and_then(|step| step.round.as_ref()).map(|round| round.plan.document());
    decide(app, matter, Point::StepAdmit, Some(name), (before, plan), move |plan| baseline_policy::evaluate(plan, &bounds)).await
}

async fn decide<T: Subject + Serialize + DeserializeOwned + Send + 'static>(
    app: &App,
    matter: PolicyContext<'_>,
    point: Point,
    step: Option<String>,
    (previous, subject): (Option<Document>, T),
    floor: impl Fn(&T) -> Verdict + Send + Sync + 'static,
) -> (Decision, T) {
    let id = DecisionId(uuid::Uuid::now_v7());
    let (policies, bindings): (Vec<_>, Vec<_>) = app.plugins.policies_at(point).into_iter().unzip();
    let mut chain = Chain::new(subject, bindings, floor);
    let (context, event) = (PluginContext::for_build(matter.build, id.to_string(), now()), matter.event.clone());
    let metrics = app.metrics.clone();
    let asking = async move {
        while let Some(question) = chain.next_evaluation() {
            let Some((policy, mode)) = policies.get(question.binding) else { break };
            let subject = question.document.clone();
            let request =
                PolicyRequest { point, context: context.clone(), event: event.clone(), subject, previous: previous.clone() };
            let started = Instant::now();
            let answer = policy.evaluate(request).await;
            let took = started.elapsed();
            plugins::forward_log(policy.plugin(), &context.invocation_id, &answer.report);
            metrics.evaluated(mode.as_str(), verdict_label(&answer.result), took);
            chain.record_evaluation(answer.result.map_err(Into::into), took);
        }
        chain.into_result()
    };
    let settled = app.host.run_on_guest_threads(asking.in_current_span()).await;
    settled.into_decision(id, point, matter.stage, step, now())
}

fn verdict_label<E>(result: &Result<Verdict, E>) -> &'static str {
    result.as_ref().map_or("error", |verdict| verdict.outcome.as_str())
}
