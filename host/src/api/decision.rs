//! Decisions of policies, as JSON.

use beespace_core::policy::{Decision, Evaluation, Finding, Ruling};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::view::time::rfc3339;

/// The decision that combines all verdicts on one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionBody {
    /// A UUID of version 7, so ids sort by time.
    pub id: String,
    /// The point at which policies were evaluated: `build.admit`, `pipeline.admit` or `step.admit`.
    pub point: String,
    /// The number of the stage.
    pub stage: u16,
    /// The name of the step; none at `pipeline.admit`.
    pub step: Option<String>,
    /// The digest of the subject before patches.
    pub subject_before: String,
    /// The digest of the subject that was decided on.
    pub subject: String,
    /// `allowed`, `needs_approval`, `denied`.
    pub ruling: String,
    /// The reasons, each with the name of its policy.
    pub reasons: Vec<String>,
    /// The evaluated policies, in order.
    pub evaluations: Vec<EvaluationBody>,
    /// When it was decided. RFC 3339, in UTC.
    pub decided_at: String,
}

/// The evaluation of one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationBody {
    /// Name of the binding; `baseline policy` for the host's own.
    pub policy: String,
    /// The digest of its component; none for the baseline policy.
    pub component: Option<String>,
    /// The digest of its settings; none for the baseline policy.
    pub settings: Option<String>,
    /// `enforce`, `warn`, `shadow`.
    pub mode: serde_json::Value,
    /// `abstain`, `allow`, `require_approval`, `deny`; none if the policy failed.
    pub outcome: Option<serde_json::Value>,
    /// The error, if there is no verdict.
    pub error: Option<String>,
    /// The findings of the policy.
    pub findings: Vec<FindingBody>,
    /// The applied operations, as RFC 6902.
    pub applied: serde_json::Value,
    /// The duration, in microseconds.
    pub duration_us: u64,
}

/// One finding about the subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FindingBody {
    /// The policy's stable name of the rule, for searching.
    pub rule: String,
    /// One sentence for people.
    pub message: String,
    /// The place in the subject, as a JSON pointer.
    pub pointer: Option<String>,
    /// The remedy.
    pub remedy: Option<String>,
}

impl DecisionBody {
    #[must_use]
    pub fn new(decision: &Decision) -> Self {
        let (ruling, reasons) = match &decision.ruling {
            Ruling::Allowed => ("allowed", Vec::new()),
            Ruling::NeedsApproval { requirements } => {
                ("needs_approval", requirements.iter().map(|asked| format!("{}: {}", asked.policy, asked.reason)).collect())
            }
            Ruling::Denied { by } => {
                ("denied", by.iter().map(|denial| format!("{}: {}", denial.policy, denial.finding.message)).collect())
            }
        };
        Self {
            id: decision.id.to_string(),
            point: decision.point.as_str().to_owned(),
            stage: decision.stage.stage.0,
            step: decision.step.clone(),
            subject_before: decision.subject_before.to_string(),
            subject: decision.subject.to_string(),
            ruling: ruling.to_owned(),
            reasons,
            evaluations: decision.evaluations.iter().map(EvaluationBody::new).collect(),
            decided_at: rfc3339(decision.decided_at),
        }
    }
}

impl EvaluationBody {
    fn new(evaluation: &Evaluation) -> Self {
        let verdict = evaluation.result.as_ref().ok();
        Self {
            policy: evaluation.policy.clone(),
            component: evaluation.component.map(|digest| digest.to_string()),
            settings: evaluation.settings.map(|digest| digest.to_string()),
            mode: serde_json::to_value(evaluation.mode).unwrap_or_default(),
            outcome: verdict.map(|verdict| serde_json::to_value(verdict.outcome).unwrap_or_default()),
            error: evaluation.result.as_ref().err().map(|error| error.message.clone()),
            findings: verdict.map(|verdict| verdict.findings.iter().map(FindingBody::new).collect()).unwrap_or_default(),
            applied: serde_json::to_value(&evaluation.applied).unwrap_or_default(),
            duration_us: evaluation.duration_us,
        }
    }
}

impl FindingBody {
    fn new(finding: &Finding) -> Self {
        Self {
            rule: finding.rule_id.clone(),
            message: finding.message.clone(),
            pointer: finding.pointer.clone(),
            remedy: finding.remedy.clone(),
        }
    }
}
