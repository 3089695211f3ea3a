//! Evaluates policies: drives core's chain, one evaluation after the other, and returns the decision with its subject.

use std::time::Instant;

use beespace_core::baseline_policy;
use beespace_core::build::{Build, Stage};
use beespace_core::build_admission::{BuildSubject, WHOLE_BUILD, without_approvals};
use beespace_core::digest::Document;
use beespace_core::ids::{DecisionId, StageId};
use beespace_core::pipeline::Pipeline;
use beespace_core::plan::StepPlan;
use beespace_core::plugin_context::PluginContext;
use beespace_core::policy::chain::{Chain, DecisionSite};
use beespace_core::policy::{BASELINE_POLICY, Decision, Denial, Finding, Point, Subject, Verdict, VerdictOutcome};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_wasm::PolicyRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;

use crate::app::App;
use crate::clock::now;
use crate::plugins;

/// The inputs of a decision besides its subject.
#[derive(Debug, Clone, Copy)]
pub struct PolicyContext<'a> {
    pub build: &'a Build,
    pub stage: StageId,
    /// `beespace.event/v1`.
    pub event: &'a Document,
    /// The same stage of the branch's last build that ran.
    pub previous: Option<&'a Stage>,
}

/// The subject of a decision, and its point in the build.
struct AdmissionRequest<T> {
    point: Point,
    /// The step's name, at `step.admit`.
    step: Option<String>,
    /// The same subject in the previous build.
    previous: Option<Document>,
    subject: T,
}

/// `build.admit`: whether the event is built, and what the host has to do for it. `None` if every policy abstains. The decision
/// never needs an approval.
pub async fn build(app: &App, build: &Build, event: &Document) -> Option<Decision> {
    if app.plugins.policies_at(Point::BuildAdmit).is_empty() {
        return None;
    }
    let stage = StageId { build: build.id, stage: WHOLE_BUILD };
    let context = PolicyContext { build, stage, event, previous: None };
    let request = AdmissionRequest { point: Point::BuildAdmit, step: None, previous: None, subject: BuildSubject::of(build) };
    // The baseline policy concerns plans, which do not exist yet.
    let allow = |_: &BuildSubject| Verdict { outcome: VerdictOutcome::Allow, ..Verdict::default() };
    let (decision, _) = decide(app, context, request, allow).await;
    Some(without_approvals(decision)).filter(|decision| !is_abstained(decision))
}

/// Whether no policy has an opinion, as about most builds: such a decision is not worth a row.
fn is_abstained(decision: &Decision) -> bool {
    let mut by_policies = decision.evaluations.iter().filter(|evaluation| evaluation.policy != BASELINE_POLICY);
    by_policies.all(|evaluation| evaluation.result.as_ref().is_ok_and(|verdict| *verdict == Verdict::default()))
}

/// `pipeline.admit`: returns the pipeline with the patches that policies may make, and the decision about it.
pub async fn pipeline(app: &App, context: PolicyContext<'_>, pipeline: Pipeline) -> (Decision, Pipeline) {
    // The baseline policy has no rule about pipelines: everything a pipeline requests ends up in plans, which it evaluates.
    let allow = |_: &Pipeline| Verdict { outcome: VerdictOutcome::Allow, ..Verdict::default() };
    let previous = context.previous.map(|stage| stage.pipeline.document());
    let request = AdmissionRequest { point: Point::PipelineAdmit, step: None, previous, subject: pipeline };
    decide(app, context, request, allow).await
}

/// `step.admit`: one plan of one round.
pub async fn step(
    app: &App,
    context: PolicyContext<'_>,
    plan: StepPlan,
    bounds: baseline_policy::StepBounds,
) -> (Decision, StepPlan) {
    let name = plan.step.clone();
    let step = context.previous.and_then(|stage| stage.steps.iter().find(|step| step.name == name));
    let previous = step.and_then(|step| step.round.as_ref()).map(|round| round.plan.document());
    let request = AdmissionRequest { point: Point::StepAdmit, step: Some(name), previous, subject: plan };
    decide(app, context, request, move |plan| baseline_policy::evaluate(plan, &bounds)).await
}

async fn decide<T: Subject + Serialize + DeserializeOwned + Send + 'static>(
    app: &App,
    context: PolicyContext<'_>,
    AdmissionRequest { point, step, previous, subject }: AdmissionRequest<T>,
    baseline: impl Fn(&T) -> Verdict + Send + Sync + 'static,
) -> (Decision, T) {
    let id = DecisionId(uuid::Uuid::now_v7());
    let (policies, bindings): (Vec<_>, Vec<_>) = app.plugins.policies_at(point).into_iter().unzip();
    let mut chain = Chain::new(subject, bindings, baseline).with_obligations(point.obligations());
    let plugin_context = PluginContext::for_build(context.build, id.to_string(), now());
    let event = context.event.clone();
    let metrics = app.metrics.clone();
    let evaluate_all = async move {
        while let Some(next) = chain.next_evaluation() {
            let Some((policy, mode)) = policies.get(next.binding) else { break };
            let request = || PolicyRequest {
                point,
                context: plugin_context.clone(),
                event: event.clone(),
                subject: next.document.clone(),
                previous: previous.clone(),
            };
            let started = Instant::now();
            let answer = plugins::when_free(|| policy.evaluate(request()), |error| error.class).await;
            let duration = started.elapsed();
            plugins::forward_log(policy.plugin(), &plugin_context.invocation_id, &answer.report);
            metrics.evaluated(mode.as_str(), verdict_label(&answer.result), duration);
            chain.record_evaluation(answer.result.map_err(Into::into), duration);
        }
        chain.into_result()
    };
    // The whole chain runs on the guest threads: no policy after the first waits for a thread to wake up.
    let result = app.host.run_on_guest_threads(evaluate_all.in_current_span()).await;
    result.into_decision(DecisionSite { id, point, stage: context.stage, step, rules: app.rules, decided_at: now() })
}

fn verdict_label<E>(result: &Result<Verdict, E>) -> &'static str {
    result.as_ref().map_or("error", |verdict| verdict.outcome.as_str())
}

/// Why policies deny a subject, with the finding of each policy.
pub fn denied_reason(subject: &str, by: &[Denial]) -> Reason {
    let parts = by.iter().map(|denial| denial_reason(&denial.policy, &denial.finding));
    parts.fold(Reason::new(ReasonCode::Denied, format!("policies deny {subject}")), Reason::part)
}

fn denial_reason(policy: &str, finding: &Finding) -> Reason {
    let reason = Reason::from_rule(&finding.rule_id, format!("{policy}: {}", finding.message));
    match &finding.remedy {
        Some(remedy) => reason.help(remedy.clone()),
        None => reason,
    }
}
