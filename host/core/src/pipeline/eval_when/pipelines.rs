//! Which pipelines of a build run, and after which results of the pipelines that they need.

use serde::{Deserialize, Serialize};

use super::{DEFAULT_EVENTS, Evaluator, Facts, alternatives, any_of, match_event, match_status};
use crate::pipeline::When;
use crate::pipeline::diagnostics::join_words;
use crate::reason::Reason;
use crate::reason_code::ReasonCode;

/// The results of the pipelines that a pipeline needs, directly or through others, after which it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartsOn {
    /// None of them has failed.
    #[default]
    Success,
    /// One of them has failed.
    Failure,
    /// Any results.
    Always,
}

/// A pipeline that runs, as far as its `when` is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PipelineMatch {
    /// Conditions that could not be checked.
    pub remarks: Vec<Reason>,
    /// From the `status` of the alternatives that match, as in Drone's `trigger`.
    pub starts_on: StartsOn,
}

/// Whether a pipeline runs. `Ok` contains remarks about conditions that could not be checked.
///
/// # Errors
/// The reason why the pipeline does not run.
pub fn pipeline_matches(when: Option<&When>, facts: &Facts) -> Result<Vec<Reason>, Reason> {
    match_pipeline(&mut Evaluator::new(facts), when).map(|matched| matched.remarks)
}

/// Which pipelines of a build run, in their order; an error is the reason why a pipeline does not run. The work is bounded for
/// all of them together.
pub fn pipelines_match<'w>(
    whens: impl IntoIterator<Item = Option<&'w When>>,
    facts: &Facts,
) -> Vec<Result<PipelineMatch, Reason>> {
    let mut evaluator = Evaluator::new(facts);
    whens.into_iter().map(|when| match_pipeline(&mut evaluator, when)).collect()
}

fn match_pipeline<'w>(evaluator: &mut Evaluator<'w, '_>, when: Option<&'w When>) -> Result<PipelineMatch, Reason> {
    let facts = evaluator.facts;
    let mut outcomes = Vec::new();
    for conditions in alternatives(when) {
        let event = match &conditions.event {
            Some(choice) => match_event(choice, facts),
            // Only promotions and rollbacks have a target, and only scheduled builds a schedule: the condition chooses them.
            None if conditions.target.is_some() || conditions.cron.is_some() => Ok(()),
            None if DEFAULT_EVENTS.contains(&facts.event) => Ok(()),
            None => Err(not_a_default_event(facts)),
        };
        outcomes.push((evaluator.outcome(event, conditions), conditions.status.as_ref()));
    }
    let remarks = any_of(outcomes.iter().map(|(outcome, _)| (outcome, None)), when.is_some())?;
    let matching = || outcomes.iter().filter(|(outcome, _)| outcome.failed.is_empty()).map(|(_, status)| *status);
    let starts_after = |failed: &[&str]| matching().any(|status| match_status(status, failed).is_ok());
    let starts_on = match (starts_after(&[]), starts_after(&["a pipeline"])) {
        (true, true) => StartsOn::Always,
        (true, false) => StartsOn::Success,
        (false, true) => StartsOn::Failure,
        (false, false) => return Err(Reason::new(ReasonCode::WhenMismatch, "its `status` excludes every result")),
    };
    Ok(PipelineMatch { remarks, starts_on })
}

/// Whether a `when` matches only after a failure.
pub(in crate::pipeline) fn needs_failure(When(alternatives): &When) -> bool {
    !alternatives.is_empty() && alternatives.iter().all(|conditions| match_status(conditions.status.as_ref(), &[]).is_err())
}

fn not_a_default_event(facts: &Facts) -> Reason {
    let default = join_words(&DEFAULT_EVENTS, "and");
    let message = format!("the event is {}, and without an `event` condition a pipeline runs only for {default}", facts.event);
    Reason::new(ReasonCode::WhenEvent, message)
}
