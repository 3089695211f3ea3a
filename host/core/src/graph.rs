//! Which step's turn it is. Pure: the runner tells how the steps stand, this says what to do about it.
//!
//! A step's turn comes when all that it needs is over, however it ended. Then its `when` decides: without `status` it wants that
//! nothing that counts has failed anywhere in the stage so far. `failure: ignore` does not count; neither does what was killed
//! because of a sibling's `failure: cancel` (the sibling itself does).

use std::collections::HashMap;

use crate::build::{self, Stage};
use crate::ids::StepNumber;
use crate::pipeline::eval_when::{self, Facts};
use crate::pipeline::{OnFailure, When};
use crate::reason::Reason;
use crate::status::{Status, fold};

/// The code of the reason of a step that was killed because of a sibling's `failure: cancel`. The runner keeps that reason with
/// the step; by it the step is known as one that does not count.
pub const CANCELLED_BY_SIBLING: &str = "cancelled-by-sibling";

/// The code of the reason of a step that was stopped because the whole stage was.
pub const CANCELLED: &str = "cancelled";

/// One step as it stands.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    pub number: StepNumber,
    pub name: &'a str,
    /// Names of the steps that must be over first.
    pub needs: &'a [String],
    pub when: Option<&'a When>,
    pub failure: OnFailure,
    pub status: Status,
    /// Code of the reason that is kept beside the status.
    pub reason: Option<&'a str>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Its turn has come. The remarks tell of conditions that could not really be checked.
    Start(StepNumber, Vec<Reason>),
    /// It will not run: becomes `skipped`, with this reason.
    Skip(StepNumber, Reason),
    /// Stop it where it runs, never start it where it waits: becomes `after_kill`, with this reason.
    Cancel(StepNumber, Reason),
    /// Not yet.
    Wait(StepNumber, Reason),
}

impl Move {
    /// The step that it is about.
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

    /// Whether its failure is one for the stage.
    fn counts_as_failed(&self) -> bool {
        self.has_failed() && self.failure != OnFailure::Ignore && self.reason != Some(CANCELLED_BY_SIBLING)
    }
}

/// The steps of a stage, the host's own clone first.
#[must_use]
pub fn nodes(stage: &Stage) -> Vec<Node<'_>> {
    let written = |step: &build::Step| {
        let index = usize::from(step.number.0).checked_sub(1)?;
        stage.pipeline.steps.get(index)
    };
    let mut nodes: Vec<Node<'_>> = stage
        .steps
        .iter()
        .map(|step| {
            let written = written(step);
            Node {
                number: step.number,
                name: &step.name,
                needs: written.map_or(&[], |written| written.needs.as_slice()),
                when: written.and_then(|written| written.when.as_ref()),
                failure: written.map_or(OnFailure::Fail, |written| written.failure),
                status: step.status,
                reason: step.reason.as_ref().map(|reason| reason.code.as_str()),
            }
        })
        .collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

/// One move for every step that is not over, in the order of numbers, but none for those that simply go on running or wait for a
/// person. To be asked again whenever a step has changed; asking twice does no harm. When there is no move left and nothing
/// runs, the stage is over.
#[must_use]
pub fn next_moves(nodes: &[Node<'_>], facts: &Facts) -> Vec<Move> {
    let clone = nodes.iter().find(|node| node.number == StepNumber::CLONE);
    // A step of the user's may be called as the clone is.
    let written = nodes.iter().filter(|node| node.number != StepNumber::CLONE);
    let by_name: HashMap<&str, &Node<'_>> = written.map(|node| (node.name, node)).collect();
    let failed: Vec<&str> = nodes.iter().filter(|node| node.counts_as_failed()).map(|node| node.name).collect();
    let canceller = nodes.iter().find(|node| node.counts_as_failed() && node.failure == OnFailure::Cancel);
    let open = nodes.iter().filter(|node| !node.status.is_over());
    open.filter_map(|node| match node.status {
        Status::Pending => Some(next_move(node, clone, &by_name, facts, &failed)),
        _ => canceller.filter(|_| !eval_when::runs_after_failure(node.when)).map(|sibling| {
            let message = format!("step \"{}\" failed, and its failure cancels the others", sibling.name);
            Move::Cancel(node.number, Reason::new(CANCELLED_BY_SIBLING, message))
        }),
    })
    .collect()
}

/// The steps whose turn comes next if all ends well, in the order of their turns: `most` at most.
#[must_use]
pub fn upcoming(nodes: &[Node<'_>], facts: &Facts, most: usize) -> Vec<StepNumber> {
    let mut hoped = nodes.to_vec();
    let mut upcoming = Vec::new();
    while upcoming.len() < most {
        for node in hoped.iter_mut().filter(|node| node.status == Status::Running) {
            node.status = Status::Success;
        }
        let mut goes_on = false;
        for one in next_moves(&hoped, facts) {
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

/// The end of all steps, because a person (or the stage's timeout) wants it. `reason` is kept with each.
#[must_use]
pub fn cancel_all(nodes: &[Node<'_>], reason: &Reason) -> Vec<Move> {
    nodes.iter().filter(|node| !node.status.is_over()).map(|node| Move::Cancel(node.number, reason.clone())).collect()
}

fn next_move(
    node: &Node<'_>,
    clone: Option<&Node<'_>>,
    by_name: &HashMap<&str, &Node<'_>>,
    facts: &Facts,
    failed: &[&str],
) -> Move {
    // Everybody needs the sources; nobody has to write so.
    let sources = clone.filter(|clone| clone.number != node.number && !clone.status.is_over());
    let needs = node.needs.iter().filter_map(|need| by_name.get(need.as_str()).copied());
    let open: Vec<&str> = sources.into_iter().chain(needs.filter(|need| !need.status.is_over())).map(|need| need.name).collect();
    if !open.is_empty() {
        return Move::Wait(node.number, Reason::new("needs", format!("waits for {}", open.join(", "))));
    }
    match eval_when::step_matches(node.when, facts, failed) {
        Ok(remarks) => Move::Start(node.number, remarks),
        Err(reason) => Move::Skip(node.number, reason),
    }
}

/// The word for the stage. An ignored failure is as good as a success; what a sibling's `failure: cancel` killed leaves the word
/// to the sibling; the host's clone says something only where it goes wrong or still runs.
#[must_use]
pub fn stage_status(nodes: &[Node<'_>]) -> Status {
    let part = |node: &Node<'_>| {
        let is_quiet_clone = node.number == StepNumber::CLONE && node.status == Status::Success;
        if is_quiet_clone || (node.has_failed() && node.reason == Some(CANCELLED_BY_SIBLING)) {
            None
        } else if node.has_failed() && !node.counts_as_failed() {
            Some(Status::Success)
        } else {
            Some(node.status)
        }
    };
    fold(nodes.iter().filter_map(part))
}

/// What the stage looks like to a step that starts now: `success` or `failure`, as `$BEESPACE_BUILD_STATUS` tells it.
#[must_use]
pub fn status_so_far(nodes: &[Node<'_>]) -> Status {
    if nodes.iter().any(Node::counts_as_failed) { Status::Failure } else { Status::Success }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::EventKind;
    use crate::pipeline::eval_when::ChangedPaths;
    use crate::pipeline::{Choice, Conditions};

    /// A step of a made-up stage: what the file says, how it will end, how it stands.
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

    fn push() -> Facts {
        Facts { event: EventKind::Push, branch: Some("main".to_owned()), changed: ChangedPaths::Known(Vec::new()) }
    }

    /// Does what a runner does with moves.
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

    /// Moves until nothing moves, and lets the steps that run end one by one; `pick` says which.
    fn run_to_end(steps: &mut [TestStep], mut pick: impl FnMut(usize) -> usize) {
        loop {
            loop {
                let moves = next_moves(&nodes_of(steps), &push());
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
    fn upcoming_steps_come_in_the_order_of_their_turns() {
        let mut steps = vec![
            TestStep::new("first", &[], Status::Success),
            TestStep::new("last", &["left", "right"], Status::Success),
            TestStep::new("left", &["first"], Status::Success),
            TestStep::new("right", &["rescue"], Status::Success),
            TestStep::new("rescue", &["first"], Status::Success).when(&[Status::Failure]),
        ];
        let upcoming = |steps: &[TestStep], most| -> Vec<u16> {
            upcoming(&nodes_of(steps), &push(), most).into_iter().map(|number| number.0).collect()
        };
        assert_eq!(upcoming(&steps, 9), [1, 3, 4, 2], "what is for a failure is skipped, and what needs it goes on");
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
    fn steps_wait_for_what_they_need_and_say_so() {
        let mut steps = vec![
            TestStep::new("build", &[], Status::Success),
            TestStep::new("test", &["build"], Status::Success),
            TestStep::new("lint", &[], Status::Success),
            TestStep::new("pack", &["test", "lint"], Status::Success),
        ];
        let moves = next_moves(&nodes_of(&steps), &push());
        assert!(matches!(moves[0], Move::Start(StepNumber(1), _)) && matches!(moves[2], Move::Start(StepNumber(3), _)));
        assert_eq!(moves[1], Move::Wait(StepNumber(2), Reason::new("needs", "waits for build")));
        assert_eq!(moves[3], Move::Wait(StepNumber(4), Reason::new("needs", "waits for test, lint")));
        run_to_end(&mut steps, |_| 0);
        assert_eq!(statuses(&steps), [Status::Success; 4]);
        assert_eq!(stage_status(&nodes_of(&steps)), Status::Success);
    }

    #[test]
    fn after_a_failure_only_those_run_that_ask_for_it() {
        let mut steps = vec![
            TestStep::new("build", &[], Status::Error),
            TestStep::new("test", &["build"], Status::Success),
            TestStep::new("chat", &["test"], Status::Success).when(&[Status::Success, Status::Failure]),
            TestStep::new("mourn", &["test"], Status::Success).when(&[Status::Failure]),
        ];
        run_to_end(&mut steps, |_| 0);
        assert_eq!(statuses(&steps), [Status::Error, Status::Skipped, Status::Success, Status::Success]);
        assert_eq!(steps[1].reason.as_ref().map(ToString::to_string).as_deref(), Some("`build` did not succeed"));
        assert_eq!(stage_status(&nodes_of(&steps)), Status::Error);
        assert_eq!(status_so_far(&nodes_of(&steps)), Status::Failure);
    }

    #[test]
    fn without_a_failure_nobody_mourns() {
        let mut steps = vec![
            TestStep::new("build", &[], Status::Success),
            TestStep::new("mourn", &["build"], Status::Success).when(&[Status::Failure]),
        ];
        run_to_end(&mut steps, |_| 0);
        assert_eq!(statuses(&steps), [Status::Success, Status::Skipped]);
        assert_eq!(stage_status(&nodes_of(&steps)), Status::Success);
    }

    #[test]
    fn an_ignored_failure_counts_for_nothing() {
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
    fn a_failure_that_cancels_kills_its_siblings_and_spares_the_mourners() {
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
        assert_eq!(stage_status(&nodes_of(&steps)), Status::Failure, "what the sibling killed does not count");
    }

    #[test]
    fn who_needs_a_skipped_step_runs_as_if_it_did_not() {
        let mut only_tags = TestStep::new("tag", &[], Status::Success);
        let event = Some(Choice { include: vec![EventKind::Tag], exclude: Vec::new() });
        only_tags.when = Some(When(vec![Conditions { event, ..Conditions::default() }]));
        let mut steps = vec![only_tags, TestStep::new("test", &["tag"], Status::Success)];
        run_to_end(&mut steps, |_| 0);
        assert_eq!(statuses(&steps), [Status::Skipped, Status::Success]);
    }

    #[test]
    fn everybody_waits_for_the_clone_and_nobody_runs_without_it() {
        let steps =
            [TestStep::new("clone", &[], Status::Success), TestStep::new("mourn", &[], Status::Success).when(&[Status::Failure])];
        let mut nodes = nodes_of(&steps);
        nodes.insert(0, Node { number: StepNumber::CLONE, status: Status::Running, ..nodes[0].clone() });
        assert_eq!(nodes[1].name, "clone", "a step of the user's may have that name");
        let waits = |number| Move::Wait(StepNumber(number), Reason::new("needs", "waits for clone"));
        assert_eq!(next_moves(&nodes, &push()), [waits(1), waits(2)]);
        nodes[0].status = Status::Error;
        let moves = next_moves(&nodes, &push());
        assert!(
            matches!(moves[0], Move::Skip(StepNumber(1), _)) && matches!(moves[1], Move::Start(StepNumber(2), _)),
            "{moves:?}"
        );
    }

    #[test]
    fn a_clone_alone_is_no_success_of_the_stage() {
        let steps = [TestStep::new("a", &[], Status::Success)];
        let mut nodes = nodes_of(&steps);
        nodes[0].status = Status::Skipped;
        nodes.push(Node { number: StepNumber::CLONE, status: Status::Success, ..nodes[0].clone() });
        assert_eq!(stage_status(&nodes), Status::Skipped);
        nodes[1].status = Status::Error;
        assert_eq!(stage_status(&nodes), Status::Error);
    }

    /// Stages whose steps need only earlier ones in a shuffled order: every graph without a cycle, later steps included.
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
        fn every_schedule_ends_and_keeps_the_order(stage in stages(), picks in proptest::collection::vec(any::<usize>(), 64)) {
            let mut steps = stage;
            let mut picks = picks.into_iter();
            for _ in 0..64 {
                let before = steps.clone();
                let moves = next_moves(&nodes_of(&steps), &push());
                let failed = before.iter().any(|step| status_so_far(&nodes_of(std::slice::from_ref(step))) == Status::Failure);
                for moved in moves.iter().filter(|moved| matches!(moved, Move::Start(..))) {
                    let step = &before[usize::from(moved.step().0) - 1];
                    let open = before.iter().filter(|other| step.needs.contains(&other.name) && other.is_open()).count();
                    prop_assert_eq!(open, 0, "started before its needs");
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
            prop_assert!(next_moves(&nodes, &push()).is_empty());
            prop_assert!(stage_status(&nodes).is_over());
            let is_good = matches!(stage_status(&nodes), Status::Success | Status::Skipped);
            prop_assert_eq!(is_good, status_so_far(&nodes) == Status::Success);
        }

        #[test]
        fn a_failure_that_cancels_reaches_every_sibling(stage in stages(), rounds in 1..8_usize) {
            let mut steps = stage;
            for _ in 0..rounds {
                let moves = next_moves(&nodes_of(&steps), &push());
                let has_failed = |step: &TestStep| step.failure == OnFailure::Cancel && step.status != Status::Skipped
                    && status_so_far(&nodes_of(std::slice::from_ref(step))) == Status::Failure;
                if steps.iter().any(has_failed) {
                    for (step, number) in steps.iter().zip(1..) {
                        let moved = moves.iter().find(|moved| moved.step() == StepNumber(number));
                        let spared = eval_when::runs_after_failure(step.when.as_ref());
                        prop_assert!(spared || step.status != Status::Running || matches!(moved, Some(Move::Cancel(..))), "{step:?}");
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
        fn a_cancellation_reaches_everybody(stage in stages(), rounds in 0..6_usize) {
            let mut steps = stage;
            for _ in 0..rounds {
                let moves = next_moves(&nodes_of(&steps), &push());
                apply_moves(&mut steps, &moves);
                if let Some(step) = steps.iter_mut().find(|step| step.status == Status::Running) {
                    step.status = step.end;
                }
            }
            let was_open = steps.iter().any(TestStep::is_open);
            let moves = cancel_all(&nodes_of(&steps), &Reason::new(CANCELLED, "cancelled by maya"));
            apply_moves(&mut steps, &moves);
            prop_assert!(steps.iter().all(|step| !step.is_open()));
            prop_assert!(next_moves(&nodes_of(&steps), &push()).is_empty());
            prop_assert!(was_open || moves.is_empty());
        }
    }
}
