//! An approval of a stage as people see it: the plan, the policies that require it, and the people who approved.

use beespace_core::build::Stage;
use beespace_core::policy::approval;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::time::Timestamp;

use super::plan_text::approval_lines;

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
    /// Ids of the people who have approved.
    pub approved_by: Vec<String>,
    /// Why it was declined, if its stage continued after that.
    pub declined: Option<String>,
    /// The approvals that are still missing; empty if none is, or if the stage no longer accepts any.
    pub missing: Vec<String>,
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
            approved_by: approval.approved_by.iter().map(|approver| approver.id.clone()).collect(),
            declined: approval.declined.as_ref().map(|reason| reason.message.clone()),
            missing: missing.iter().map(ToString::to_string).collect(),
        }
    }
}
