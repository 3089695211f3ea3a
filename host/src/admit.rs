//! Asks policies: drives core's chain, one evaluation after the other, and hands back the decision with what it is about.

use std::time::Instant;

use beespace_core::context::Context;
use beespace_core::digest::Document;
use beespace_core::ids::{DecisionId, StageId};
use beespace_core::pipeline::Pipeline;
use beespace_core::plan::StepPlan;
use beespace_core::policy::chain::Chain;
use beespace_core::policy::{Decision, Point, Subject, Verdict, VerdictOutcome};
use beespace_core::{build::Build, floor};
use beespace_wasm::PolicyRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::clock::now;

/// What a decision is made about, besides its subject.
#[derive(Debug, Clone, Copy)]
pub struct Matter<'a> {
    pub build: &'a Build,
    pub stage: StageId,
    /// `beespace.event/v1`.
    pub event: &'a Document,
}

/// `pipeline.admit`: the pipeline, patched where policies may, and what was decided.
pub async fn pipeline(app: &App, matter: Matter<'_>, pipeline: Pipeline) -> (Decision, Pipeline) {
    // Whatever a pipeline asks for ends up in plans, and in front of those stands the floor.
    let allow = |_: &Pipeline| Verdict { outcome: VerdictOutcome::Allow, ..Verdict::default() };
    decide(app, matter, Point::PipelineAdmit, None, pipeline, allow).await
}

/// `step.admit`: one plan of one round.
pub async fn step(app: &App, matter: Matter<'_>, plan: StepPlan, bounds: floor::Bounds) -> (Decision, StepPlan) {
    let name = plan.step.clone();
    decide(app, matter, Point::StepAdmit, Some(name), plan, move |plan| floor::judge(plan, &bounds)).await
}

async fn decide<T: Subject + Serialize + DeserializeOwned>(
    app: &App,
    matter: Matter<'_>,
    point: Point,
    step: Option<String>,
    subject: T,
    floor: impl Fn(&T) -> Verdict + Send + Sync + 'static,
) -> (Decision, T) {
    let id = DecisionId(uuid::Uuid::now_v7());
    let (policies, bindings): (Vec<_>, Vec<_>) = app.plugins.at(point).into_iter().unzip();
    let mut chain = Chain::new(subject, bindings, floor);
    while let Some(question) = chain.next_question() {
        let Some(bound) = policies.get(question.binding) else { break };
        let request = PolicyRequest {
            point,
            context: Context::of_build(matter.build, id.to_string(), now()),
            event: matter.event.clone(),
            subject: question.document.clone(),
            previous: None,
        };
        let started = Instant::now();
        let answer = bound.policy.evaluate(request).await;
        let took = started.elapsed();
        app.metrics.evaluated(bound.mode.as_str(), verdict_word(&answer.result), took);
        chain.answer(answer.result.map_err(Into::into), took);
    }
    chain.settle().record(id, point, matter.stage, step, now())
}

fn verdict_word<E>(result: &Result<Verdict, E>) -> &'static str {
    result.as_ref().map_or("error", |verdict| verdict.outcome.as_str())
}
