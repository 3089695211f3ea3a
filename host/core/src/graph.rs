//! The scheduler of a stage's steps. Pure: given the current state of the steps, it decides which start, wait, are skipped or are
//! cancelled.
//!
//! A step is ready when all steps that it needs have finished, whatever their result. Then its `when` decides. Without a `status`
//! condition it requires that no counted failure has occurred anywhere in the stage so far. A step with `failure: ignore` is not
//! counted; neither is a step that was cancelled because of a sibling's `failure: cancel` (the sibling itself is).

use std::collections::HashMap;

use crate::build::{self, Stage};
use crate::ids::StepNumber;
use crate::pipeline::eval_when::{self, StageConditions};
use crate::pipeline::{OnFailure, When};
use crate::reason::Reason;
use crate::reason_code::ReasonCode;
use crate::status::{Status, fold};

/// One step and its current state.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    pub number: StepNumber,
    pub name: &'a str,
    /// Names of the steps that must finish first.
    pub needs: &'a [String],
    pub when: Option<&'a When>,
    pub failure: OnFailure,
    pub status: Status,
    /// Code of the reason that is stored with the status.
    pub reason: Option<&'a str>,
}

/// The next action for one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Start the step. The remarks name conditions that could not be checked.
    Start(StepNumber, Vec<Reason>),
    /// Skip the step: it becomes `skipped`, with this reason.
    Skip(StepNumber, Reason),
    /// Stop the step if it runs, and never start it if it waits: it becomes `killed`, with this reason.
    Cancel(StepNumber, Reason),
    /// The step is not ready yet.
    Wait(StepNumber, Reason),
}

impl Move {
    /// The step that the move concerns.
    #[must_use]
    pub fn step(&self) -> StepNumber {
        match self {
            Self::Start(step, _) | Self::Skip(step, _) | Self::Cancel(step, _) | Self::Wait(step, _) => *step,
        }
    }
}

impl Node<'_> {
    fn has_failed(&self) -> bool {
        matches!(self.status, Status::Failure | Status::Error | Status::Killed | Status::Declined)
    }

    /// Whether the step has failed and its failure counts for the stage.
    fn counts_as_failed(&self) -> bool {
        self.has_failed() && self.failure != OnFailure::Ignore && self.reason != Some(ReasonCode::CancelledBySibling.as_str())
    }
}

/// The steps of a stage; the host's own clone step comes first.
#[must_use]
pub fn nodes(stage: &Stage) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node<'_>> = stage.steps.iter().map(|step| node(stage, step)).collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

fn node<'a>(stage: &'a Stage, step: &'a build::Step) -> Node<'a> {
    let written = usize::from(step.number.0).checked_sub(1).and_then(|index| stage.pipeline.steps.get(index));
    Node {
        number: step.number,
        name: &step.name,
        needs: written.map_or(&[], |written| written.needs.as_slice()),
        when: written.and_then(|written| written.when.as_ref()),
        failure: written.map_or(OnFailure::Fail, |written| written.failure),
        status: step.status,
        reason: step.reason.as_ref().map(|reason| reason.code.as_str()),
    }
}

/// Whether a step has failed, and the pipeline file ignores that (`failure: ignore`).
#[must_use]
pub fn is_failure_ignored(stage: &Stage, step: &build::Step) -> bool {
    let node = node(stage, step);
    node.has_failed() && node.failure == OnFailure::Ignore
}

/// The step that decided the status of a stage that has ended: the first one with this status. A failure that does not count
/// for the stage (`failure: ignore`) decides nothing.
#[must_use]
pub fn decisive_step(stage: &Stage) -> Option<&build::Step> {
    let nodes = nodes(stage);
    let decides = |node: &&Node<'_>| node.status == stage.status && (node.counts_as_failed() || !node.has_failed());
    stage.step(nodes.iter().find(decides)?.number)
}

/// The first step whose failure counts for the stage, or else the first one that has failed.
#[must_use]
pub fn failed_step(stage: &Stage) -> Option<&build::Step> {
    let nodes = nodes(stage);
    let counted = nodes.iter().find(|node| node.counts_as_failed());
    stage.step(counted.or_else(|| nodes.iter().find(|node| node.has_failed()))?.number)
}

/// One move for every unfinished step, in the order of their numbers. Steps that continue to run or wait for an approval have
/// none. The caller calls it again after every change of a step; the function is idempotent. The stage has finished when there is
/// no move and no step runs.
#[must_use]
pub fn next_moves(nodes: &[Node<'_>], conditions: &StageConditions) -> Vec<Move> {
    let clone = nodes.iter().find(|node| node.number == StepNumber::CLONE);
    // A user's step may have the same name as the clone step.
    let written = nodes.iter().filter(|node| node.number != StepNumber::CLONE);
    let by_name: HashMap<&str, &Node<'_>> = written.map(|node| (node.name, node)).collect();
    let failed: Vec<&str> = nodes.iter().filter(|node| node.counts_as_failed()).map(|node| node.name).collect();
    let canceller = nodes.iter().find(|node| node.counts_as_failed() && node.failure == OnFailure::Cancel);
    let open = nodes.iter().filter(|node| !node.status.is_over());
    open.filter_map(|node| match node.status {
        Status::Pending => Some(next_move(node, clone, &by_name, conditions, &failed)),
        _ => canceller.filter(|_| !eval_when::runs_after_failure(node.when)).map(|sibling| {
            let message = format!("step \"{}\" failed and cancels the other steps (`failure: cancel`)", sibling.name);
            Move::Cancel(node.number, Reason::new(ReasonCode::CancelledBySibling, message))
        }),
    })
    .collect()
}

/// The steps that start next if every step succeeds, in the order of their start; at most `most` of them. They can be prefetched.
#[must_use]
pub fn upcoming(nodes: &[Node<'_>], conditions: &StageConditions, most: usize) -> Vec<StepNumber> {
    let mut hoped = nodes.to_vec();
    let mut upcoming = Vec::new();
    while upcoming.len() < most {
        for node in hoped.iter_mut().filter(|node| node.status == Status::Running) {
            node.status = Status::Success;
        }
        let mut goes_on = false;
        for one in next_moves(&hoped, conditions) {
            let status = match &one {
                Move::Start(number, _) => {
                    upcoming.push(*number);
                    Status::Running
                }
                Move::Skip(..) => Status::Skipped,
                Move::Cancel(..) | Move::Wait(..) => continue,
            };
            goes_on = true;
            hoped.iter_mut().filter(|node| node.number == one.step()).for_each(|node| node.status = status);
        }
        if !goes_on {
            break;
        }
    }
    upcoming.truncate(most);
    upcoming
}

/// Cancels all unfinished steps, for a person's request or the stage's timeout. `reason` is stored with each step.
#[must_use]
pub fn cancel_all(nodes: &[Node<'_>], reason: &Reason) -> Vec<Move> {
    nodes.iter().filter(|node| !node.status.is_over()).map(|node| Move::Cancel(node.number, reason.clone())).collect()
}

fn next_move(
    node: &Node<'_>,
    clone: Option<&Node<'_>>,
    by_name: &HashMap<&str, &Node<'_>>,
    conditions: &StageConditions,
    failed: &[&str],
) -> Move {
    // Every step implicitly needs the clone step.
    let sources = clone.filter(|clone| clone.number != node.number && !clone.status.is_over());
    let needs = node.needs.iter().filter_map(|need| by_name.get(need.as_str()).copied());
    let open: Vec<&str> = sources.into_iter().chain(needs.filter(|need| !need.status.is_over())).map(|need| need.name).collect();
    if !open.is_empty() {
        return Move::Wait(node.number, Reason::new(ReasonCode::WaitingForNeeds, format!("waiting for {}", open.join(", "))));
    }
    match conditions.step_matches(node.number, failed) {
        Ok(remarks) => Move::Start(node.number, remarks),
        Err(reason) => Move::Skip(node.number, reason),
    }
}

/// The status of the stage. An ignored failure counts as a success. A step that was cancelled by a sibling's `failure: cancel` is
/// left out, because the sibling's failure counts. The clone step counts only while it runs and if it fails.
#[must_use]
pub fn stage_status(nodes: &[Node<'_>]) -> Status {
    let part = |node: &Node<'_>| {
        let is_quiet_clone = node.number == StepNumber::CLONE && node.status == Status::Success;
        if is_quiet_clone || (node.has_failed() && node.reason == Some(ReasonCode::CancelledBySibling.as_str())) {
            None
        } else if node.has_failed() && !node.counts_as_failed() {
            Some(Status::Success)
        } else {
            Some(node.status)
        }
    };
    fold(nodes.iter().filter_map(part))
}

/// The status of the stage for a step that starts now: `success` or `failure`, the value of `$BEESPACE_BUILD_STATUS`.
#[must_use]
pub fn status_so_far(nodes: &[Node<'_>]) -> Status {
    if nodes.iter().any(Node::counts_as_failed) { Status::Failure } else { Status::Success }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::EventKind;
    use crate::pipeline::eval_when::{ChangedPaths, Facts};
    use crate::pipeline::{Choice, Conditions};

    /// A step of a test stage: its definition, its future result and its current state.
    #[derive(Debug, Clone)]
    struct TestStep {
        name: String,
        needs: Vec<String>,
        when: Option<When>,
        failure: OnFailure,
        end: Status,
        status: Status,
        reason: Option<Reason>,
        starts: usize,
    }

    impl TestStep {
        fn new(name: &str, needs: &[&str], end: Status) -> Self {
            Self {
                name: name.to_owned(),
                needs: needs.iter().map(|need| (*need).to_owned()).collect(),
                when: None,
                failure: OnFailure::Fail,
                end,
                status: Status::Pending,
                reason: None,
                starts: 0,
            }
        }

        fn when(self, include: &[Status]) -> Self {
            let status = Some(Choice { include: include.to_vec(), exclude: Vec::new() });
            Self { when: Some(When(vec![Conditions { status, ..Conditions::default() }])), ..self }
        }

        fn failure(self, failure: OnFailure) -> Self {
            Self { failure, ..self }
        }

        fn is_open(&self) -> bool {
            !self.status.is_over()
        }
    }

    fn nodes_of(steps: &[TestStep]) -> Vec<Node<'_>> {
        let numbered = steps.iter().zip(1..);
        numbered
            .map(|(step, number)| Node {
                number: StepNumber(number),
                name: &step.name,
                needs: &step.needs,
                when: step.when.as_ref(),
                failure: step.failure,
                status: step.status,
                reason: step.reason.as_ref().map(|reason| reason.code.as_str()),
            })
            .collect()
    }

    /// The conditions of the steps for a push.
    fn conditions(steps: &[TestStep]) -> StageConditions {
        let push = Facts {
            event: EventKind::Push,
            branch: Some("main".to_owned()),
            tag: None,
            git_ref: "refs/heads/main".to_owned(),
            target: None,
            cron: None,
            changed: ChangedPaths::Known(Vec::new()),
        };
        StageConditions::of_steps(steps.iter().map(|step| step.when.as_ref()), &push)
    }

    fn moves_of(steps: &[TestStep]) -> Vec<Move> {
        next_moves(&nodes_of(steps), &conditions(steps))
    }

    /// Applies moves as the host does.
    fn apply_moves(steps: &mut [TestStep], moves: &[Move]) {
        for moved in moves {
            let step = &mut steps[usize::from(moved.step().0) - 1];
            match moved {
                Move::Start(..) => {
                    step.starts += 1;
                    step.status = Status::Running;
                }
                Move::Skip(_, reason) => (step.status, step.reason) = (Status::Skipped, Some(reason.clone())),
                Move::Cancel(_, reason) => (step.status, step.reason) = (Status::Killed, Some(reason.clone())),
                Move::Wait(..) => {}
            }
        }
    }

    /// Runs the stage to its end. Whenever no step can start, one running step finishes; `pick` selects it.
    fn run_to_end(steps: &mut [TestStep], mut pick: impl FnMut(usize) -> usize) {
        loop {
            loop {
                let moves = moves_of(steps);
                apply_moves(steps, &moves);
                if moves.iter().all(|moved| matches!(moved, Move::Wait(..))) {
                    break;
                }
            }
            let running: Vec<usize> = (0..steps.len()).filter(|index| steps[*index].status == Status::Running).collect();
            if running.is_empty() {
                break;
            }
            let step = &mut steps[running[pick(running.len()) % running.len()]];
            step.status = step.end;
        }
    }

    #[test]
    fn upcoming_steps_are_in_the_order_of_their_start() {
        let mut steps = vec![
            TestStep::new("first", &[], Status::Success),
            TestStep::new("last", &["left", "right"], Status::Success),
            TestStep::new("left", &["first"], Status::Success),
            TestStep::new("right", &["rescue"], Status::Success),
            TestStep::new("rescue", &["first"], Status::Success).when(&[Status::Failure]),
        ];
        let upcoming = |steps: &[TestStep], most| -> Vec<u16> {
            upcoming(&nodes_of(steps), &conditions(steps), most).into_iter().map(|number| number.0).collect()
        };
        assert_eq!(upcoming(&steps, 9), [1, 3, 4, 2], "a step for failures is skipped, and the steps that need it continue");
        assert_eq!(upcoming(&steps, 2), [1, 3]);
        steps[0].status = Status::Running;
        assert_eq!(upcoming(&steps, 9), [3, 4, 2]);
        steps[0].status = Status::Failure;
        assert_eq!(upcoming(&steps, 9), [5]);
        assert_eq!(upcoming(&[], 9), [0; 0]);
    }

    fn statuses(steps: &[TestStep]) -> Vec<Status> {
        steps.iter().map(|step| step.status).collect()
    }

    #[test]
    fn steps_wait_for_their_needs_with_a_reason() {
        let mut steps = vec![
            TestStep::new("build", &[], Status::Success),
            TestStep::new("test", &["build"], Status::Success),
            TestStep::new("lint", &[], Status::Success),
            TestStep::new("pack", &["test", "lint"], Status::Success),
        ];
        let moves = moves_of(&steps);
        assert!(matches!(moves[0], Move::Start(StepNumber(1), _)) && matches!(moves[2], Move::Start(StepNumber(3), _)));
        assert_eq!(moves[1], Move::Wait(StepNumber(2), Reason::new(ReasonCode::WaitingForNeeds, "waiting for build")));
        assert_eq!(moves[3], Move::Wait(StepNumber(4), Reason::new(ReasonCode::WaitingForNeeds, "waiting for test, lint")));
        run_to_end(&mut steps, |_| 0);
        assert_eq!(statuses(&steps), [Status::Success; 4]);
        assert_eq!(stage_status(&nodes_of(&steps)), Status::Success);
    }

    #[test]
    fn after_a_failure_only_steps_with_a_matching_status_run() {
        let mut steps = vec![
            TestStep::new("build", &[], Status::Error),
            TestStep::new("test", &["build"], Status::Success),
            TestStep::new("chat", &["test"], Status::Success).when(&[Status::Success, Status::Failure]),
            TestStep::new("on-failure", &["test"], Status::Success).when(&[Status::Failure]),
        ];
        run_to_end(&mut steps, |_| 0);
        assert_eq!(statuses(&steps), [Status::Error, Status::Skipped, Status::Success, Status::Success]);
        assert_eq!(steps[1].reason.as_ref().map(ToString::to_string).as_deref(), Some("`build` did not succeed"));
        assert_eq!(stage_status(&nodes_of(&steps)), Status::Error);
        assert_eq!(status_so_far(&nodes_of(&steps)), Status::Failure);
    }

    #[test]
    fn without_a_failure_steps_for_failures_are_skipped() {
        let mut steps = vec![
            TestStep::new("build", &[], Status::Success),
            TestStep::new("on-failure", &["build"], Status::Success).when(&[Status::Failure]),
        ];
        run_to_end(&mut steps, |_| 0);
        assert_eq!(statuses(&steps), [Status::Success, Status::Skipped]);
        assert_eq!(stage_status(&nodes_of(&steps)), Status::Success);
    }

    #[test]
    fn an_ignored_failure_is_not_counted() {
        let mut steps = vec![
            TestStep::new("flaky", &[], Status::Failure).failure(OnFailure::Ignore),
            TestStep::new("test", &["flaky"], Status::Success),
        ];
        run_to_end(&mut steps, |_| 0);
        assert_eq!(statuses(&steps), [Status::Failure, Status::Success]);
        assert_eq!(stage_status(&nodes_of(&steps)), Status::Success);
        assert_eq!(stage_status(&nodes_of(&steps[..1])), Status::Success);
    }

    #[test]
    fn a_failure_that_cancels_kills_its_siblings_except_steps_for_failures() {
        let mut steps = vec![
            TestStep::new("fast", &[], Status::Failure).failure(OnFailure::Cancel),
            TestStep::new("slow", &[], Status::Success),
            TestStep::new("report", &[], Status::Success).when(&[Status::Success, Status::Failure]),
            TestStep::new("later", &["slow"], Status::Success),
            TestStep::new("chat", &["later"], Status::Success).when(&[Status::Failure]),
        ];
        run_to_end(&mut steps, |_| 0);
        let expected = [Status::Failure, Status::Killed, Status::Success, Status::Skipped, Status::Success];
        assert_eq!(statuses(&steps), expected);
        assert_eq!(stage_status(&nodes_of(&steps)), Status::Failure, "a step that the sibling cancelled is not counted");
    }

    #[test]
    fn a_step_that_needs_a_skipped_step_runs() {
        let mut only_tags = TestStep::new("tag", &[], Status::Success);
        let event = Some(Choice { include: vec![EventKind::Tag], exclude: Vec::new() });
        only_tags.when = Some(When(vec![Conditions { event, ..Conditions::default() }]));
        let mut steps = vec![only_tags, TestStep::new("test", &["tag"], Status::Success)];
        run_to_end(&mut steps, |_| 0);
        assert_eq!(statuses(&steps), [Status::Skipped, Status::Success]);
    }

    #[test]
    fn every_step_waits_for_the_clone_and_is_skipped_if_it_fails() {
        let steps = [
            TestStep::new("clone", &[], Status::Success),
            TestStep::new("on-failure", &[], Status::Success).when(&[Status::Failure]),
        ];
        let mut nodes = nodes_of(&steps);
        nodes.insert(0, Node { number: StepNumber::CLONE, status: Status::Running, ..nodes[0].clone() });
        assert_eq!(nodes[1].name, "clone", "a user's step may have that name");
        let waits = |number| Move::Wait(StepNumber(number), Reason::new(ReasonCode::WaitingForNeeds, "waiting for clone"));
        assert_eq!(next_moves(&nodes, &conditions(&steps)), [waits(1), waits(2)]);
        nodes[0].status = Status::Error;
        let moves = next_moves(&nodes, &conditions(&steps));
        assert!(
            matches!(moves[0], Move::Skip(StepNumber(1), _)) && matches!(moves[1], Move::Start(StepNumber(2), _)),
            "{moves:?}"
        );
    }

    #[test]
    fn a_successful_clone_alone_does_not_make_the_stage_a_success() {
        let steps = [TestStep::new("a", &[], Status::Success)];
        let mut nodes = nodes_of(&steps);
        nodes[0].status = Status::Skipped;
        nodes.push(Node { number: StepNumber::CLONE, status: Status::Success, ..nodes[0].clone() });
        assert_eq!(stage_status(&nodes), Status::Skipped);
        nodes[1].status = Status::Error;
        assert_eq!(stage_status(&nodes), Status::Error);
    }

    /// Stages whose steps need only steps that come earlier in a shuffled order: any acyclic graph, needs of later steps
    /// included.
    fn stages() -> impl Strategy<Value = Vec<TestStep>> {
        let ends =
            [Status::Success, Status::Success, Status::Success, Status::Failure, Status::Error, Status::Killed, Status::Declined];
        let failures = [OnFailure::Fail, OnFailure::Fail, OnFailure::Ignore, OnFailure::Cancel];
        let whens: [&[Status]; 5] = [&[], &[], &[Status::Success], &[Status::Failure], &[Status::Success, Status::Failure]];
        let step =
            (any::<u16>(), proptest::sample::select(ends.to_vec()), proptest::sample::select(failures.to_vec()), 0..whens.len());
        (proptest::collection::vec(step, 1..9), any::<u64>()).prop_map(move |(drawn, shuffle)| {
            let count = drawn.len();
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by_key(|index| shuffle.rotate_left(u32::try_from(*index * 7).unwrap()));
            let mut steps: Vec<TestStep> = Vec::new();
            for (index, (needs, end, failure, when)) in drawn.into_iter().enumerate() {
                let place = order.iter().position(|other| *other == index).unwrap();
                let earlier = order[..place].iter().filter(|other| needs >> **other & 1 == 1);
                let names: Vec<String> = earlier.map(|other| format!("s{other}")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let step = TestStep::new(&format!("s{index}"), &names, end).failure(failure);
                steps.push(if whens[when].is_empty() { step } else { step.when(whens[when]) });
            }
            steps
        })
    }

    proptest! {
        #[test]
        fn every_schedule_terminates_and_respects_needs(
            stage in stages(),
            picks in proptest::collection::vec(any::<usize>(), 64),
        ) {
            let mut steps = stage;
            let mut picks = picks.into_iter();
            for _ in 0..64 {
                let before = steps.clone();
                let moves = moves_of(&steps);
                let failed = before.iter().any(|step| status_so_far(&nodes_of(std::slice::from_ref(step))) == Status::Failure);
                for moved in moves.iter().filter(|moved| matches!(moved, Move::Start(..))) {
                    let step = &before[usize::from(moved.step().0) - 1];
                    let open = before.iter().filter(|other| step.needs.contains(&other.name) && other.is_open()).count();
                    prop_assert_eq!(open, 0, "started before the steps that it needs had finished");
                    prop_assert!(!failed || eval_when::runs_after_failure(step.when.as_ref()), "started after a failure");
                }
                apply_moves(&mut steps, &moves);
                if moves.iter().all(|moved| matches!(moved, Move::Wait(..))) {
                    let running: Vec<usize> = (0..steps.len()).filter(|index| steps[*index].status == Status::Running).collect();
                    let Some(last) = running.len().checked_sub(1) else { break };
                    let step = &mut steps[running[picks.next().unwrap_or(0) % (last + 1)]];
                    step.status = step.end;
                }
            }
            prop_assert!(steps.iter().all(|step| !step.is_open() && step.starts <= 1), "{steps:?}");
            let nodes = nodes_of(&steps);
            prop_assert!(moves_of(&steps).is_empty());
            prop_assert!(stage_status(&nodes).is_over());
            let is_good = matches!(stage_status(&nodes), Status::Success | Status::Skipped);
            prop_assert_eq!(is_good, status_so_far(&nodes) == Status::Success);
        }

        #[test]
        fn a_failure_that_cancels_reaches_every_sibling(stage in stages(), rounds in 1..8_usize) {
            let mut steps = stage;
            for _ in 0..rounds {
                let moves = moves_of(&steps);
                let has_failed = |step: &TestStep| step.failure == OnFailure::Cancel && step.status != Status::Skipped
                    && status_so_far(&nodes_of(std::slice::from_ref(step))) == Status::Failure;
                if steps.iter().any(has_failed) {
                    for (step, number) in steps.iter().zip(1..) {
                        let moved = moves.iter().find(|moved| moved.step() == StepNumber(number));
                        let spared = eval_when::runs_after_failure(step.when.as_ref());
                        let is_cancelled = matches!(moved, Some(Move::Cancel(..)));
                        prop_assert!(spared || step.status != Status::Running || is_cancelled, "{step:?}");
                        prop_assert!(spared || !matches!(moved, Some(Move::Start(..))), "{step:?}");
                    }
                }
                apply_moves(&mut steps, &moves);
                if let Some(step) = steps.iter_mut().find(|step| step.status == Status::Running) {
                    step.status = step.end;
                }
            }
        }

        #[test]
        fn a_cancellation_reaches_every_step(stage in stages(), rounds in 0..6_usize) {
            let mut steps = stage;
            for _ in 0..rounds {
                let moves = moves_of(&steps);
                apply_moves(&mut steps, &moves);
                if let Some(step) = steps.iter_mut().find(|step| step.status == Status::Running) {
                    step.status = step.end;
                }
            }
            let was_open = steps.iter().any(TestStep::is_open);
            let moves = cancel_all(&nodes_of(&steps), &Reason::new(ReasonCode::Cancelled, "cancelled by maya"));
            apply_moves(&mut steps, &moves);
            prop_assert!(steps.iter().all(|step| !step.is_open()));
            prop_assert!(moves_of(&steps).is_empty());
            prop_assert!(was_open || moves.is_empty());
        }
    }

    #[test]
    fn a_failure_is_ignored_where_the_file_says_so() {
        let text = "steps: [{name: a, image: x, failure: ignore}, {name: b, image: x}, {name: c, image: x, failure: ignore}]";
        let pipeline = crate::pipeline::read("f", text.as_bytes()).unwrap().pipeline;
        let step = |(number, status)| build::Step { status, ..build::Step::pending(StepNumber(number), "") };
        let steps = [(0, Status::Success), (1, Status::Failure), (2, Status::Failure), (3, Status::Success)].map(step).to_vec();
        let id = crate::ids::StageId { build: crate::ids::BuildId(uuid::Uuid::nil()), stage: crate::ids::StageNumber(1) };
        let stage = Stage::pending(id, pipeline, None, steps, crate::time::Timestamp(0));
        let ignored: Vec<u16> =
            stage.steps.iter().filter(|step| is_failure_ignored(&stage, step)).map(|step| step.number.0).collect();
        assert_eq!(ignored, [1]);
        assert_eq!(failed_step(&stage).map(|step| step.number.0), Some(2), "a failure that counts comes first");
    }
}
