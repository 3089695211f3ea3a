//! What people do to a stage: approve, decline, cancel. Each says what changes, or why it cannot be done now.

use crate::build::{Approver, CancelRequest, PendingApproval, Stage};
use crate::digest::Digest;
use crate::outcome::Reason;
use crate::policy::approval;
use crate::status::Status;
use crate::time::Timestamp;

/// Why a person's word changes nothing. Text for that person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it is {0}; only what is blocked waits for a word")]
    NotBlocked(Status),
    #[error("{0} is not what waits for a word now: it has changed, or was decided already")]
    OtherSubject(Digest),
    #[error(transparent)]
    Word(#[from] approval::Refused),
    #[error("it is {0} already")]
    Over(Status),
}

/// Adds a person's yes to exactly `subject`. With the last word that was missing the stage may run; before, its reason says whose
/// is. `why` is said to those who wait. `caused_by` is the stable id of who caused the build.
///
/// # Errors
/// [`Refused`], and nothing changes.
pub fn approve(stage: &mut Stage, subject: Digest, by: Approver, why: Option<&str>, caused_by: &str) -> Result<(), Refused> {
    let (who, now) = (by.id.clone(), by.at);
    approval::approve(waiting(stage, Some(subject))?, subject, by, caused_by)?;
    if stage.approvals.iter().any(|pending| !approval::missing(pending, caused_by, now).is_empty()) {
        stage.reason = Some(waits_for(stage, caused_by, now));
        return Ok(());
    }
    stage.status = Status::Pending;
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    stage.reason = Some(Reason::new("approved", format!("approved by {who}{why}; waits for its turn")));
    for step in stage.steps.iter_mut().filter(|step| step.status == Status::Blocked) {
        step.status = Status::Pending;
        step.reason = None;
    }
    Ok(())
}

/// Blocks a stage again that was approved and has not started, where a yes is older by `now` than the policy that asked lets it be.
pub fn block_where_lapsed(stage: &mut Stage, caused_by: &str, now: Timestamp) {
    let holds = |pending: &PendingApproval| approval::missing(pending, caused_by, now).is_empty();
    if stage.status != Status::Pending || stage.approvals.iter().all(holds) {
        return;
    }
    stage.status = Status::Blocked;
    stage.reason = Some(waits_for(stage, caused_by, now));
}

/// Why a stage is blocked: what waits for people's words, and whose are missing.
#[must_use]
pub fn waits_for(stage: &Stage, caused_by: &str, now: Timestamp) -> Reason {
    let missing = |pending: &PendingApproval| approval::missing(pending, caused_by, now);
    let open: Vec<&PendingApproval> = stage.approvals.iter().filter(|pending| !missing(pending).is_empty()).collect();
    let whats: Vec<&str> = open.iter().map(|pending| pending.what.as_str()).collect();
    let mut message = format!("waits for approval of {}", whats.join(", "));
    let mut given: Vec<&str> = stage.approvals.iter().flat_map(|pending| &pending.approved_by).map(|by| by.id.as_str()).collect();
    given.sort_unstable();
    given.dedup();
    if !given.is_empty() {
        message = format!("{message} (so far: {})", given.join(", "));
    }
    let parts = open.iter().flat_map(|pending| missing(pending)).map(|word| Reason::new("approval", format!("needs {word}")));
    parts.fold(Reason::new("approval", message), Reason::part)
}

/// Says no: the stage ends declined, and nothing of it that has not run will.
///
/// # Errors
/// [`Refused`], and nothing changes.
pub fn decline(stage: &mut Stage, subject: Option<Digest>, by: &str, why: Option<&str>, now: Timestamp) -> Result<(), Refused> {
    // Everybody's no counts, that of whoever caused the build too.
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
    let status = stage.status;
    if status != Status::Blocked {
        return Err(Refused::NotBlocked(status));
    }
    let is_meant = |pending: &&mut PendingApproval| subject.is_none_or(|subject| pending.subject == subject);
    stage.approvals.iter_mut().find(is_meant).ok_or(subject.map_or(Refused::NotBlocked(status), Refused::OtherSubject))
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
        let step = |number: u16, status: Status| Step { status, ..Step::pending(StepNumber(number), format!("s{number}")) };
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
            remarks: Vec::new(),
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

    fn plan() -> Digest {
        Digest::of("plan")
    }

    #[test]
    fn an_approval_is_for_exactly_one_digest() {
        let mut waiting = stage(Status::Blocked, 1);
        let other = Digest::of("another plan");
        assert_eq!(approve(&mut waiting, other, person("admin"), None, "gogs:1"), Err(Refused::OtherSubject(other)));
        assert_eq!(approve(&mut waiting, plan(), person("admin"), Some("seen"), "gogs:1"), Ok(()));
        assert_eq!(waiting.status, Status::Pending);
        assert_eq!(waiting.reason.unwrap().message, "approved by admin: seen; waits for its turn");
    }

    #[test]
    fn one_person_is_not_two_and_the_stage_says_whose_word_is_missing() {
        let mut waiting = stage(Status::Blocked, 2);
        assert_eq!(
            waits_for(&waiting, "gogs:1", NOW).to_string(),
            "waits for approval of step \"deploy\": needs 2 more people of ops (asked for by \"deploy\": production)"
        );
        approve(&mut waiting, plan(), person("admin"), None, "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Blocked, "another word is missing");
        assert_eq!(
            waiting.reason.as_ref().unwrap().to_string(),
            "waits for approval of step \"deploy\" (so far: admin): needs one more person of ops (asked for by \"deploy\": production)"
        );
        let again = approve(&mut waiting, plan(), person("admin"), None, "gogs:1");
        assert_eq!(again, Err(Refused::Word(approval::Refused::Again)));
    }

    #[test]
    fn a_yes_that_grew_too_old_before_the_start_is_asked_for_again() {
        let mut waiting = stage(Status::Blocked, 1);
        waiting.approvals[0].requirements[0].ttl_seconds = Some(60);
        approve(&mut waiting, plan(), person("admin"), None, "gogs:1").unwrap();
        block_where_lapsed(&mut waiting, "gogs:1", Timestamp(NOW.0 + 59_000));
        assert_eq!(waiting.status, Status::Pending);
        block_where_lapsed(&mut waiting, "gogs:1", Timestamp(NOW.0 + 61_000));
        assert_eq!(waiting.status, Status::Blocked);
        assert!(waiting.reason.as_ref().unwrap().message.starts_with("waits for approval of step \"deploy\""));
        let later = Approver { id: "admin".to_owned(), at: Timestamp(NOW.0 + 62_000) };
        approve(&mut waiting, plan(), later, None, "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Pending);
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
