//! People's words: who has said yes, whose word is missing.
//!
//! Gogs shows no groups, so an administrator counts as one approver of any group; what asks for a group, or for more people than
//! there are, stays blocked and says whose word is missing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ApprovalRequirement, Decision, Ruling};
use crate::digest::Digest;
use crate::ids::DecisionId;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The id of whoever holds the instance's admin token.
pub const ADMIN_ID: &str = "admin";

/// A person's word that is missing. Bound to a digest: a changed subject needs a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingApproval {
    pub decision: DecisionId,
    /// Digest of what is to be approved.
    pub subject: Digest,
    /// What it is, in words: `the pipeline`, `step "deploy"`.
    pub description: String,
    pub requirements: Vec<ApprovalRequirement>,
    /// Who has already said yes.
    pub approved_by: Vec<Approver>,
    /// Someone said no to the next plan of a step that had begun: who, and why.
    pub declined: Option<Reason>,
}

impl PendingApproval {
    /// What `decision` about `description` asks of people; none where it asks nothing.
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

/// A person who said yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// `admin` for the instance's admin token; a stable id otherwise.
    pub id: String,
    pub at: Timestamp,
}

/// Why someone's yes was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalRefused {
    #[error("it changed: you approved {approved}, what waits now is {waiting}; look at it again")]
    Changed { approved: Digest, waiting: Digest },
    #[error("you caused this build, and {policy:?} wants someone else's approval")]
    OwnBuild { policy: String },
    #[error("you have approved this already")]
    AlreadyApproved,
    #[error("nothing here waits for you: {0}")]
    NotRequired(String),
}

/// A word that is still missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingApproval {
    /// The binding that asks.
    pub policy: String,
    /// Any of these groups; empty: anyone who may approve.
    pub groups: Vec<String>,
    /// How many more people.
    pub count: u32,
    /// Whoever caused the build does not count.
    pub forbid_author: bool,
    /// Why the binding asks.
    pub reason: String,
}

impl std::fmt::Display for MissingApproval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            1 => f.write_str("one more person")?,
            count => write!(f, "{count} more people")?,
        }
        if !self.groups.is_empty() {
            write!(f, " of {}", self.groups.join(" or "))?;
        }
        if self.forbid_author {
            f.write_str(" other than whoever caused the build")?;
        }
        write!(f, " (asked for by {:?}: {})", self.policy, self.reason)
    }
}

/// Adds a yes to exactly the subject with the digest `approved`. `caused_by` is the stable id of who caused the build.
///
/// # Errors
/// [`ApprovalRefused`] where the word would not count for anything that is still missing; `pending` is as before then.
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

/// Whose words are missing at `now`; empty: it is approved.
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

/// The digest that people have approved, for [`super::Approved::new`]; none while a word is missing.
#[must_use]
pub fn approved_digest(pending: &PendingApproval, caused_by: &str, now: Timestamp) -> Option<Digest> {
    missing(pending, caused_by, now).is_empty().then_some(pending.subject)
}

/// Whether this person's yes is one that the requirement asks for.
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
    let asked: Vec<String> = missing(pending, caused_by, approver.at).iter().map(ToString::to_string).collect();
    ApprovalRefused::NotRequired(if asked.is_empty() {
        "it is approved".to_owned()
    } else {
        format!("missing are {}", asked.join(", and "))
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

    fn says(id: &str, second: u64) -> Approver {
        Approver { id: id.to_owned(), at: Timestamp(second * 1_000) }
    }

    #[test]
    fn the_admin_counts_as_one_approver_of_any_group() {
        let mut pending = pending(requirement());
        approve(&mut pending, Digest::of("plan"), says(ADMIN_ID, 0), "gogs:7").unwrap();
        assert_eq!(approved_digest(&pending, "gogs:7", Timestamp(59_999)), Some(Digest::of("plan")));
    }

    #[test]
    fn what_needs_more_people_stays_blocked_and_says_whose_word_is_missing() {
        let mut pending = pending(ApprovalRequirement { min_approvers: 2, ..requirement() });
        approve(&mut pending, Digest::of("plan"), says(ADMIN_ID, 0), "gogs:7").unwrap();
        assert_eq!(approved_digest(&pending, "gogs:7", Timestamp(0)), None);
        let words: Vec<String> = missing(&pending, "gogs:7", Timestamp(0)).iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            ["one more person of release other than whoever caused the build (asked for by \"deploys\": it goes to production)"]
        );
        assert_eq!(approve(&mut pending, Digest::of("plan"), says(ADMIN_ID, 1), "gogs:7"), Err(ApprovalRefused::AlreadyApproved));
    }

    #[test]
    fn a_changed_subject_needs_a_new_word() {
        let mut pending = pending(requirement());
        let refused = approve(&mut pending, Digest::of("other plan"), says(ADMIN_ID, 0), "gogs:7");
        assert!(matches!(refused, Err(ApprovalRefused::Changed { .. })));
        assert!(pending.approved_by.is_empty());
    }

    #[test]
    fn a_word_lapses_and_can_be_given_again() {
        let mut pending = pending(requirement());
        approve(&mut pending, Digest::of("plan"), says(ADMIN_ID, 0), "gogs:7").unwrap();
        assert_eq!(approved_digest(&pending, "gogs:7", Timestamp(60_000)), None);
        approve(&mut pending, Digest::of("plan"), says(ADMIN_ID, 60), "gogs:7").unwrap();
        assert_eq!(pending.approved_by.len(), 1);
        assert!(approved_digest(&pending, "gogs:7", Timestamp(60_000)).is_some());
    }

    #[test]
    fn who_caused_the_build_may_not_approve_it_where_that_is_forbidden() {
        let mut pending = pending(ApprovalRequirement { groups: Vec::new(), ..requirement() });
        let refused = approve(&mut pending, Digest::of("plan"), says("gogs:7", 0), "gogs:7");
        assert_eq!(refused, Err(ApprovalRefused::OwnBuild { policy: "deploys".to_owned() }));
        approve(&mut pending, Digest::of("plan"), says("gogs:8", 0), "gogs:7").unwrap();
        assert!(missing(&pending, "gogs:7", Timestamp(0)).is_empty());
    }

    #[test]
    fn whoever_is_in_no_asked_group_is_told_whom_it_takes() {
        let refused = approve(&mut pending(requirement()), Digest::of("plan"), says("gogs:8", 0), "gogs:7");
        let Err(ApprovalRefused::NotRequired(words)) = refused else { panic!("{refused:?}") };
        assert!(words.contains("release"), "{words}");
    }
}
