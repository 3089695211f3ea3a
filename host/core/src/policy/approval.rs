//! Approvals: who has approved a subject, and which approvals are missing.
//!
//! Gogs has no API for groups, so an administrator counts as one approver of every group. A subject that needs more people than
//! there are stays blocked and lists the missing approvals.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ApprovalRequirement, Decision, Ruling};
use crate::digest::Digest;
use crate::ids::DecisionId;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The approver id of the instance's admin token.
pub const ADMIN_ID: &str = "admin";

/// The longest reason of an answer, in characters. It is part of the stage's row, which is rewritten with every step.
pub const MAX_REASON_CHARS: usize = 1_000;

/// An approval that a decision requires. It is bound to a digest: a changed subject needs a new approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingApproval {
    pub decision: DecisionId,
    /// Digest of the subject to approve.
    pub subject: Digest,
    /// The subject in words: `the pipeline`, `step "deploy"`.
    pub description: String,
    pub requirements: Vec<ApprovalRequirement>,
    /// The people who have approved so far.
    pub approved_by: Vec<Approver>,
    /// Set when a person declined the next plan of a started step: the person and the reason.
    pub declined: Option<Reason>,
}

impl PendingApproval {
    /// The approval that `decision` requires; `None` if it requires none. `description` names the subject in words.
    #[must_use]
    pub fn for_decision(decision: &Decision, description: impl Into<String>) -> Option<Self> {
        let Ruling::NeedsApproval { requirements } = &decision.ruling else { return None };
        Some(Self {
            decision: decision.id,
            subject: decision.subject,
            description: description.into(),
            requirements: requirements.clone(),
            approved_by: Vec::new(),
            declined: None,
        })
    }
}

/// A person who has approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// `admin` for the instance's admin token; a stable id otherwise.
    pub id: String,
    pub at: Timestamp,
    /// The person's reason; at most [`MAX_REASON_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why an approval was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalRefused {
    #[error("the plan has changed: you approved {approved}, but {waiting} is waiting now; review it again")]
    Changed { approved: Digest, waiting: Digest },
    #[error("you caused this build, and the policy {policy:?} requires the approval of another person")]
    OwnBuild { policy: String },
    #[error("you have already approved this")]
    AlreadyApproved,
    #[error("your approval is not required: {0}")]
    NotRequired(String),
}

/// An approval that is still missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingApproval {
    /// Name of the binding that requires it.
    pub policy: String,
    /// A person of any of these groups; empty: anyone who may approve.
    pub groups: Vec<String>,
    /// How many more people must approve.
    pub count: u32,
    /// The person who caused the build may not approve.
    pub forbid_author: bool,
    /// Why the binding requires it.
    pub reason: String,
}

impl std::fmt::Display for MissingApproval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            1 => f.write_str("1 more person")?,
            count => write!(f, "{count} more people")?,
        }
        if !self.groups.is_empty() {
            write!(f, " of {}", self.groups.join(" or "))?;
        }
        if self.forbid_author {
            f.write_str(" other than the person who caused the build")?;
        }
        write!(f, " (required by policy {:?}: {})", self.policy, self.reason)
    }
}

/// Adds an approval of exactly the subject with the digest `approved`. `caused_by` is the stable id of the person who caused
/// the build.
///
/// # Errors
/// [`ApprovalRefused`] if the approval would not count for a requirement; `pending` is unchanged then.
pub fn approve(
    pending: &mut PendingApproval,
    approved: Digest,
    approver: Approver,
    caused_by: &str,
) -> Result<(), ApprovalRefused> {
    if approved != pending.subject {
        return Err(ApprovalRefused::Changed { approved, waiting: pending.subject });
    }
    let lapsed = |earlier: &Approver| {
        pending
            .requirements
            .iter()
            .any(|requirement| is_eligible(requirement, earlier, caused_by) && !is_fresh(requirement, earlier, approver.at))
    };
    if pending.approved_by.iter().any(|earlier| earlier.id == approver.id && !lapsed(earlier)) {
        return Err(ApprovalRefused::AlreadyApproved);
    }
    if !pending.requirements.iter().any(|requirement| is_eligible(requirement, &approver, caused_by)) {
        return Err(refusal(pending, &approver, caused_by));
    }
    pending.approved_by.retain(|earlier| earlier.id != approver.id);
    pending.approved_by.push(approver);
    Ok(())
}

/// The approvals that are missing at `now`; empty if the subject is approved.
#[must_use]
pub fn missing(pending: &PendingApproval, caused_by: &str, now: Timestamp) -> Vec<MissingApproval> {
    let missing_of = |requirement: &ApprovalRequirement| {
        let given = pending
            .approved_by
            .iter()
            .filter(|a| is_eligible(requirement, a, caused_by) && is_fresh(requirement, a, now))
            .count();
        let count = requirement.min_approvers.max(1).saturating_sub(u32::try_from(given).unwrap_or(u32::MAX));
        (count > 0).then(|| MissingApproval {
            policy: requirement.policy.clone(),
            groups: requirement.groups.clone(),
            count,
            forbid_author: requirement.forbid_author,
            reason: requirement.reason.clone(),
        })
    };
    pending.requirements.iter().filter_map(missing_of).collect()
}

/// The digest that people have approved, for [`super::Approved::new`]; `None` while an approval is missing.
#[must_use]
pub fn approved_digest(pending: &PendingApproval, caused_by: &str, now: Timestamp) -> Option<Digest> {
    missing(pending, caused_by, now).is_empty().then_some(pending.subject)
}

/// Whether an approval of this person counts for the requirement.
fn is_eligible(requirement: &ApprovalRequirement, approver: &Approver, caused_by: &str) -> bool {
    let may_speak = approver.id == ADMIN_ID || requirement.groups.is_empty();
    may_speak && !(requirement.forbid_author && approver.id == caused_by)
}

fn is_fresh(requirement: &ApprovalRequirement, approver: &Approver, now: Timestamp) -> bool {
    requirement.ttl_seconds.is_none_or(|seconds| now.since(approver.at) < Duration::from_secs(seconds))
}

fn refusal(pending: &PendingApproval, approver: &Approver, caused_by: &str) -> ApprovalRefused {
    let own = pending.requirements.iter().find(|requirement| requirement.forbid_author && approver.id == caused_by);
    if let Some(requirement) = own {
        return ApprovalRefused::OwnBuild { policy: requirement.policy.clone() };
    }
    let missing: Vec<String> = missing(pending, caused_by, approver.at).iter().map(ToString::to_string).collect();
    ApprovalRefused::NotRequired(if missing.is_empty() {
        "the plan is already approved".to_owned()
    } else {
        format!("missing: {}", missing.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(requirement: ApprovalRequirement) -> PendingApproval {
        PendingApproval {
            decision: DecisionId(uuid::Uuid::nil()),
            subject: Digest::of("plan"),
            description: "step \"deploy\"".to_owned(),
            requirements: vec![requirement],
            approved_by: Vec::new(),
            declined: None,
        }
    }

    fn requirement() -> ApprovalRequirement {
        ApprovalRequirement {
            policy: "deploys".to_owned(),
            groups: vec!["release".to_owned()],
            min_approvers: 1,
            forbid_author: true,
            ttl_seconds: Some(60),
            reason: "it goes to production".to_owned(),
        }
    }

    fn approver(id: &str, second: u64) -> Approver {
        Approver { id: id.to_owned(), at: Timestamp(second * 1_000), reason: None }
    }

    #[test]
    fn the_admin_counts_as_one_approver_of_any_group() {
        let mut pending = pending(requirement());
        approve(&mut pending, Digest::of("plan"), approver(ADMIN_ID, 0), "gogs:7").unwrap();
        assert_eq!(approved_digest(&pending, "gogs:7", Timestamp(59_999)), Some(Digest::of("plan")));
    }

    #[test]
    fn a_subject_that_needs_more_people_stays_blocked_and_lists_them() {
        let mut pending = pending(ApprovalRequirement { min_approvers: 2, ..requirement() });
        approve(&mut pending, Digest::of("plan"), approver(ADMIN_ID, 0), "gogs:7").unwrap();
        assert_eq!(approved_digest(&pending, "gogs:7", Timestamp(0)), None);
        let texts: Vec<String> = missing(&pending, "gogs:7", Timestamp(0)).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["1 more person of release other than the person who caused the build \
                 (required by policy \"deploys\": it goes to production)"]
        );
        assert_eq!(
            approve(&mut pending, Digest::of("plan"), approver(ADMIN_ID, 1), "gogs:7"),
            Err(ApprovalRefused::AlreadyApproved)
        );
    }

    #[test]
    fn a_changed_subject_needs_a_new_approval() {
        let mut pending = pending(requirement());
        let refused = approve(&mut pending, Digest::of("other plan"), approver(ADMIN_ID, 0), "gogs:7");
        assert!(matches!(refused, Err(ApprovalRefused::Changed { .. })));
        assert!(pending.approved_by.is_empty());
    }

    #[test]
    fn an_expired_approval_can_be_given_again() {
        let mut pending = pending(requirement());
        approve(&mut pending, Digest::of("plan"), approver(ADMIN_ID, 0), "gogs:7").unwrap();
        assert_eq!(approved_digest(&pending, "gogs:7", Timestamp(60_000)), None);
        approve(&mut pending, Digest::of("plan"), approver(ADMIN_ID, 60), "gogs:7").unwrap();
        assert_eq!(pending.approved_by.len(), 1);
        assert!(approved_digest(&pending, "gogs:7", Timestamp(60_000)).is_some());
    }

    #[test]
    fn the_person_who_caused_the_build_may_not_approve_it_if_that_is_forbidden() {
        let mut pending = pending(ApprovalRequirement { groups: Vec::new(), ..requirement() });
        let refused = approve(&mut pending, Digest::of("plan"), approver("gogs:7", 0), "gogs:7");
        assert_eq!(refused, Err(ApprovalRefused::OwnBuild { policy: "deploys".to_owned() }));
        approve(&mut pending, Digest::of("plan"), approver("gogs:8", 0), "gogs:7").unwrap();
        assert!(missing(&pending, "gogs:7", Timestamp(0)).is_empty());
    }

    #[test]
    fn a_refusal_names_the_required_group() {
        let refused = approve(&mut pending(requirement()), Digest::of("plan"), approver("gogs:8", 0), "gogs:7");
        let Err(ApprovalRefused::NotRequired(text)) = refused else { panic!("{refused:?}") };
        assert!(text.contains("release"), "{text}");
    }
}
