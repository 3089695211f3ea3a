//! Policies: the result of one policy ([`Verdict`]), the host's combined result ([`Decision`]), and the proof of it
//! ([`Approved`]).
//!
//! [`chain`] evaluates the policies in order and applies their [`patch`]es, [`decide`] combines the verdicts into one ruling, and
//! [`approval`] collects the approvals that policies require.

pub mod approval;
pub mod chain;
pub mod decide;
pub mod patch;
pub mod pointer;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Document};
use crate::ids::{DecisionId, StageId};
use crate::time::Timestamp;

/// Name of the baseline policy ([`crate::baseline_policy`]) among the evaluations of a decision.
pub const BASELINE_POLICY: &str = "baseline policy";

/// The points at which policies are evaluated. `secret.release` and other points are not supported yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Point {
    /// Before the pipeline files are read: once for each build.
    #[serde(rename = "build.admit")]
    BuildAdmit,
    #[serde(rename = "pipeline.admit")]
    PipelineAdmit,
    #[serde(rename = "step.admit")]
    StepAdmit,
}

impl Point {
    /// All points, in the order of a build.
    pub const ALL: [Self; 3] = [Self::BuildAdmit, Self::PipelineAdmit, Self::StepAdmit];

    /// The points of a policy whose manifest names none. A point that is added later must not surprise an old policy.
    pub const DEFAULT: [Self; 2] = [Self::PipelineAdmit, Self::StepAdmit];

    /// The points whose subjects policies may change.
    pub const MUTABLE: [Self; 2] = [Self::PipelineAdmit, Self::StepAdmit];

    /// The obligations that the host meets at this point.
    #[must_use]
    pub fn obligations(self) -> &'static [&'static str] {
        match self {
            Self::BuildAdmit => &["beespace.pipeline-from-target"],
            Self::PipelineAdmit | Self::StepAdmit => &[],
        }
    }

    /// The stable name in records, APIs and texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuildAdmit => "build.admit",
            Self::PipelineAdmit => "pipeline.admit",
            Self::StepAdmit => "step.admit",
        }
    }
}

/// The effect of a binding's verdicts. All modes use the same code path, so a policy cannot detect its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The verdict counts.
    #[default]
    Enforce,
    /// The verdict is shown on the build, but has no effect.
    Warn,
    /// The verdict is only recorded.
    Shadow,
}

impl Mode {
    /// The stable name in records, APIs and texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
            Self::Shadow => "shadow",
        }
    }
}

/// The result of one policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: VerdictOutcome,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchOp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalRequirement>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<Obligation>,
}

/// The outcome of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictOutcome {
    /// The policy does not apply to this subject.
    #[default]
    Abstain,
    Allow,
    RequireApproval,
    Deny,
}

impl VerdictOutcome {
    /// The stable name in records, APIs and texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abstain => "abstain",
            Self::Allow => "allow",
            Self::RequireApproval => "require_approval",
            Self::Deny => "deny",
        }
    }
}

/// The severity of a finding, from lowest to highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

/// One statement about the subject, for people and machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable, namespaced: `policy-images/registry-not-allowed`.
    pub rule_id: String,
    pub severity: Severity,
    /// One sentence of plain text, at most 2 KiB.
    pub message: String,
    /// RFC 6901 pointer into the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help_url: Option<String>,
    /// The remedy for the author of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// One RFC 6902 operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchOp {
    pub op: PatchKind,
    pub path: String,
    /// `None` for `remove`. JSON `null` is a value.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub value: Option<serde_json::Value>,
}

/// Reads a present value, including `null`, as `Some`.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(from).map(Some)
}

/// The kind of an RFC 6902 operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchKind {
    Add,
    Remove,
    Replace,
    Test,
}

/// An approval that a policy requires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequirement {
    /// Name of the binding that requires it.
    pub policy: String,
    /// A person of any of these groups may approve; empty: anyone who may approve.
    pub groups: Vec<String>,
    pub min_approvers: u32,
    /// The person who caused the build may not approve.
    pub forbid_author: bool,
    pub ttl_seconds: Option<u64>,
    pub reason: String,
}

/// Something that the host must do as a condition of `allow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligation {
    pub id: String,
    pub params: String,
    pub mandatory: bool,
}

/// The kind of failure of an evaluation. Each is a denial if the binding's mode is `enforce`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    Timeout,
    Memory,
    LogBudget,
    OutputTooLarge,
    Trap,
    StackOverflow,
    /// The plugin returned `err(text)`.
    PluginError,
    Incompatible,
    Capability,
    Busy,
    /// A patch is outside the grant, or cannot be applied.
    Patch,
    /// The host does not support a mandatory obligation.
    Obligation,
    /// Mutators change the document again and again.
    Conflict,
    /// Invalid UTF-8, an invalid handle, or values beyond their limits.
    Malformed,
    /// An internal error of Beespace.
    Internal,
}

/// Why a policy returned no verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationError {
    pub class: ErrorClass,
    /// One sentence for people.
    pub message: String,
}

/// The evaluation of one policy in a decision, kept with the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Name of the binding; [`BASELINE_POLICY`] for the host's own rules.
    pub policy: String,
    pub component: Option<Digest>,
    pub settings: Option<Digest>,
    pub mode: Mode,
    pub result: Result<Verdict, EvaluationError>,
    /// The patches that were applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<PatchOp>,
    pub duration_us: u64,
}

/// The host's result from all verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub id: DecisionId,
    pub point: Point,
    pub stage: StageId,
    /// Name of the step; `None` at `pipeline.admit`.
    pub step: Option<String>,
    /// Digest of the subject before patches.
    pub subject_before: Digest,
    /// Digest of the subject after patches.
    pub subject: Digest,
    pub evaluations: Vec<Evaluation>,
    pub ruling: Ruling,
    /// Digest of the rules under which it was made ([`crate::rule_set`]); `None` if an older version made it.
    #[serde(default)]
    pub rules: Option<Digest>,
    pub decided_at: Timestamp,
}

impl Decision {
    /// Whether a policy whose verdict counts has made this obligation a condition.
    #[must_use]
    pub fn obliges(&self, obligation: &str) -> bool {
        let counting = self.evaluations.iter().filter(|evaluation| evaluation.mode == Mode::Enforce);
        let verdicts = counting.filter_map(|evaluation| evaluation.result.as_ref().ok());
        verdicts.flat_map(|verdict| &verdict.obligations).any(|one| one.id == obligation)
    }
}

/// The ruling of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ruling", rename_all = "snake_case")]
pub enum Ruling {
    Allowed,
    NeedsApproval {
        requirements: Vec<ApprovalRequirement>,
    },
    /// The reasons with the names of their bindings; the build page shows them first.
    Denied {
        by: Vec<Denial>,
    },
}

/// One reason for a denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    pub policy: String,
    pub finding: Finding,
}

/// A subject that policies, and if required people, have approved. The constructor compares digests, so that a subject from the
/// store is approved by the same check as a fresh one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved<T>(T);

/// Why a subject is not approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    #[error("the decision is for another subject: it is for {decided}, but this is {actual}")]
    OtherSubject { decided: Digest, actual: Digest },
    #[error("the policies denied the subject")]
    Denied,
    #[error("an approval is missing")]
    ApprovalMissing,
}

/// A subject of decisions.
pub trait Subject {
    /// The document that policies evaluate.
    fn subject_document(&self) -> Document;

    /// Why the subject cannot be executed although each of its parts is valid. A policy's patch can cause this.
    fn problem(&self) -> Option<String> {
        None
    }

    /// Digest of the document.
    fn subject_digest(&self) -> Digest {
        self.subject_document().digest()
    }
}

impl<T: Subject> Approved<T> {
    /// Approves `subject` if `decision` allowed exactly this subject. `approved` is the digest that people have approved, if
    /// the decision required that.
    ///
    /// # Errors
    /// [`NotApproved`]; the subject must not run then.
    pub fn new(subject: T, decision: &Decision, approved: Option<Digest>) -> Result<Self, NotApproved> {
        let actual = subject.subject_digest();
        if decision.subject != actual {
            return Err(NotApproved::OtherSubject { decided: decision.subject, actual });
        }
        match &decision.ruling {
            Ruling::Allowed => Ok(Self(subject)),
            Ruling::NeedsApproval { .. } if approved == Some(actual) => Ok(Self(subject)),
            Ruling::NeedsApproval { .. } => Err(NotApproved::ApprovalMissing),
            Ruling::Denied { .. } => Err(NotApproved::Denied),
        }
    }
}

impl<T> Approved<T> {
    /// The approved subject.
    pub fn get(&self) -> &T {
        &self.0
    }
}
