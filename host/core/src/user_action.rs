//! The actions of a user on a stage: approve, decline and cancel. Each action changes the stage, or reports why it is refused.

use crate::build::{CancelRequest, Round, Stage, Step};
use crate::digest::Digest;
use crate::ids::{DecisionId, StepNumber};
use crate::policy::approval;
use crate::policy::approval::{Approver, PendingApproval};
use crate::reason::Reason;
use crate::reason_code::ReasonCode;
use crate::status::Status;
use crate::time::Timestamp;

/// Why an action of a user is refused. The text is shown to that user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionRefused {
    #[error("the stage is {0}; only a blocked stage can be approved or declined")]
    NotBlocked(Status),
    #[error("{0} is not waiting for approval: the plan has changed, or the approval was already decided")]
    OtherSubject(Digest),
    #[error(transparent)]
    Approval(#[from] approval::ApprovalRefused),
    #[error("the stage has already finished: {0}")]
    AlreadyFinished(Status),
}

/// Adds a person's approval of exactly `subject`. When the last missing approval arrives, the stage may run or its step may
/// continue; until then the stage's reason lists the missing ones. The person's reason is kept with the approval and becomes part
/// of the stage's reason. `caused_by` is the stable id of the person who caused the build.
///
/// # Errors
/// [`ActionRefused`]; the stage is unchanged.
pub fn approve(stage: &mut Stage, subject: Digest, by: Approver, caused_by: &str) -> Result<(), ActionRefused> {
    let (answer, now) = (answer_text("approved", &by), by.at);
    approval::approve(find_open_approval(stage, Some(subject))?, subject, by, caused_by)?;
    let reason = Reason::new(ReasonCode::Approved, format!("{answer}; queued"));
    apply_decision(stage, &reason, caused_by, now);
    Ok(())
}

/// Blocks a queued stage again if one of its approvals has expired by `now`, according to the policy that required it.
pub fn block_if_expired(stage: &mut Stage, caused_by: &str, now: Timestamp) {
    if stage.status == Status::Pending && !may_proceed(stage, caused_by, now) {
        stage.status = Status::Blocked;
        update_reasons(stage, caused_by, now);
    }
}

/// Resumes the steps whose next plan is decided. A step whose plan was declined ends with that reason.
pub fn resume(stage: &mut Stage, caused_by: &str, now: Timestamp) {
    for number in decided_steps(stage, caused_by, now) {
        if let Some(step) = stage.step_mut(number) {
            step.status = Status::Running;
            step.reason = None;
        }
    }
    update_reasons(stage, caused_by, now);
}

/// Whether a step of the stage can be [resumed](resume).
#[must_use]
pub fn can_resume(stage: &Stage, caused_by: &str, now: Timestamp) -> bool {
    !decided_steps(stage, caused_by, now).is_empty()
}

/// Why a stage has its status: its reason, or for a running stage the approvals that its steps wait for.
#[must_use]
pub fn status_reason(stage: &Stage, caused_by: &str, now: Timestamp) -> Option<Reason> {
    let waits = || (stage.display_status() == Status::Blocked).then(|| blocked_reason(stage, caused_by, now));
    stage.reason.clone().or_else(waits)
}

/// Why a stage is blocked: the subjects that wait for approval, and the missing approvals.
#[must_use]
pub fn blocked_reason(stage: &Stage, caused_by: &str, now: Timestamp) -> Reason {
    let open: Vec<&PendingApproval> = stage.open_approvals().collect();
    approval_reason(&open, caused_by, now)
}

/// The reason of a wait for approval: the subjects among `approvals` that are not fully approved, and the missing approvals.
#[must_use]
pub fn approval_reason(approvals: &[&PendingApproval], caused_by: &str, now: Timestamp) -> Reason {
    let missing = |pending: &PendingApproval| approval::missing(pending, caused_by, now);
    let open: Vec<&&PendingApproval> = approvals.iter().filter(|pending| !missing(pending).is_empty()).collect();
    let descriptions: Vec<&str> = open.iter().map(|pending| pending.description.as_str()).collect();
    let mut message = format!("waiting for approval of {}", descriptions.join(", "));
    let mut given: Vec<&str> = approvals.iter().flat_map(|pending| &pending.approved_by).map(|by| by.id.as_str()).collect();
    given.sort_unstable();
    given.dedup();
    if !given.is_empty() {
        message = format!("{message} (approved so far by {})", given.join(", "));
    }
    let mut parts: Vec<String> = Vec::new();
    for part in open.iter().flat_map(|pending| missing(pending)).map(|word| format!("needs {word}")) {
        // A policy that asks for the pipeline and for a step asks with the same words.
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let parts = parts.into_iter().map(|part| Reason::new(ReasonCode::WaitingForApproval, part));
    parts.fold(Reason::new(ReasonCode::WaitingForApproval, message), Reason::part)
}

/// `approved by admin: looks fine`.
fn answer_text(answer: &str, by: &Approver) -> String {
    let reason = by.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{answer} by {}{reason}", by.id)
}

/// Declines a stage or a plan. A stage that has not started ends as declined, and none of its steps runs. In a stage that has
/// started, the steps whose next plan waits end as declined, or only the step of `subject`; the other steps follow the
/// pipeline's rules for failures.
///
/// # Errors
/// [`ActionRefused`]; the stage is unchanged.
pub fn decline(stage: &mut Stage, subject: Option<Digest>, by: &Approver, caused_by: &str) -> Result<(), ActionRefused> {
    // Anyone may decline, including the person who caused the build.
    let meant = find_open_approval(stage, subject)?.subject;
    let reason = Reason::new(ReasonCode::DeclinedByPerson, answer_text("declined", by));
    if stage.started_at.is_none() {
        finish(stage, Status::Declined, &reason, by.at);
        return Ok(());
    }
    let open: Vec<DecisionId> = stage.open_approvals().map(|pending| pending.decision).collect();
    let is_meant =
        |pending: &&mut PendingApproval| open.contains(&pending.decision) && (subject.is_none() || pending.subject == meant);
    for pending in stage.approvals.iter_mut().filter(is_meant) {
        pending.declined = Some(reason.clone());
    }
    apply_decision(stage, &reason, caused_by, by.at);
    Ok(())
}

/// Cancels a stage. A waiting stage ends at once; a running stage is stopped by the worker that runs it.
///
/// # Errors
/// [`ActionRefused::AlreadyFinished`]; the stage is unchanged.
pub fn cancel(stage: &mut Stage, by: &str, now: Timestamp) -> Result<(), ActionRefused> {
    if stage.status.is_over() {
        return Err(ActionRefused::AlreadyFinished(stage.status));
    }
    request_cancel(stage, by, now);
    let reason = Reason::new(ReasonCode::Cancelled, format!("cancelled by {by}"));
    if stage.status == Status::Running {
        stage.reason = Some(Reason::new(ReasonCode::Cancelling, format!("cancelled by {by}; the containers are being stopped")));
    } else {
        finish(stage, Status::Killed, &reason, now);
    }
    Ok(())
}

/// Ends a stage that waits, because nobody needs it any more. A stage that has finished stays as it is.
pub fn skip(stage: &mut Stage, reason: &Reason, now: Timestamp) {
    if !stage.status.is_over() {
        finish(stage, Status::Skipped, reason, now);
    }
}

/// Records the request to cancel a stage that is not over. From then on nothing of it starts.
pub fn request_cancel(stage: &mut Stage, by: &str, now: Timestamp) {
    if !stage.status.is_over() && stage.cancel_requested.is_none() {
        stage.cancel_requested = Some(CancelRequest { by: by.to_owned(), at: now });
    }
}

fn find_open_approval(stage: &mut Stage, subject: Option<Digest>) -> Result<&mut PendingApproval, ActionRefused> {
    let status = stage.status;
    if !stage.accepts_approval() {
        return Err(ActionRefused::NotBlocked(status));
    }
    let open: Vec<DecisionId> = stage.open_approvals().map(|pending| pending.decision).collect();
    let is_meant = |pending: &&mut PendingApproval| {
        open.contains(&pending.decision) && subject.is_none_or(|subject| pending.subject == subject)
    };
    stage
        .approvals
        .iter_mut()
        .find(is_meant)
        .ok_or(subject.map_or(ActionRefused::NotBlocked(status), ActionRefused::OtherSubject))
}

/// Applies a decision of a person: queues the stage if nothing is missing, and updates the reasons of everything that still
/// waits.
fn apply_decision(stage: &mut Stage, reason: &Reason, caused_by: &str, now: Timestamp) {
    if stage.status == Status::Blocked && may_proceed(stage, caused_by, now) {
        stage.status = Status::Pending;
        stage.reason = Some(reason.clone());
    }
    update_reasons(stage, caused_by, now);
}

/// Whether the stage can proceed: a stage that has not started needs all approvals, a started one needs a step that can resume.
fn may_proceed(stage: &Stage, caused_by: &str, now: Timestamp) -> bool {
    if stage.started_at.is_none() {
        return stage.open_approvals().all(|pending| approval::missing(pending, caused_by, now).is_empty());
    }
    stage.blocked_steps().next().is_none() || can_resume(stage, caused_by, now)
}

/// Steps that no longer wait: their next plan has all required approvals, was declined, or no longer needs an approval.
fn decided_steps(stage: &Stage, caused_by: &str, now: Timestamp) -> Vec<StepNumber> {
    let waits = |round: &Round| {
        let pending = stage.open_approvals().find(|pending| pending.decision == round.decision);
        pending.is_some_and(|pending| !approval::missing(pending, caused_by, now).is_empty())
    };
    stage.blocked_steps().filter(|(_, round)| !waits(round)).map(|(step, _)| step.number).collect()
}

/// Updates the reasons why the stage and its steps wait.
pub fn update_reasons(stage: &mut Stage, caused_by: &str, now: Timestamp) {
    if stage.status == Status::Blocked {
        stage.reason = Some(blocked_reason(stage, caused_by, now));
    }
    let answered = decided_steps(stage, caused_by, now);
    let reason = |step: &Step, round: &Round| match stage.open_approvals().find(|pending| pending.decision == round.decision) {
        Some(pending) if !answered.contains(&step.number) => approval_reason(&[pending], caused_by, now),
        _ => Reason::new(ReasonCode::ApprovalDecided, "the step's next plan was decided; the stage waits for capacity"),
    };
    let reasons: Vec<_> = stage.blocked_steps().map(|(step, round)| (step.number, reason(step, round))).collect();
    for (number, reason) in reasons {
        if let Some(step) = stage.step_mut(number) {
            step.reason = Some(reason);
        }
    }
}

fn finish(stage: &mut Stage, status: Status, reason: &Reason, now: Timestamp) {
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
    use crate::ids::{BuildId, StageId, StageNumber};
    use crate::pipeline::Pipeline;
    use crate::plan::StepPlan;
    use crate::policy::ApprovalRequirement;

    const NOW: Timestamp = Timestamp(1_000);

    fn requirement(min_approvers: u32) -> ApprovalRequirement {
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
        let pipeline = Pipeline { name: "default".to_owned(), ..Pipeline::default() };
        let steps = [1, 2].map(|number| Step::pending(StepNumber(number), format!("s{number}")));
        let id = StageId { build: BuildId(uuid::Uuid::nil()), stage: StageNumber(1) };
        let mut stage = Stage::pending(id, pipeline, None, steps.to_vec(), NOW);
        stage.status = status;
        stage.approvals.push(question(0, "step \"deploy\"", plan(), min_approvers));
        stage
    }

    fn question(number: u128, what: &str, subject: Digest, min_approvers: u32) -> PendingApproval {
        PendingApproval {
            decision: DecisionId(uuid::Uuid::from_u128(number)),
            subject,
            description: what.to_owned(),
            requirements: vec![requirement(min_approvers)],
            approved_by: Vec::new(),
            declined: None,
        }
    }

    /// A stage with two started steps whose next plans wait for approval. The approval from before the start has expired.
    fn begun(status: Status) -> Stage {
        let mut stage = stage(status, 1);
        stage.started_at = Some(NOW);
        stage.approvals[0].requirements[0].ttl_seconds = Some(0);
        for (index, step) in stage.steps.iter_mut().enumerate() {
            let number = index as u128 + 1;
            step.status = Status::Blocked;
            step.started_at = Some(NOW);
            step.round =
                Some(Round { number: 1, ..Round::first(StepPlan::default(), DecisionId(uuid::Uuid::from_u128(number))) });
            stage.approvals.push(question(number, &format!("plan {number}"), Digest::of(format!("plan {number}")), 1));
        }
        stage
    }

    fn person(id: &str) -> Approver {
        Approver { id: id.to_owned(), at: NOW, reason: None }
    }

    /// The administrator, with a reason.
    fn person_because(reason: &str) -> Approver {
        Approver { reason: Some(reason.to_owned()), ..person("admin") }
    }

    fn plan() -> Digest {
        Digest::of("plan")
    }

    #[test]
    fn an_approval_is_bound_to_one_digest() {
        let mut waiting = stage(Status::Blocked, 1);
        let other = Digest::of("another plan");
        assert_eq!(approve(&mut waiting, other, person("admin"), "gogs:1"), Err(ActionRefused::OtherSubject(other)));
        assert_eq!(approve(&mut waiting, plan(), person_because("seen"), "gogs:1"), Ok(()));
        assert_eq!(waiting.status, Status::Pending);
        assert_eq!(waiting.reason.unwrap().message, "approved by admin: seen; queued");
        assert_eq!(waiting.approvals[0].approved_by, [person_because("seen")], "who approved, when and why is kept");
    }

    #[test]
    fn equal_wants_of_several_subjects_are_listed_once() {
        let mut waiting = stage(Status::Blocked, 1);
        waiting.approvals.push(question(1, "the pipeline", Digest::of("pipeline"), 1));
        waiting.approvals.push(question(2, "step \"publish\"", Digest::of("publish"), 2));
        let reason = blocked_reason(&waiting, "gogs:1", NOW);
        assert_eq!(reason.message, "waiting for approval of step \"deploy\", the pipeline, step \"publish\"");
        let parts: Vec<&str> = reason.parts.iter().map(|part| part.message.as_str()).collect();
        assert_eq!(
            parts,
            [
                "needs 1 more person of ops (required by policy \"deploy\": production)",
                "needs 2 more people of ops (required by policy \"deploy\": production)"
            ]
        );
    }

    #[test]
    fn one_person_counts_once_and_the_stage_lists_missing_approvals() {
        let mut waiting = stage(Status::Blocked, 2);
        assert_eq!(
            blocked_reason(&waiting, "gogs:1", NOW).to_string(),
            "waiting for approval of step \"deploy\": needs 2 more people of ops (required by policy \"deploy\": production)"
        );
        approve(&mut waiting, plan(), person("admin"), "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Blocked, "another approval is missing");
        assert_eq!(
            waiting.reason.as_ref().unwrap().to_string(),
            "waiting for approval of step \"deploy\" (approved so far by admin): \
             needs 1 more person of ops (required by policy \"deploy\": production)"
        );
        let again = approve(&mut waiting, plan(), person("admin"), "gogs:1");
        assert_eq!(again, Err(ActionRefused::Approval(approval::ApprovalRefused::AlreadyApproved)));
    }

    #[test]
    fn an_approval_that_expires_before_the_start_is_required_again() {
        let mut waiting = stage(Status::Blocked, 1);
        waiting.approvals[0].requirements[0].ttl_seconds = Some(60);
        approve(&mut waiting, plan(), person("admin"), "gogs:1").unwrap();
        block_if_expired(&mut waiting, "gogs:1", Timestamp(NOW.0 + 59_000));
        assert_eq!(waiting.status, Status::Pending);
        block_if_expired(&mut waiting, "gogs:1", Timestamp(NOW.0 + 61_000));
        assert_eq!(waiting.status, Status::Blocked);
        assert!(waiting.reason.as_ref().unwrap().message.starts_with("waiting for approval of step \"deploy\""));
        let later = Approver { at: Timestamp(NOW.0 + 62_000), ..person("admin") };
        approve(&mut waiting, plan(), later, "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Pending);
    }

    #[test]
    fn a_declined_stage_runs_no_step() {
        let mut waiting = stage(Status::Blocked, 1);
        decline(&mut waiting, None, &person_because("not on a Friday"), "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Declined);
        assert!(waiting.steps.iter().all(|step| step.status.is_over()));
        assert_eq!(decline(&mut waiting, None, &person("admin"), "gogs:1"), Err(ActionRefused::NotBlocked(Status::Declined)));
    }

    #[test]
    fn a_waiting_stage_is_cancelled_at_once_and_a_running_stage_is_stopped() {
        let mut waiting = stage(Status::Blocked, 1);
        cancel(&mut waiting, "admin", NOW).unwrap();
        assert_eq!(waiting.status, Status::Killed);
        let mut running = stage(Status::Running, 1);
        cancel(&mut running, "admin", NOW).unwrap();
        assert_eq!(running.status, Status::Running);
        assert_eq!(running.cancel_requested.as_ref().map(|request| request.by.as_str()), Some("admin"));
        assert_eq!(cancel(&mut stage(Status::Success, 1), "admin", NOW), Err(ActionRefused::AlreadyFinished(Status::Success)));
    }

    #[test]
    fn a_step_resumes_when_its_own_plan_is_approved() {
        let mut waiting = begun(Status::Blocked);
        approve(&mut waiting, Digest::of("plan 2"), person_because("seen"), "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Pending, "one of its steps can resume");
        block_if_expired(&mut waiting, "gogs:1", NOW);
        assert_eq!(waiting.status, Status::Pending, "an expired approval of a started step is not required again");
        resume(&mut waiting, "gogs:1", NOW);
        assert_eq!([waiting.steps[0].status, waiting.steps[1].status], [Status::Blocked, Status::Running]);
        assert_eq!(waiting.steps[1].reason, None, "a running step with a reason is one that is being stopped");
        let again = approve(&mut waiting, Digest::of("plan 2"), person("admin"), "gogs:1");
        assert_eq!(again, Err(ActionRefused::OtherSubject(Digest::of("plan 2"))));
        approve(&mut waiting, Digest::of("plan 1"), person("admin"), "gogs:1").unwrap();
        resume(&mut waiting, "gogs:1", NOW);
        assert_eq!(waiting.steps[0].status, Status::Running, "a plan can be approved while the stage is queued");
    }

    #[test]
    fn a_step_of_a_running_stage_can_be_approved() {
        let mut running = begun(Status::Running);
        assert_eq!(running.display_status(), Status::Blocked);
        approve(&mut running, Digest::of("plan 1"), person("admin"), "gogs:1").unwrap();
        assert_eq!(running.status, Status::Running);
        assert!(running.steps[1].reason.as_ref().unwrap().message.starts_with("waiting for approval of plan 2"));
        assert!(can_resume(&running, "gogs:1", NOW));
        resume(&mut running, "gogs:1", NOW);
        assert!(!can_resume(&running, "gogs:1", NOW));
        assert_eq!(approve(&mut running, plan(), person("admin"), "gogs:1"), Err(ActionRefused::OtherSubject(plan())));
    }

    #[test]
    fn declining_the_next_plan_of_a_step_ends_that_step_and_not_the_stage() {
        let mut waiting = begun(Status::Blocked);
        decline(&mut waiting, Some(Digest::of("plan 1")), &person_because("no"), "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Pending);
        assert_eq!(waiting.approvals[1].declined.as_ref().unwrap().message, "declined by admin: no");
        resume(&mut waiting, "gogs:1", NOW);
        assert_eq!([waiting.steps[0].status, waiting.steps[1].status], [Status::Running, Status::Blocked]);

        let mut both = begun(Status::Blocked);
        decline(&mut both, None, &person("admin"), "gogs:1").unwrap();
        resume(&mut both, "gogs:1", NOW);
        assert!(both.steps.iter().all(|step| step.status == Status::Running), "each step resumes and ends with its own reason");
    }

    #[test]
    fn waiting_for_an_approval_does_not_count_as_run_time() {
        let mut waiting = begun(Status::Blocked);
        waiting.approval_wait_ms = 100;
        waiting.awaiting_approval_since = Some(Timestamp(NOW.0 + 500));
        assert_eq!(waiting.run_duration(Timestamp(NOW.0 + 9_000)), std::time::Duration::from_millis(400));
        waiting.awaiting_approval_since = None;
        assert_eq!(waiting.run_duration(Timestamp(NOW.0 + 9_000)), std::time::Duration::from_millis(8_900));
    }
}
