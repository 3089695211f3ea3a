//! The stages of a build as a whole: which of them start, wait or are skipped, and the status of the build.
//!
//! A stage is ready when all stages that it needs have finished. It then starts unless one of them has failed, directly or behind
//! those: a failure is not forgotten because the stage between was skipped for it. A stage that did not match its event counts as
//! not needed. `status` in the `when` of the pipeline decides otherwise, as `trigger.status` does in Drone; there a failure
//! anywhere in the build counts, here only one that the stage waits for, so the result does not depend on which stage is faster.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::Stage;
use crate::ids::StageNumber;
use crate::pipeline::eval_when::StartsOn;
use crate::reason::Reason;
use crate::reason_code::ReasonCode;
use crate::status::{Status, fold};
use crate::time::Timestamp;
use crate::user_action;

/// Most pipelines that the reason of a skipped build lists. Its row holds them.
const MAX_LISTED: usize = 20;
/// Most stages that the reason of a stage names. Hundreds of stages may wait for hundreds.
const MAX_NAMED: usize = 5;

/// The next action for a stage that waits for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageMove {
    /// It need not wait any longer.
    Release(StageNumber),
    /// It never starts, for this reason.
    Skip(StageNumber, Reason),
    /// It still waits.
    Wait(StageNumber, Reason),
}

impl StageMove {
    /// The stage that the move concerns.
    #[must_use]
    pub fn stage(&self) -> StageNumber {
        match self {
            Self::Release(stage) | Self::Skip(stage, _) | Self::Wait(stage, _) => *stage,
        }
    }
}

/// The moves of all stages that wait for others. A move may allow another one, so the caller repeats until there is none but
/// waits. Stages that are being cancelled have no moves.
#[must_use]
pub fn next_moves(stages: &[Stage]) -> Vec<StageMove> {
    let by_number: BTreeMap<StageNumber, &Stage> = stages.iter().map(|stage| (stage.number, stage)).collect();
    let waits = |stage: &&Stage| stage.waits_for_needs && !stage.status.is_over() && stage.cancel_requested.is_none();
    stages.iter().filter(waits).map(|stage| next_move(stage, &by_number)).collect()
}

fn next_move(stage: &Stage, by_number: &BTreeMap<StageNumber, &Stage>) -> StageMove {
    let needed = stage.needs.iter().filter_map(|number| by_number.get(number));
    let open: Vec<String> = needed.filter(|needed| !needed.status.is_over()).map(|needed| needed.title()).collect();
    if !open.is_empty() {
        let reason = Reason::new(ReasonCode::WaitingForNeeds, format!("waiting for {}", listed(&open)));
        return StageMove::Wait(stage.number, reason);
    }
    let failed = failed_needs(stage, by_number);
    match stage.starts_on {
        StartsOn::Success if !failed.is_empty() => {
            let message = format!("{} did not succeed", listed(&failed));
            StageMove::Skip(stage.number, Reason::new(ReasonCode::NeedsFailed, message))
        }
        StartsOn::Failure if failed.is_empty() => {
            let reason = Reason::new(ReasonCode::NothingFailed, "no pipeline that this one needs has failed");
            StageMove::Skip(stage.number, reason)
        }
        StartsOn::Success | StartsOn::Failure | StartsOn::Always => StageMove::Release(stage.number),
    }
}

/// The failed stages that a stage needs, directly or through others.
fn failed_needs(stage: &Stage, by_number: &BTreeMap<StageNumber, &Stage>) -> Vec<String> {
    let mut failed = BTreeMap::new();
    let (mut open, mut seen) = (stage.needs.clone(), BTreeSet::new());
    while let Some(number) = open.pop() {
        let Some(needed) = by_number.get(&number).filter(|_| seen.insert(number)) else { continue };
        match needed.status {
            Status::Failure | Status::Error | Status::Killed | Status::Declined => {
                failed.insert(number, needed.title());
            }
            Status::Skipped if !is_skipped_for_needs(needed) => {}
            _ => open.extend(&needed.needs),
        }
    }
    failed.into_values().collect()
}

fn is_skipped_for_needs(stage: &Stage) -> bool {
    stage.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::NeedsFailed)
}

/// A few names, and how many there are besides.
fn listed(names: &[String]) -> String {
    let shown = names.get(..MAX_NAMED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Ends a stage that never started.
pub fn skip(stage: &mut Stage, reason: &Reason, now: Timestamp) {
    stage.status = Status::Skipped;
    stage.reason = Some(reason.clone());
    stage.finished_at = Some(now);
    stage.waits_for_needs = false;
    for step in stage.steps.iter_mut().filter(|step| !step.status.is_over()) {
        step.status = Status::Skipped;
        step.reason = Some(Reason::new(ReasonCode::NotRun, "no step ran: the stage was skipped"));
    }
}

/// The status of a build and its reason: those of the stage that decides. If the build has several stages, the reason begins with
/// the name of that stage, because it is also shown where the stage is not. `caused_by` is the stable id of the user who caused
/// the build.
#[must_use]
pub fn status(stages: &[Stage], caused_by: &str, now: Timestamp) -> (Status, Option<Reason>) {
    let status = fold(stages.iter().map(Stage::display_status));
    let decisive = stages.iter().find(|stage| stage.display_status() == status);
    let reason = decisive.and_then(|stage| user_action::status_reason(stage, caused_by, now));
    let reason = match (stages, decisive) {
        ([] | [_], _) => reason,
        _ if status == Status::Skipped => Some(all_skipped(stages)),
        (_, Some(stage)) => reason.map(|reason| of_stage(stage, reason)),
        (_, None) => reason,
    };
    (status, reason)
}

fn of_stage(stage: &Stage, reason: Reason) -> Reason {
    Reason { message: format!("{}: {}", stage.title(), reason.message), ..reason }
}

fn all_skipped(stages: &[Stage]) -> Reason {
    let reasons = stages.iter().filter_map(|stage| Some(of_stage(stage, stage.reason.clone()?))).take(MAX_LISTED);
    let reason = reasons.fold(Reason::new(ReasonCode::WhenMismatch, "no pipeline runs for this event"), Reason::part);
    match stages.len().saturating_sub(MAX_LISTED) {
        0 => reason,
        more => reason.part(Reason::new(ReasonCode::WhenMismatch, format!("and {more} more pipelines"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::build::CancelRequest;
    use crate::ids::{BuildId, StageId};

    fn stage(name: &str, number: u16, status: Status, reason: &str) -> Stage {
        let file = format!("name: {name}\nsteps: [{{ name: a, image: x }}]\n");
        let pipeline = crate::pipeline::read("f", file.as_bytes()).unwrap().pipeline;
        let id = StageId { build: BuildId(uuid::Uuid::nil()), stage: StageNumber(number) };
        let mut stage = Stage::pending(id, pipeline, None, Vec::new(), Timestamp(0));
        (stage.status, stage.reason) = (status, Some(Reason::new(ReasonCode::ExitCode, reason)));
        stage
    }

    fn reason(stages: &[Stage]) -> String {
        status(stages, "gogs:1", Timestamp(0)).1.unwrap().to_string()
    }

    /// Stages, each with the numbers of those that it needs and with its status.
    fn graph(stages: &[(&str, &[u16], Status)]) -> Vec<Stage> {
        let stage = |(&(name, needs, status), number): (&(&str, &[u16], Status), u16)| {
            let mut stage = stage(name, number, status, "step a: exit code 1");
            stage.needs = needs.iter().copied().map(StageNumber).collect();
            stage.waits_for_needs = status == Status::Pending;
            stage
        };
        stages.iter().zip(1..).map(stage).collect()
    }

    /// Applies moves until only waits are left; returns the final state of each stage in words.
    fn settle(stages: &mut [Stage]) -> Vec<String> {
        loop {
            let mut goes_on = false;
            for one in next_moves(stages) {
                let stage = stages.iter_mut().find(|stage| stage.number == one.stage()).unwrap();
                goes_on |= !matches!(one, StageMove::Wait(..));
                match &one {
                    StageMove::Release(_) => {
                        stage.waits_for_needs = false;
                        stage.reason = Some(Reason::new(ReasonCode::Capacity, "released"));
                    }
                    StageMove::Skip(_, reason) => skip(stage, reason, Timestamp(1)),
                    StageMove::Wait(_, reason) => stage.reason = Some(reason.clone()),
                }
            }
            if !goes_on {
                return stages.iter().map(|stage| stage.reason.as_ref().unwrap().message.clone()).collect();
            }
        }
    }

    #[test]
    fn a_stage_waits_for_all_that_it_needs_and_names_them() {
        use Status::{Pending, Running, Success};
        let mut stages = graph(&[("lint", &[], Success), ("test", &[], Running), ("deploy", &[1, 2], Pending)]);
        assert_eq!(settle(&mut stages)[2], "waiting for test");
        stages[1].status = Success;
        assert_eq!(settle(&mut stages)[2], "released");
    }

    #[test]
    fn a_failure_skips_all_that_need_it_also_through_others() {
        use Status::{Failure, Killed, Pending};
        let mut stages =
            graph(&[("lint", &[], Failure), ("deploy", &[1], Pending), ("announce", &[2], Pending), ("tidy", &[4], Killed)]);
        let reasons = settle(&mut stages);
        assert_eq!(reasons[1..3], ["lint did not succeed", "lint did not succeed"]);
        assert_eq!(stages[2].status, Status::Skipped);
    }

    #[test]
    fn a_needed_stage_that_did_not_match_counts_as_not_needed() {
        use Status::{Failure, Pending, Skipped};
        let mut stages = graph(&[("a", &[], Failure), ("b", &[1], Skipped), ("c", &[2], Pending)]);
        stages[1].reason = Some(Reason::new(ReasonCode::WhenMismatch, "the pipeline's `when` does not match"));
        assert_eq!(settle(&mut stages)[2], "released");
    }

    #[test]
    fn status_decides_which_results_start_a_stage() {
        use Status::{Failure, Pending, Success};
        for (result, starts_on, expected) in [
            (Success, StartsOn::Always, "released"),
            (Failure, StartsOn::Always, "released"),
            (Failure, StartsOn::Failure, "released"),
            (Success, StartsOn::Failure, "no pipeline that this one needs has failed"),
            (Failure, StartsOn::Success, "a did not succeed"),
        ] {
            let mut stages = graph(&[("a", &[], result), ("b", &[1], Pending)]);
            stages[1].starts_on = starts_on;
            assert_eq!(settle(&mut stages)[1], expected, "{result} {starts_on:?}");
        }
    }

    #[test]
    fn a_stage_that_is_being_cancelled_never_starts() {
        let mut stages = graph(&[("a", &[], Status::Success), ("b", &[1], Status::Pending)]);
        stages[1].cancel_requested = Some(CancelRequest { by: "ada".to_owned(), at: Timestamp(1) });
        assert_eq!(next_moves(&stages), []);
    }

    proptest! {
        /// Every stage ends, in an order that respects its needs, whatever the results are.
        #[test]
        fn every_stage_of_any_graph_ends(
            edges in proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 0..4), 1..12),
            results in proptest::collection::vec(0..4_usize, 12),
            modes in proptest::collection::vec(0..3_usize, 12),
        ) {
            let mut stages: Vec<Stage> = edges.iter().enumerate().map(|(index, needs)| {
                let mut stage = stage("s", u16::try_from(index + 1).unwrap(), Status::Pending, "");
                // Only earlier stages are needed, so there is no cycle.
                let number = |need: &prop::sample::Index| StageNumber(u16::try_from(need.index(index) + 1).unwrap());
                stage.needs = needs.iter().filter(|_| index > 0).map(number).collect();
                stage.starts_on = [StartsOn::Success, StartsOn::Failure, StartsOn::Always][modes[index]];
                stage.waits_for_needs = true;
                stage
            }).collect();
            let ends = [Status::Success, Status::Failure, Status::Killed, Status::Error];
            for _ in 0..=stages.len() {
                let summaries: Vec<Stage> = stages.iter().map(Stage::summary).collect();
                prop_assert_eq!(next_moves(&summaries), next_moves(&stages));
                prop_assert_eq!(status(&summaries, "gogs:1", Timestamp(0)), status(&stages, "gogs:1", Timestamp(0)));
                settle(&mut stages);
                let over: BTreeSet<StageNumber> =
                    stages.iter().filter(|stage| stage.status.is_over()).map(|stage| stage.number).collect();
                let ready = stages.iter_mut().enumerate().find(|(_, stage)| !stage.status.is_over() && !stage.waits_for_needs);
                let Some((index, stage)) = ready else { break };
                prop_assert!(stage.needs.iter().all(|need| over.contains(need)), "{stage:?}");
                stage.status = ends[results[index]];
            }
            prop_assert!(stages.iter().all(|stage| stage.status.is_over()), "{stages:#?}");
        }
    }

    #[test]
    fn the_reason_of_a_build_names_the_stage_that_decides() {
        let stages = [stage("lint", 1, Status::Success, ""), stage("test", 2, Status::Failure, "step a: exit code 1")];
        assert_eq!(status(&stages, "gogs:1", Timestamp(0)).0, Status::Failure);
        assert_eq!(reason(&stages), "test: step a: exit code 1");
        assert_eq!(reason(&stages[1..]), "step a: exit code 1", "the only stage needs no name");
    }

    #[test]
    fn a_build_of_which_no_pipeline_runs_lists_the_reasons() {
        let stages: Vec<Stage> = (1..=22).map(|number| stage(&format!("p{number}"), number, Status::Skipped, "no")).collect();
        let text = reason(&stages);
        assert!(text.starts_with("no pipeline runs for this event: p1: no"), "{text}");
        assert!(text.contains("p20: no") && !text.contains("p21") && text.contains("and 2 more pipelines"), "{text}");
    }
}
