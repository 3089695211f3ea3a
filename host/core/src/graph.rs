//! Which step's turn it is. Pure: the runner tells how the steps stand, this says what to do about it.
//!
//! A step's turn comes when all that it needs is over, however it ended. Then its `when` decides: without `status` it wants that
//! nothing that counts has failed anywhere in the stage so far. `failure: ignore` does not count; neither does what was killed
//! because of a sibling's `failure: cancel` (the sibling itself does).

use std::collections::HashMap;

use crate::build::{self, Stage};
use crate::ids::StepNumber;
use crate::outcome::Reason;
use crate::pipeline::when::{self, Facts};
use crate::pipeline::{OnFailure, When};
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
    /// Stop it where it runs, never start it where it waits: becomes `killed`, with this reason.
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
    fn failed(&self) -> bool {
        matches!(self.status, Status::Failure | Status::Error | Status::Killed | Status::Declined)
    }

    /// Whether its failure is one for the stage.
    fn counts_as_failed(&self) -> bool {
        self.failed() && self.failure != OnFailure::Ignore && self.reason != Some(CANCELLED_BY_SIBLING)
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
pub fn next(nodes: &[Node<'_>], facts: &Facts) -> Vec<Move> {
    let clone = nodes.iter().find(|node| node.number == StepNumber::CLONE);
    // A step of the user's may be called as the clone is.
    let written = nodes.iter().filter(|node| node.number != StepNumber::CLONE);
    let by_name: HashMap<&str, &Node<'_>> = written.map(|node| (node.name, node)).collect();
    let failed: Vec<&str> = nodes.iter().filter(|node| node.counts_as_failed()).map(|node| node.name).collect();
    let canceller = nodes.iter().find(|node| node.counts_as_failed() && node.failure == OnFailure::Cancel);
    let open = nodes.iter().filter(|node| !node.status.is_over());
    open.filter_map(|node| match node.status {
        Status::Pending => Some(turn(node, clone, &by_name, facts, &failed)),
        _ => canceller.filter(|_| !when::tolerates_failure(node.when)).map(|sibling| {
            let message = format!("step \"{}\" failed, and its failure cancels the others", sibling.name);
            Move::Cancel(node.number, Reason::new(CANCELLED_BY_SIBLING, message))
        }),
    })
    .collect()
}

/// The end of all steps, because a person (or the stage's timeout) wants it. `reason` is kept with each.
#[must_use]
pub fn cancel_all(nodes: &[Node<'_>], reason: &Reason) -> Vec<Move> {
    nodes.iter().filter(|node| !node.status.is_over()).map(|node| Move::Cancel(node.number, reason.clone())).collect()
}

fn turn(node: &Node<'_>, clone: Option<&Node<'_>>, by_name: &HashMap<&str, &Node<'_>>, facts: &Facts, failed: &[&str]) -> Move {
    // Everybody needs the sources; nobody has to write so.
    let sources = clone.filter(|clone| clone.number != node.number && !clone.status.is_over());
    let needs = node.needs.iter().filter_map(|need| by_name.get(need.as_str()).copied());
    let open: Vec<&str> = sources.into_iter().chain(needs.filter(|need| !need.status.is_over())).map(|need| need.name).collect();
    if !open.is_empty() {
        return Move::Wait(node.number, Reason::new("needs", format!("waits for {}", open.join(", "))));
    }
    match when::step_holds(node.when, facts, failed) {
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
        if is_quiet_clone || (node.failed() && node.reason == Some(CANCELLED_BY_SIBLING)) {
            None
        } else if node.failed() && !node.counts_as_failed() {
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
