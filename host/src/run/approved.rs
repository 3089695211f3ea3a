//! The proof that a stored pipeline or plan may run.

use anyhow::Context as _;
use beespace_core::build::Stage;
use beespace_core::ids::DecisionId;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::policy::{Approved, Decision, NotApproved, Subject, approval};

use super::stage_run::StageRun;
use crate::clock::now;
use crate::store::decision::Decisions as _;

/// Whether a stored subject may run.
pub(super) enum ApprovalCheck<T> {
    Approved(Approved<T>),
    Refused(Box<Refusal>),
}

/// Why a stored subject must not run: the decision about it and the approval that it requires.
pub(super) struct Refusal {
    pub(super) decision: Decision,
    pub(super) error: NotApproved,
    pub(super) approval: Option<PendingApproval>,
}

impl StageRun {
    /// Checks a pipeline or a round's plan against the stored decision and approvals. An approval that was valid when the stage
    /// started stays valid until the stage ends.
    ///
    /// # Errors
    /// The store's; a decision that no longer exists.
    pub(super) fn check_approval<T: Subject>(
        &self,
        stage: &Stage,
        subject: T,
        decision: DecisionId,
    ) -> anyhow::Result<ApprovalCheck<T>> {
        let decision = self.app.store.read()?.decision(decision)?.context("the policy decision no longer exists")?;
        let caused_by = self.caused_by();
        let pending = stage.approvals.iter().find(|pending| pending.decision == decision.id);
        let not_declined = pending.filter(|pending| pending.declined.is_none());
        // An approval expires by the time of the start or of the last approval, whichever is later.
        let last_approval = not_declined.iter().flat_map(|pending| &pending.approved_by).map(|by| by.at);
        let at = last_approval.chain([stage.started_at.unwrap_or_else(now)]).max().unwrap_or_else(now);
        let approved = not_declined.and_then(|pending| approval::approved_digest(pending, &caused_by, at));
        Ok(match Approved::new(subject, &decision, approved) {
            Ok(approved) => ApprovalCheck::Approved(approved),
            Err(error) => ApprovalCheck::Refused(Box::new(Refusal { error, approval: pending.cloned(), decision })),
        })
    }
}
