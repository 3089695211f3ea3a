//! What people do to a stage: approve, decline, cancel. Each says what changes, or why it cannot be done now.

use crate::build::{Approver, CancelRequest, PendingApproval, Stage};
use crate::digest::Digest;
use crate::outcome::Reason;
use crate::status::Status;
use crate::time::Timestamp;

/// Why a person's word changes nothing. Text for that person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it is {0}; only what is blocked waits for a word")]
    NotBlocked(Status),
    #[error("{0} is not what waits for a word now: it has changed, or was decided already")]
    OtherSubject(Digest),
    #[error("{0} has approved it already; someone else's word is missing")]
    Twice(String),
    #[error("it is {0} already")]
    Over(Status),
}

impl PendingApproval {
    /// Whether enough people have said yes, for every policy that asked. Groups are not known here yet: whoever may approve
    /// counts as one approver of any group.
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        let wanted = self.requirements.iter().map(|asked| asked.min_approvers.max(1)).max().unwrap_or(1);
        u32::try_from(self.approved_by.len()).unwrap_or(u32::MAX) >= wanted
    }
}

impl Stage {
    /// The digest that people have approved in full for this subject, where they have.
    #[must_use]
    pub fn approved(&self, subject: Digest) -> Option<Digest> {
        self.approvals.iter().find(|approval| approval.subject == subject && approval.is_satisfied()).map(|found| found.subject)
    }
}

/// Adds a person's yes to exactly `subject`, or to what waits where none is named. With the last word that was missing the
/// stage may run.
///
/// # Errors
/// [`Refused`], and nothing changes.
pub fn approve(stage: &mut Stage, subject: Option<Digest>, by: Approver) -> Result<(), Refused> {
    let who = by.id.clone();
    let approval = waiting(stage, subject)?;
    if approval.approved_by.iter().any(|approver| approver.id == who) {
        return Err(Refused::Twice(who));
    }
    approval.approved_by.push(by);
    if stage.approvals.iter().all(PendingApproval::is_satisfied) {
        stage.status = Status::Pending;
        stage.reason = Some(Reason::new("approved", format!("approved by {who}, waits for its turn")));
        for step in stage.steps.iter_mut().filter(|step| step.status == Status::Blocked) {
            step.status = Status::Pending;
            step.reason = None;
        }
    }
    Ok(())
}

/// Says no: the stage ends declined, and nothing of it that has not run will.
///
/// # Errors
/// [`Refused`], and nothing changes.
pub fn decline(stage: &mut Stage, subject: Option<Digest>, by: &str, why: Option<&str>, now: Timestamp) -> Result<(), Refused> {
    waiting(stage, subject)?;
    let message = match why {
        Some(why) => format!("declined by {by}: {why}"),
        None => format!("declined by {by}"),
    };
    end(stage, Status::Declined, &Reason::new("declined-by-person", message), now);
    Ok(())
}

/// Asks for the end of a stage. One that only waits ends at once; one that runs is stopped by whoever runs it.
///
/// # Errors
/// [`Refused::Over`], and nothing changes.
pub fn cancel(stage: &mut Stage, by: &str, now: Timestamp) -> Result<(), Refused> {
    if stage.status.is_over() {
        return Err(Refused::Over(stage.status));
    }
    if stage.cancel_requested.is_none() {
        stage.cancel_requested = Some(CancelRequest { by: by.to_owned(), at: now });
    }
    let reason = Reason::new("cancelled", format!("cancelled by {by}"));
    if stage.status == Status::Running {
        stage.reason = Some(Reason::new("cancelling", format!("cancelled by {by}, its containers are being stopped")));
    } else {
        end(stage, Status::Killed, &reason, now);
    }
    Ok(())
}

fn waiting(stage: &mut Stage, subject: Option<Digest>) -> Result<&mut PendingApproval, Refused> {
    if stage.status != Status::Blocked {
        return Err(Refused::NotBlocked(stage.status));
    }
    let open = |approval: &&mut PendingApproval| match subject {
        Some(subject) => approval.subject == subject,
        None => !approval.is_satisfied(),
    };
    let status = stage.status;
    stage.approvals.iter_mut().find(open).ok_or(subject.map_or(Refused::NotBlocked(status), Refused::OtherSubject))
}

fn end(stage: &mut Stage, status: Status, reason: &Reason, now: Timestamp) {
    stage.status = status;
    stage.reason = Some(reason.clone());
    stage.finished_at = Some(now);
    for step in stage.steps.iter_mut().filter(|step| !step.status.is_over()) {
        step.status = if step.status == Status::Blocked { status } else { Status::Skipped };
        step.reason = Some(reason.clone());
        step.finished_at = step.started_at.map(|_| now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Step;
    use crate::ids::{BuildId, DecisionId, StageNumber, StepNumber};
    use crate::pipeline::Pipeline;
    use crate::policy::ApprovalRequirement;

    const NOW: Timestamp = Timestamp(1_000);

    fn asked(min_approvers: u32) -> ApprovalRequirement {
        ApprovalRequirement {
            policy: "deploy".to_owned(),
            groups: vec!["ops".to_owned()],
            min_approvers,
            forbid_author: false,
            ttl_seconds: None,
            reason: "production".to_owned(),
        }
    }

    fn stage(status: Status, min_approvers: u32) -> Stage {
        let step = |number: u16, status: Status| Step {
            number: StepNumber(number),
            name: format!("s{number}"),
            status,
            reason: None,
            round: None,
            attempt: 1,
            exits: Vec::new(),
            findings: Vec::new(),
            log_incomplete: None,
            started_at: None,
            finished_at: None,
        };
        Stage {
            build: BuildId(uuid::Uuid::nil()),
            number: StageNumber(1),
            pipeline: Pipeline {
                name: "default".to_owned(),
                when: None,
                env: std::collections::BTreeMap::default(),
                timeout: None,
                clone: crate::pipeline::CloneOptions::default(),
                steps: Vec::new(),
            },
            status,
            reason: None,
            decision: None,
            steps: vec![step(1, status), step(2, Status::Pending)],
            approvals: vec![PendingApproval {
                decision: DecisionId(uuid::Uuid::nil()),
                subject: Digest::of("plan"),
                what: "step \"deploy\"".to_owned(),
                requirements: vec![asked(min_approvers)],
                approved_by: Vec::new(),
            }],
            cancel_requested: None,
            created_at: NOW,
            started_at: None,
            finished_at: None,
        }
    }

    fn person(id: &str) -> Approver {
        Approver { id: id.to_owned(), at: NOW }
    }

    #[test]
    fn an_approval_is_for_exactly_one_digest() {
        let mut waiting = stage(Status::Blocked, 1);
        let other = Digest::of("another plan");
        assert_eq!(approve(&mut waiting, Some(other), person("admin")), Err(Refused::OtherSubject(other)));
        assert_eq!(approve(&mut waiting, Some(Digest::of("plan")), person("admin")), Ok(()));
        assert_eq!(waiting.status, Status::Pending);
        assert_eq!(waiting.approved(Digest::of("plan")), Some(Digest::of("plan")));
        assert_eq!(waiting.approved(other), None);
    }

    #[test]
    fn one_person_is_not_two() {
        let mut waiting = stage(Status::Blocked, 2);
        approve(&mut waiting, None, person("admin")).unwrap();
        assert_eq!(waiting.status, Status::Blocked, "another word is missing");
        assert_eq!(approve(&mut waiting, None, person("admin")), Err(Refused::Twice("admin".to_owned())));
    }

    #[test]
    fn declined_runs_nothing() {
        let mut waiting = stage(Status::Blocked, 1);
        decline(&mut waiting, None, "admin", Some("not on a Friday"), NOW).unwrap();
        assert_eq!(waiting.status, Status::Declined);
        assert!(waiting.steps.iter().all(|step| step.status.is_over()));
        assert_eq!(decline(&mut waiting, None, "admin", None, NOW), Err(Refused::NotBlocked(Status::Declined)));
    }

    #[test]
    fn what_waits_is_cancelled_at_once_and_what_runs_is_asked() {
        let mut waiting = stage(Status::Blocked, 1);
        cancel(&mut waiting, "admin", NOW).unwrap();
        assert_eq!(waiting.status, Status::Killed);
        let mut running = stage(Status::Running, 1);
        cancel(&mut running, "admin", NOW).unwrap();
        assert_eq!(running.status, Status::Running);
        assert_eq!(running.cancel_requested.as_ref().map(|request| request.by.as_str()), Some("admin"));
        assert_eq!(cancel(&mut stage(Status::Success, 1), "admin", NOW), Err(Refused::Over(Status::Success)));
    }
}
