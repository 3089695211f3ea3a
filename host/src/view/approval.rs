//! An approval of a stage as people see it: the plan, the policies that require it, and the people who approved.

use beespace_core::build::Stage;
use beespace_core::policy::approval;
use beespace_core::policy::approval::{Approver, PendingApproval};
use beespace_core::time::Timestamp;

use super::plan_text::approval_lines;
use super::time;

/// One approval as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalSummary {
    /// Digest of the pipeline or plan.
    pub subject: String,
    /// The pipeline or a step.
    pub description: String,
    /// The plan, line by line.
    pub plan: Vec<String>,
    /// Each policy that requires the approval, with its reason.
    pub reasons: Vec<String>,
    /// The approvals that were given.
    pub given: Vec<GivenApproval>,
    /// Why it was declined, if its stage continued after that.
    pub declined: Option<String>,
    /// The approvals that are still missing; empty if none is, or if the stage no longer accepts any.
    pub missing: Vec<String>,
}

/// The approval of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenApproval {
    /// The id of the person.
    pub by: String,
    pub at: Timestamp,
    pub reason: Option<String>,
}

impl GivenApproval {
    /// The end of a sentence: `approved by admin, 3 minutes ago: looks fine`.
    #[must_use]
    pub fn text(&self, now: Timestamp) -> String {
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("approved by {}, {}{reason}", self.by, time::ago(self.at, now))
    }
}

impl From<&Approver> for GivenApproval {
    fn from(approver: &Approver) -> Self {
        Self { by: approver.id.clone(), at: approver.at, reason: approver.reason.clone() }
    }
}

impl ApprovalSummary {
    /// `caused_by` is the stable id of the person who caused the build: some policies do not count that person's approval.
    #[must_use]
    pub fn new(stage: &Stage, approval: &PendingApproval, caused_by: &str, now: Timestamp) -> Self {
        let is_open = stage.accepts_approval() && stage.open_approvals().any(|open| open.decision == approval.decision);
        let missing = if is_open { approval::missing(approval, caused_by, now) } else { Vec::new() };
        Self {
            subject: approval.subject.to_string(),
            description: approval.description.clone(),
            plan: approval_lines(stage, approval),
            reasons: approval.requirements.iter().map(|required| format!("{}: {}", required.policy, required.reason)).collect(),
            given: approval.approved_by.iter().map(GivenApproval::from).collect(),
            declined: approval.declined.as_ref().map(|reason| reason.message.clone()),
            missing: missing.iter().map(ToString::to_string).collect(),
        }
    }
}
