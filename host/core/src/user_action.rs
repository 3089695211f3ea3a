//! What people do to a stage: approve, decline, cancel. Each says what changes, or why it cannot be done now.

use crate::build::{CancelRequest, Round, Stage, Step};
use crate::digest::Digest;
use crate::ids::{DecisionId, StepNumber};
use crate::policy::approval;
use crate::policy::approval::{Approver, PendingApproval};
use crate::reason::Reason;
use crate::status::Status;
use crate::time::Timestamp;

/// The code of the reason of a step whose next plan waits for nobody any more.
pub const APPROVAL_DECIDED: &str = "answered";

/// Why a person's word changes nothing. Text for that person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionRefused {
    #[error("it is {0}; only what is blocked waits for a word")]
    NotBlocked(Status),
    #[error("{0} is not what waits for a word now: it has changed, or was decided already")]
    OtherSubject(Digest),
    #[error(transparent)]
    Approval(#[from] approval::ApprovalRefused),
    #[error("it is {0} already")]
    AlreadyFinished(Status),
}

/// Adds a person's yes to exactly `subject`. With the last word that was missing the stage may run, or its step go on; before, its reason
/// says whose is. `why` is said to those who wait. `caused_by` is the stable id of who caused the build.
///
/// # Errors
/// [`ActionRefused`], and nothing changes.
pub fn approve(
    stage: &mut Stage,
    subject: Digest,
    by: Approver,
    why: Option<&str>,
    caused_by: &str,
) -> Result<(), ActionRefused> {
    let (who, now) = (by.id.clone(), by.at);
    approval::approve(find_open_approval(stage, Some(subject))?, subject, by, caused_by)?;
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    let said = Reason::new("approved", format!("approved by {who}{why}; waits for its turn"));
    apply_decision(stage, &said, caused_by, now);
    Ok(())
}

/// Blocks a stage again whose turn would have come, where a yes is older by `now` than the policy that asked lets it be.
pub fn block_if_expired(stage: &mut Stage, caused_by: &str, now: Timestamp) {
    if stage.status == Status::Pending && !may_proceed(stage, caused_by, now) {
        stage.status = Status::Blocked;
        update_reasons(stage, caused_by, now);
    }
}

/// Lets the steps run on whose next plan has its answer: those that have a no end with it.
pub fn resume(stage: &mut Stage, caused_by: &str, now: Timestamp) {
    for number in decided_steps(stage, caused_by, now) {
        if let Some(step) = stage.step_mut(number) {
            step.status = Status::Running;
            step.reason = None;
        }
    }
    update_reasons(stage, caused_by, now);
}

/// Whether a step of it can be [resumed](resume).
#[must_use]
pub fn can_resume(stage: &Stage, caused_by: &str, now: Timestamp) -> bool {
    !decided_steps(stage, caused_by, now).is_empty()
}

/// Why a stage has its status: its reason, or of one that runs, for whom a step of it waits.
#[must_use]
pub fn status_reason(stage: &Stage, caused_by: &str, now: Timestamp) -> Option<Reason> {
    let waits = || (stage.display_status() == Status::Blocked).then(|| blocked_reason(stage, caused_by, now));
    stage.reason.clone().or_else(waits)
}

/// Why a stage is blocked: what waits for people's words, and whose are missing.
#[must_use]
pub fn blocked_reason(stage: &Stage, caused_by: &str, now: Timestamp) -> Reason {
    let asked: Vec<&PendingApproval> = stage.open_approvals().collect();
    approval_reason(&asked, caused_by, now)
}

/// Why something waits for people's words: what of `asked` has not all of them, and whose are missing.
#[must_use]
pub fn approval_reason(asked: &[&PendingApproval], caused_by: &str, now: Timestamp) -> Reason {
    let missing = |pending: &PendingApproval| approval::missing(pending, caused_by, now);
    let open: Vec<&&PendingApproval> = asked.iter().filter(|pending| !missing(pending).is_empty()).collect();
    let whats: Vec<&str> = open.iter().map(|pending| pending.description.as_str()).collect();
    let mut message = format!("waits for approval of {}", whats.join(", "));
    let mut given: Vec<&str> = asked.iter().flat_map(|pending| &pending.approved_by).map(|by| by.id.as_str()).collect();
    given.sort_unstable();
    given.dedup();
    if !given.is_empty() {
        message = format!("{message} (so far: {})", given.join(", "));
    }
    let parts = open.iter().flat_map(|pending| missing(pending)).map(|word| Reason::new("approval", format!("needs {word}")));
    parts.fold(Reason::new("approval", message), Reason::part)
}

/// Says no. A stage that has not begun ends declined, and nothing of it runs. In one that has, the steps end declined whose next plan
/// waits, or the one that `subject` says, and the others go by what the file says of failures.
///
/// # Errors
/// [`ActionRefused`], and nothing changes.
pub fn decline(
    stage: &mut Stage,
    subject: Option<Digest>,
    by: Approver,
    why: Option<&str>,
    caused_by: &str,
) -> Result<(), ActionRefused> {
    // Everybody's no counts, that of whoever caused the build too.
    let meant = find_open_approval(stage, subject)?.subject;
    let message = match why {
        Some(why) => format!("declined by {}: {why}", by.id),
        None => format!("declined by {}", by.id),
    };
    let said = Reason::new("declined-by-person", message);
    if stage.started_at.is_none() {
        finish(stage, Status::Declined, &said, by.at);
        return Ok(());
    }
    let asked: Vec<DecisionId> = stage.open_approvals().map(|pending| pending.decision).collect();
    let is_meant =
        |pending: &&mut PendingApproval| asked.contains(&pending.decision) && (subject.is_none() || pending.subject == meant);
    for pending in stage.approvals.iter_mut().filter(is_meant) {
        pending.declined = Some(said.clone());
    }
    apply_decision(stage, &said, caused_by, by.at);
    Ok(())
}

/// Asks for the end of a stage. One that only waits ends at once; one that runs is stopped by whoever runs it.
///
/// # Errors
/// [`ActionRefused::AlreadyFinished`], and nothing changes.
pub fn cancel(stage: &mut Stage, by: &str, now: Timestamp) -> Result<(), ActionRefused> {
    if stage.status.is_over() {
        return Err(ActionRefused::AlreadyFinished(stage.status));
    }
    if stage.cancel_requested.is_none() {
        stage.cancel_requested = Some(CancelRequest { by: by.to_owned(), at: now });
    }
    let reason = Reason::new("cancelled", format!("cancelled by {by}"));
    if stage.status == Status::Running {
        stage.reason = Some(Reason::new("cancelling", format!("cancelled by {by}, its containers are being stopped")));
    } else {
        finish(stage, Status::Killed, &reason, now);
    }
    Ok(())
}

fn find_open_approval(stage: &mut Stage, subject: Option<Digest>) -> Result<&mut PendingApproval, ActionRefused> {
    let status = stage.status;
    if !stage.accepts_approval() {
        return Err(ActionRefused::NotBlocked(status));
    }
    let asked: Vec<DecisionId> = stage.open_approvals().map(|pending| pending.decision).collect();
    let is_meant = |pending: &&mut PendingApproval| {
        asked.contains(&pending.decision) && subject.is_none_or(|subject| pending.subject == subject)
    };
    stage
        .approvals
        .iter_mut()
        .find(is_meant)
        .ok_or(subject.map_or(ActionRefused::NotBlocked(status), ActionRefused::OtherSubject))
}

/// After a word: the stage takes its turn where that is enough, and whatever still waits says for whom.
fn apply_decision(stage: &mut Stage, said: &Reason, caused_by: &str, now: Timestamp) {
    if stage.status == Status::Blocked && may_proceed(stage, caused_by, now) {
        stage.status = Status::Pending;
        stage.reason = Some(said.clone());
    }
    update_reasons(stage, caused_by, now);
}

/// Whether something of the stage could run: all of one that has not begun, a step of one that has.
fn may_proceed(stage: &Stage, caused_by: &str, now: Timestamp) -> bool {
    if stage.started_at.is_none() {
        return stage.open_approvals().all(|pending| approval::missing(pending, caused_by, now).is_empty());
    }
    stage.blocked_steps().next().is_none() || can_resume(stage, caused_by, now)
}

/// Steps that wait no more: their next plan has every word that was asked for, or a no, or policies ask nothing of it by now.
fn decided_steps(stage: &Stage, caused_by: &str, now: Timestamp) -> Vec<StepNumber> {
    let waits = |round: &Round| {
        let pending = stage.open_approvals().find(|pending| pending.decision == round.decision);
        pending.is_some_and(|pending| !approval::missing(pending, caused_by, now).is_empty())
    };
    stage.blocked_steps().filter(|(_, round)| !waits(round)).map(|(step, _)| step.number).collect()
}

/// Writes down why the stage and its steps wait, as it is now.
pub fn update_reasons(stage: &mut Stage, caused_by: &str, now: Timestamp) {
    if stage.status == Status::Blocked {
        stage.reason = Some(blocked_reason(stage, caused_by, now));
    }
    let answered = decided_steps(stage, caused_by, now);
    let reason = |step: &Step, round: &Round| match stage.open_approvals().find(|pending| pending.decision == round.decision) {
        Some(pending) if !answered.contains(&step.number) => approval_reason(&[pending], caused_by, now),
        _ => Reason::new(APPROVAL_DECIDED, "its next plan has its answer; waits for its turn"),
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
        let pipeline = Pipeline {
            name: "default".to_owned(),
            when: None,
            env: std::collections::BTreeMap::default(),
            timeout: None,
            clone: crate::pipeline::CloneOptions::default(),
            steps: Vec::new(),
        };
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
            requirements: vec![asked(min_approvers)],
            approved_by: Vec::new(),
            declined: None,
        }
    }

    /// One whose two steps have begun, each with a next plan that waits; the question about the first one's lies long ago.
    fn begun(status: Status) -> Stage {
        let mut stage = stage(status, 1);
        stage.started_at = Some(NOW);
        stage.approvals[0].requirements[0].ttl_seconds = Some(0);
        for (place, step) in stage.steps.iter_mut().enumerate() {
            let number = place as u128 + 1;
            step.status = Status::Blocked;
            step.started_at = Some(NOW);
            step.round =
                Some(Round { number: 1, ..Round::first(StepPlan::default(), DecisionId(uuid::Uuid::from_u128(number))) });
            stage.approvals.push(question(number, &format!("plan {number}"), Digest::of(format!("plan {number}")), 1));
        }
        stage
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
        assert_eq!(approve(&mut waiting, other, person("admin"), None, "gogs:1"), Err(ActionRefused::OtherSubject(other)));
        assert_eq!(approve(&mut waiting, plan(), person("admin"), Some("seen"), "gogs:1"), Ok(()));
        assert_eq!(waiting.status, Status::Pending);
        assert_eq!(waiting.reason.unwrap().message, "approved by admin: seen; waits for its turn");
    }

    #[test]
    fn one_person_is_not_two_and_the_stage_says_whose_word_is_missing() {
        let mut waiting = stage(Status::Blocked, 2);
        assert_eq!(
            blocked_reason(&waiting, "gogs:1", NOW).to_string(),
            "waits for approval of step \"deploy\": needs 2 more people of ops (asked for by \"deploy\": production)"
        );
        approve(&mut waiting, plan(), person("admin"), None, "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Blocked, "another word is missing");
        assert_eq!(
            waiting.reason.as_ref().unwrap().to_string(),
            "waits for approval of step \"deploy\" (so far: admin): needs one more person of ops (asked for by \"deploy\": production)"
        );
        let again = approve(&mut waiting, plan(), person("admin"), None, "gogs:1");
        assert_eq!(again, Err(ActionRefused::Approval(approval::ApprovalRefused::AlreadyApproved)));
    }

    #[test]
    fn a_yes_that_grew_too_old_before_the_start_is_asked_for_again() {
        let mut waiting = stage(Status::Blocked, 1);
        waiting.approvals[0].requirements[0].ttl_seconds = Some(60);
        approve(&mut waiting, plan(), person("admin"), None, "gogs:1").unwrap();
        block_if_expired(&mut waiting, "gogs:1", Timestamp(NOW.0 + 59_000));
        assert_eq!(waiting.status, Status::Pending);
        block_if_expired(&mut waiting, "gogs:1", Timestamp(NOW.0 + 61_000));
        assert_eq!(waiting.status, Status::Blocked);
        assert!(waiting.reason.as_ref().unwrap().message.starts_with("waits for approval of step \"deploy\""));
        let later = Approver { id: "admin".to_owned(), at: Timestamp(NOW.0 + 62_000) };
        approve(&mut waiting, plan(), later, None, "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Pending);
    }

    #[test]
    fn declined_runs_nothing() {
        let mut waiting = stage(Status::Blocked, 1);
        decline(&mut waiting, None, person("admin"), Some("not on a Friday"), "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Declined);
        assert!(waiting.steps.iter().all(|step| step.status.is_over()));
        assert_eq!(
            decline(&mut waiting, None, person("admin"), None, "gogs:1"),
            Err(ActionRefused::NotBlocked(Status::Declined))
        );
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
        assert_eq!(cancel(&mut stage(Status::Success, 1), "admin", NOW), Err(ActionRefused::AlreadyFinished(Status::Success)));
    }

    #[test]
    fn a_step_goes_on_with_the_answer_to_its_own_plan() {
        let mut waiting = begun(Status::Blocked);
        approve(&mut waiting, Digest::of("plan 2"), person("admin"), Some("seen"), "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Pending, "a step of it can go on");
        block_if_expired(&mut waiting, "gogs:1", NOW);
        assert_eq!(waiting.status, Status::Pending, "what has run already is not asked about again");
        resume(&mut waiting, "gogs:1", NOW);
        assert_eq!([waiting.steps[0].status, waiting.steps[1].status], [Status::Blocked, Status::Running]);
        assert_eq!(waiting.steps[1].reason, None, "one that runs with a reason is one that is to stop");
        let again = approve(&mut waiting, Digest::of("plan 2"), person("admin"), None, "gogs:1");
        assert_eq!(again, Err(ActionRefused::OtherSubject(Digest::of("plan 2"))));
        approve(&mut waiting, Digest::of("plan 1"), person("admin"), None, "gogs:1").unwrap();
        resume(&mut waiting, "gogs:1", NOW);
        assert_eq!(waiting.steps[0].status, Status::Running, "one may answer while the stage waits for its turn");
    }

    #[test]
    fn a_step_of_a_stage_that_runs_can_be_answered_too() {
        let mut running = begun(Status::Running);
        assert_eq!(running.display_status(), Status::Blocked);
        approve(&mut running, Digest::of("plan 1"), person("admin"), None, "gogs:1").unwrap();
        assert_eq!(running.status, Status::Running);
        assert!(running.steps[1].reason.as_ref().unwrap().message.starts_with("waits for approval of plan 2"));
        assert!(can_resume(&running, "gogs:1", NOW));
        resume(&mut running, "gogs:1", NOW);
        assert!(!can_resume(&running, "gogs:1", NOW));
        assert_eq!(approve(&mut running, plan(), person("admin"), None, "gogs:1"), Err(ActionRefused::OtherSubject(plan())));
    }

    #[test]
    fn a_no_to_the_next_plan_of_a_step_ends_that_step_and_not_the_stage() {
        let mut waiting = begun(Status::Blocked);
        decline(&mut waiting, Some(Digest::of("plan 1")), person("admin"), Some("no"), "gogs:1").unwrap();
        assert_eq!(waiting.status, Status::Pending);
        assert_eq!(waiting.approvals[1].declined.as_ref().unwrap().message, "declined by admin: no");
        resume(&mut waiting, "gogs:1", NOW);
        assert_eq!([waiting.steps[0].status, waiting.steps[1].status], [Status::Running, Status::Blocked]);

        let mut both = begun(Status::Blocked);
        decline(&mut both, None, person("admin"), None, "gogs:1").unwrap();
        resume(&mut both, "gogs:1", NOW);
        assert!(both.steps.iter().all(|step| step.status == Status::Running), "each ends by itself, and says why");
    }

    #[test]
    fn what_a_stage_waits_for_people_is_not_time_that_it_ran() {
        let mut waiting = begun(Status::Blocked);
        waiting.approval_wait_ms = 100;
        waiting.awaiting_approval_since = Some(Timestamp(NOW.0 + 500));
        assert_eq!(waiting.run_duration(Timestamp(NOW.0 + 9_000)), std::time::Duration::from_millis(400));
        waiting.awaiting_approval_since = None;
        assert_eq!(waiting.run_duration(Timestamp(NOW.0 + 9_000)), std::time::Duration::from_millis(8_900));
    }
}
