//! Policies: what they say ([`Verdict`]), what the host makes of it ([`Decision`]), and the proof that it did ([`Approved`]).
//!
//! [`chain`] asks them in their order and applies their [`patch`]es, [`decide`] makes one ruling of what they said, [`approval`]
//! gathers people's words where they want some.

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
pub const BASELINE_POLICY: &str = "built-in floor";

/// Where policies are asked. More points come later; `build.admit`, `secret.release` and the others are not asked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Point {
    #[serde(rename = "pipeline.admit")]
    PipelineAdmit,
    #[serde(rename = "step.admit")]
    StepAdmit,
}

impl Point {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PipelineAdmit => "pipeline.admit",
            Self::StepAdmit => "step.admit",
        }
    }
}

/// What becomes of a binding's verdicts. The same code path in each: a policy cannot tell which it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Counts.
    #[default]
    Enforce,
    /// Shown on the build; changes nothing.
    Warn,
    /// Recorded only.
    Shadow,
}

impl Mode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
            Self::Shadow => "shadow",
        }
    }
}

/// What one policy says.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictOutcome {
    /// Nothing to say about this subject.
    #[default]
    Abstain,
    Allow,
    RequireApproval,
    Deny,
}

impl VerdictOutcome {
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
    /// What the author can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// One RFC 6902 operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchOp {
    pub op: PatchKind,
    pub path: String,
    /// None for `remove`. `null` is a value.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub value: Option<serde_json::Value>,
}

/// What is there, `null` included.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(from).map(Some)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchKind {
    Add,
    Remove,
    Replace,
    Test,
}

/// Whose word a policy wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequirement {
    /// The binding that asks.
    pub policy: String,
    /// Any of these groups may approve; empty: anyone who may approve at all.
    pub groups: Vec<String>,
    pub min_approvers: u32,
    /// The person who caused the build may not.
    pub forbid_author: bool,
    pub ttl_seconds: Option<u64>,
    pub reason: String,
}

/// Something the host must do as a condition of `grant_access`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligation {
    pub id: String,
    pub params: String,
    pub mandatory: bool,
}

/// What kind of trouble an evaluation met. Each is a denial where the binding enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    Timeout,
    Memory,
    LogBudget,
    OutputTooLarge,
    Trap,
    StackOverflow,
    /// The plugin's own `err(text)`.
    PluginError,
    Incompatible,
    Capability,
    Busy,
    /// A patch outside the grant, or one that does not apply.
    Patch,
    /// A mandatory obligation that the host does not know.
    Obligation,
    /// Mutators that never agree.
    Conflict,
    /// Bad UTF-8, a broken handle, values beyond their caps.
    Malformed,
    /// Our own trouble.
    Internal,
}

/// Why a policy gave no verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationError {
    pub class: ErrorClass,
    /// One sentence for people.
    pub message: String,
}

/// One policy's part in a decision, kept for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Name of the binding; `built-in floor` for the host's own.
    pub policy: String,
    pub component: Option<Digest>,
    pub settings: Option<Digest>,
    pub mode: Mode,
    pub result: Result<Verdict, EvaluationError>,
    /// The patches really applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<PatchOp>,
    pub duration_us: u64,
}

/// What the host made of all verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub id: DecisionId,
    pub point: Point,
    pub stage: StageId,
    /// Step by name; none at `pipeline.admit`.
    pub step: Option<String>,
    /// Digest of what was asked about, before patches.
    pub subject_before: Digest,
    /// Digest of what was decided on, after them.
    pub subject: Digest,
    pub evaluations: Vec<Evaluation>,
    pub ruling: Ruling,
    pub decided_at: Timestamp,
}

/// The host's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ruling", rename_all = "snake_case")]
pub enum Ruling {
    Allowed,
    NeedsApproval {
        requirements: Vec<ApprovalRequirement>,
    },
    /// In words, the binding named: shown first on the page.
    Denied {
        by: Vec<Denial>,
    },
}

/// One reason of a denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    pub policy: String,
    pub finding: Finding,
}

/// A subject that policies, and where they asked for it people, have let through. The constructor compares digests, so that
/// one read back from the store is approved by the same check as a fresh one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved<T>(T);

/// Why something is not approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    #[error("the decision is about something else ({decided}, this is {actual})")]
    OtherSubject { decided: Digest, actual: Digest },
    #[error("policies denied it")]
    Denied,
    #[error("a person's approval is missing")]
    ApprovalMissing,
}

/// Something a decision can be about.
pub trait Subject {
    /// What policies get to see.
    fn subject_document(&self) -> Document;

    /// Why it could not be carried out although each part of it reads well; a policy's patch may leave it so.
    fn problem(&self) -> Option<String> {
        None
    }

    /// Digest of its document.
    fn subject_digest(&self) -> Digest {
        self.subject_document().digest()
    }
}

impl<T: Subject> Approved<T> {
    /// Lets `subject` through where `decision` allowed exactly it. `approved` is the digest that people have approved, where
    /// the decision asked for that.
    ///
    /// # Errors
    /// [`NotApproved`] with the reason; nothing may run then.
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
    pub fn get(&self) -> &T {
        &self.0
    }
}
