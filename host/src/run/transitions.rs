//! The transitions of a stage's row while its steps move. Nothing here has effects.

use beespace_core::build::Stage;
use beespace_core::graph::{self, Move};
use beespace_core::pipeline::eval_when::StageConditions;
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_core::user_action;

/// Applies all moves that the graph allows. One move may allow another, so the graph is evaluated until it returns no move.
pub(super) fn apply_all(stage: &mut Stage, conditions: &StageConditions, at: Timestamp) {
    loop {
        let moves = graph::next_moves(&graph::nodes(stage), conditions);
        let moves: Vec<Move> = moves.into_iter().filter(|one| is_new(stage, one)).collect();
        if moves.is_empty() {
            return;
        }
        moves.iter().for_each(|one| apply(stage, one, at));
    }
}

/// Cancels the steps of a stage of which no step runs. Otherwise the running steps are cancelled first, by the task that
/// drives the stage.
pub(super) fn cancel_if_idle(stage: &mut Stage, reason: &Reason, at: Timestamp) {
    if stage.steps.iter().any(|step| step.status == Status::Running) {
        return;
    }
    for one in graph::cancel_all(&graph::nodes(stage), reason) {
        apply(stage, &one, at);
    }
    stage.reason = Some(reason.clone());
}

/// Lets the timeout of a stage count again after the stage waited for approval.
pub(super) fn resume_clock(stage: &mut Stage, at: Timestamp) {
    if let Some(since) = stage.awaiting_approval_since.take() {
        let waited = u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX);
        stage.approval_wait_ms = stage.approval_wait_ms.saturating_add(waited);
    }
}

/// Gives a stage of which no step runs its status: over, or blocked when the remaining steps wait for approval.
pub(super) fn conclude(stage: &mut Stage, caused_by: &str, at: Timestamp) {
    stage.status = match graph::stage_status(&graph::nodes(stage)) {
        // Everything was over when the cancel request came.
        Status::Skipped if stage.cancel_requested.is_some() => Status::Killed,
        status => status,
    };
    if stage.status == Status::Blocked {
        stage.awaiting_approval_since.get_or_insert(at);
        stage.reason = Some(user_action::blocked_reason(stage, caused_by, at));
    }
    // A cancelled stage keeps the reason of the cancellation unless it failed on the way: an error needs attention.
    if stage.reason.is_none() || stage.status == Status::Error {
        stage.reason = decisive_reason(stage).or_else(|| stage.reason.take());
    }
}

/// The reason of the step that decided the stage's status. If it failed, the reason begins with its name, because it is also
/// shown where the step is not: in lists, notices and commands.
fn decisive_reason(stage: &Stage) -> Option<Reason> {
    let step = graph::decisive_step(stage)?;
    let reason = step.reason.clone()?;
    match step.status {
        Status::Failure | Status::Error => Some(Reason { message: format!("step {}: {}", step.name, reason.message), ..reason }),
        _ => Some(reason),
    }
}

/// Whether the move would change the row.
fn is_new(stage: &Stage, one: &Move) -> bool {
    let Some(step) = stage.step(one.step()) else { return false };
    match one {
        Move::Start(..) | Move::Skip(..) => step.status == Status::Pending,
        Move::Cancel(_, reason) | Move::Wait(_, reason) => step.reason.as_ref() != Some(reason),
    }
}

/// Applies one move. A running step is only marked with the reason: the task that runs it stores how it ended.
pub(super) fn apply(stage: &mut Stage, one: &Move, at: Timestamp) {
    let Some(step) = stage.step_mut(one.step()) else { return };
    match one {
        Move::Start(_, remarks) => {
            step.status = Status::Running;
            step.reason = None;
            step.remarks.extend_from_slice(remarks);
            step.started_at = Some(at);
        }
        Move::Skip(_, reason) => {
            step.status = Status::Skipped;
            // A step that does not run misses nothing.
            step.remarks.clear();
            step.reason = Some(reason.clone());
        }
        Move::Cancel(_, reason) => {
            step.reason = Some(reason.clone());
            if step.status != Status::Running {
                step.status = Status::Killed;
                step.finished_at = step.started_at.map(|_| at);
            }
        }
        Move::Wait(_, reason) => step.reason = Some(reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use beespace_core::build::{CancelRequest, Round, Step};
    use beespace_core::ids::{BuildId, DecisionId, StageId, StageNumber, StepNumber};
    use beespace_core::pipeline;
    use beespace_core::plan::StepPlan;

    use beespace_core::reason_code::ReasonCode;

    use super::*;

    const NOW: Timestamp = Timestamp(5_000);

    /// A stage whose only step is blocked: its next plan waits for approval.
    fn blocked_stage() -> Stage {
        let pipeline = pipeline::read("f", b"steps: [{ name: work, uses: rounds }]").unwrap().pipeline;
        let id = StageId { build: BuildId(uuid::Uuid::nil()), stage: StageNumber(1) };
        let round = Round { number: 1, ..Round::first(StepPlan::default(), DecisionId(uuid::Uuid::nil())) };
        let clone = Step { status: Status::Success, ..Step::pending(StepNumber::CLONE, "clone") };
        let work =
            Step { status: Status::Blocked, round: Some(round), started_at: Some(NOW), ..Step::pending(StepNumber(1), "work") };
        let mut stage = Stage::pending(id, pipeline, None, vec![clone, work], NOW);
        (stage.status, stage.started_at) = (Status::Running, Some(NOW));
        stage
    }

    #[test]
    fn the_clock_of_a_stage_stands_still_while_it_waits_for_approval() {
        let mut stage = blocked_stage();
        conclude(&mut stage, "gogs:1", NOW);
        assert_eq!((stage.status, stage.awaiting_approval_since), (Status::Blocked, Some(NOW)));
        resume_clock(&mut stage, Timestamp(NOW.0 + 700));
        assert_eq!((stage.awaiting_approval_since, stage.approval_wait_ms), (None, 700));
    }

    #[test]
    fn the_reason_of_a_failed_stage_names_its_first_failed_step() {
        let mut stage = blocked_stage();
        (stage.steps[1].status, stage.steps[1].reason) =
            (Status::Failure, Some(Reason::new(ReasonCode::ExitCode, "the program exited with code 3")));
        conclude(&mut stage, "gogs:1", NOW);
        let reason = stage.reason.unwrap();
        assert_eq!((&*reason.message, &*reason.code), ("step work: the program exited with code 3", "exit-code"));
    }

    #[test]
    fn an_ignored_failure_is_not_the_reason_of_the_stage() {
        let file = b"steps: [{ name: lax, image: i, failure: ignore }, { name: strict, image: i }]";
        let pipeline = pipeline::read("f", file).unwrap().pipeline;
        let id = StageId { build: BuildId(uuid::Uuid::nil()), stage: StageNumber(1) };
        let failed = |number, name: &str, code: u8| Step {
            status: Status::Failure,
            reason: Some(Reason::new(ReasonCode::ExitCode, format!("the program exited with code {code}"))),
            ..Step::pending(StepNumber(number), name)
        };
        let clone = Step { status: Status::Success, ..Step::pending(StepNumber::CLONE, "clone") };
        let mut stage = Stage::pending(id, pipeline, None, vec![clone, failed(1, "lax", 9), failed(2, "strict", 5)], NOW);
        conclude(&mut stage, "gogs:1", NOW);
        assert_eq!(stage.reason.unwrap().message, "step strict: the program exited with code 5");
    }

    #[test]
    fn a_stage_that_is_cancelled_when_it_begins_to_wait_ends() {
        let mut stage = blocked_stage();
        stage.cancel_requested = Some(CancelRequest { by: "ada".to_owned(), at: NOW });
        cancel_if_idle(&mut stage, &Reason::new(ReasonCode::Cancelled, "cancelled by ada"), NOW);
        conclude(&mut stage, "gogs:1", NOW);
        assert_eq!((stage.status, stage.awaiting_approval_since), (Status::Killed, None));
        assert_eq!((stage.steps[1].status, stage.steps[1].finished_at), (Status::Killed, Some(NOW)));
    }

    #[test]
    fn a_cancelled_stage_whose_container_cannot_be_killed_has_the_reason_of_the_error() {
        let mut stage = blocked_stage();
        stage.cancel_requested = Some(CancelRequest { by: "ada".to_owned(), at: NOW });
        stage.reason = Some(Reason::new(ReasonCode::Cancelled, "cancelled by ada"));
        (stage.steps[1].status, stage.steps[1].reason) =
            (Status::Error, Some(Reason::new(ReasonCode::EngineUnkillable, "it still runs")));
        conclude(&mut stage, "gogs:1", NOW);
        let code = stage.reason.as_ref().map(|reason| &*reason.code);
        assert_eq!((stage.status, code), (Status::Error, Some("engine-unkillable")));
    }
}
