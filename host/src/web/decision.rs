//! Policy decisions on the page of a build.

use std::time::Duration;

use beespace_core::build::{PipelineFile, Stage};
use beespace_core::policy::{Decision, Evaluation, Finding, Mode, PatchKind, PatchOp, Point, Ruling, VerdictOutcome};

use super::pipeline_file::{FilePosition, finding_position};
use crate::view::time;

/// The decisions about a build.
#[derive(Debug, Clone)]
pub struct DecisionsView {
    /// Decisions that a person should read: not allowed, or with a patch, a failure or a verdict that another mode would apply.
    pub notable: Vec<DecisionView>,
    /// All others: nothing spoke against the subject.
    pub allowed: Vec<DecisionView>,
    /// Whether one of them explains why something did not run. They are shown above the stages then.
    pub explain: bool,
}

/// One decision of the host.
#[derive(Debug, Clone)]
pub struct DecisionView {
    pub id: String,
    pub subject: String,
    /// `The pipeline`, `Step "test"`.
    pub what: String,
    pub point: &'static str,
    pub ruling: &'static str,
    /// Status name that selects the colour.
    pub tone: &'static str,
    /// Expanded initially, because the decision is the reason why something did not run.
    pub open: bool,
    pub verdicts: Vec<VerdictView>,
}

/// One policy's verdict in a decision.
#[derive(Debug, Clone)]
pub struct VerdictView {
    pub policy: String,
    /// The mode, unless it is `enforce`.
    pub mode: Option<&'static str>,
    pub outcome: &'static str,
    pub tone: &'static str,
    pub took: String,
    pub findings: Vec<FindingView>,
    /// Its changes to the plan, as text.
    pub patches: Vec<String>,
}

/// One finding of a policy.
#[derive(Debug, Clone)]
pub struct FindingView {
    pub message: String,
    pub rule: String,
    pub remedy: Option<String>,
    /// The line of a pipeline file that the finding refers to.
    pub position: Option<FilePosition>,
}

impl DecisionsView {
    #[must_use]
    pub fn new(decisions: &[Decision], files: &[PipelineFile], stages: &[Stage]) -> Self {
        let (allowed, notable): (Vec<&Decision>, Vec<&Decision>) = decisions.iter().partition(|decision| is_plain(decision));
        let view = |decision: &&Decision| DecisionView::new(decision, files, stages);
        Self {
            explain: notable.iter().any(|decision| !matches!(decision.ruling, Ruling::Allowed)),
            notable: notable.iter().map(view).collect(),
            allowed: allowed.iter().map(view).collect(),
        }
    }
}

/// Whether a decision allows its subject as it is, and no policy said anything else in any mode.
fn is_plain(decision: &Decision) -> bool {
    let allows = |evaluation: &Evaluation| {
        let outcome = evaluation.result.as_ref().map(|verdict| verdict.outcome);
        evaluation.applied.is_empty() && matches!(outcome, Ok(VerdictOutcome::Abstain | VerdictOutcome::Allow))
    };
    matches!(decision.ruling, Ruling::Allowed) && decision.evaluations.iter().all(allows)
}

impl DecisionView {
    #[must_use]
    pub fn new(decision: &Decision, files: &[PipelineFile], stages: &[Stage]) -> Self {
        let place = |finding: &Finding| finding_position(files, stages, decision, finding);
        let (ruling, tone) = match &decision.ruling {
            Ruling::Allowed => ("allowed", "success"),
            Ruling::NeedsApproval { .. } => ("needs approval", "blocked"),
            Ruling::Denied { .. } => ("denied", "declined"),
        };
        Self {
            id: decision.id.to_string(),
            subject: decision.subject.to_string(),
            what: subject(decision, stages),
            point: decision.point.as_str(),
            ruling,
            tone,
            open: matches!(decision.ruling, Ruling::Denied { .. }),
            verdicts: decision.evaluations.iter().map(|part| VerdictView::new(part, place)).collect(),
        }
    }
}

/// `The build`, `The pipeline`, `Step "test"`; with the name of the pipeline if the build has several.
fn subject(decision: &Decision, stages: &[Stage]) -> String {
    if decision.point == Point::BuildAdmit {
        return "The build".to_owned();
    }
    let stage = stages.iter().find(|stage| stage.number == decision.stage.stage).filter(|_| stages.len() > 1);
    match (&decision.step, stage) {
        (None, None) => "The pipeline".to_owned(),
        (None, Some(stage)) => format!("Pipeline {:?}", stage.title()),
        (Some(step), None) => format!("Step {step:?}"),
        (Some(step), Some(stage)) => format!("Step {step:?} of pipeline {:?}", stage.title()),
    }
}

impl VerdictView {
    fn new(evaluation: &Evaluation, place: impl Fn(&Finding) -> Option<FilePosition>) -> Self {
        let mode = match evaluation.mode {
            Mode::Enforce => None,
            Mode::Warn => Some("warn"),
            Mode::Shadow => Some("shadow"),
        };
        let (outcome, tone, findings) = match &evaluation.result {
            Ok(verdict) => {
                let (outcome, tone) = match verdict.outcome {
                    VerdictOutcome::Abstain => ("abstains", "skipped"),
                    VerdictOutcome::Allow => ("allows", "success"),
                    VerdictOutcome::RequireApproval => ("requires approval", "blocked"),
                    VerdictOutcome::Deny => ("denies", "declined"),
                };
                let findings = verdict.findings.iter().map(|finding| FindingView::new(finding, place(finding))).collect();
                (outcome, tone, findings)
            }
            Err(error) => {
                let finding = FindingView {
                    message: error.message.clone(),
                    rule: error.class.as_str().to_owned(),
                    remedy: Some(error.class.remedy(evaluation.mode)),
                    position: None,
                };
                ("failed", "error", vec![finding])
            }
        };
        Self {
            policy: evaluation.policy.clone(),
            mode,
            outcome,
            tone,
            took: format_microseconds(evaluation.duration_us),
            findings,
            patches: evaluation.applied.iter().map(describe_patch).collect(),
        }
    }
}

impl FindingView {
    fn new(finding: &Finding, position: Option<FilePosition>) -> Self {
        Self { message: finding.message.clone(), rule: finding.rule_id.clone(), remedy: finding.remedy.clone(), position }
    }
}

fn format_microseconds(count: u64) -> String {
    match count {
        0..=999 => format!("{count} µs"),
        1_000..=999_999 => format!("{}.{} ms", count / 1_000, count % 1_000 / 100),
        _ => time::format_duration(Duration::from_micros(count)),
    }
}

fn describe_patch(patch: &PatchOp) -> String {
    let value = patch.value.as_ref().map(ToString::to_string).unwrap_or_default();
    match patch.op {
        PatchKind::Add => format!("added {} = {value}", patch.path),
        PatchKind::Replace => format!("changed {} to {value}", patch.path),
        PatchKind::Remove => format!("removed {}", patch.path),
        PatchKind::Test => format!("tested {} = {value}", patch.path),
    }
}
