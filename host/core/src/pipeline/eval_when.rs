//! Evaluates `when`. If it does not match, the reason explains every condition that failed.
//!
//! The work is bounded, because the author of a commit chooses both the patterns and the changed paths. Each `paths` condition
//! is evaluated once per build ([`StageConditions`]), however often the steps of the stage are scheduled.

mod pipelines;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::diagnostics::{join_words, quote};
use super::patterns::{describe_wanted, first_match, join_patterns, path_set};
use super::{Choice, Conditions, Pipeline, When};
use crate::event::{Event, EventKind};
use crate::ids::StepNumber;
use crate::reason::Reason;
use crate::reason_code::ReasonCode;
use crate::status::Status;

pub(super) use pipelines::needs_failure;
pub use pipelines::{PipelineMatch, StartsOn, pipeline_matches, pipelines_match};

/// Events for which a pipeline runs if its `when` has no `event` condition.
pub const DEFAULT_EVENTS: [EventKind; 4] = [EventKind::Push, EventKind::Tag, EventKind::PullRequest, EventKind::Manual];

/// The maximum number of changed paths that conditions are evaluated against. More paths count as unknown.
pub const MAX_CHANGED_PATHS: usize = 100_000;

/// The maximum number of comparisons of a path with a pattern for all conditions of one build. The conditions that are left
/// count as met, as if the changed paths were unknown.
const MAX_COMPARISONS: usize = 20_000_000;

/// The maximum work for patterns with wildcards in all conditions of one build: bytes of paths times bytes of patterns. Such a
/// comparison may take a time in proportion to this product, and a path may be long. Plain patterns are looked up instead.
const MAX_WILDCARD_WORK: usize = 500_000_000;

/// The facts that conditions are evaluated against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub event: EventKind,
    /// Short name; for a pull request its target branch. `None` for an event without a branch (a tag).
    pub branch: Option<String>,
    /// Short name of the tag. `None` for an event without one.
    #[serde(default)]
    pub tag: Option<String>,
    /// Full name of the ref that is built.
    #[serde(default)]
    pub git_ref: String,
    /// Target of a promotion or rollback. `None` for other events.
    #[serde(default)]
    pub target: Option<String>,
    /// Name of the schedule that started the build. `None` for other events.
    #[serde(default)]
    pub cron: Option<String>,
    pub changed: ChangedPaths,
}

impl Facts {
    /// The facts of an event. More than [`MAX_CHANGED_PATHS`] changed paths become unknown.
    #[must_use]
    pub fn of_event(event: &Event, changed: ChangedPaths) -> Self {
        Self {
            event: event.kind(),
            branch: event.branch_or_target().map(ToOwned::to_owned),
            tag: event.tag().map(ToOwned::to_owned),
            git_ref: event.git_ref(),
            target: event.target().map(ToOwned::to_owned),
            cron: event.schedule().map(ToOwned::to_owned),
            changed: changed.bounded(),
        }
    }
}

/// The paths that the event changed, relative to the root of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangedPaths {
    /// All paths that were added, changed or removed (a renamed file counts with both its names); bytes that are not UTF-8 are
    /// replaced.
    Known(Vec<String>),
    /// The paths are unknown, and every `paths` condition counts as met. The text gives the reason as the end of a sentence:
    /// `the new branch has no commit in common with main`.
    Unknown(String),
}

impl ChangedPaths {
    fn bounded(self) -> Self {
        match self {
            Self::Known(paths) if paths.len() > MAX_CHANGED_PATHS => {
                Self::Unknown(format!("more than {MAX_CHANGED_PATHS} paths changed"))
            }
            other => other,
        }
    }
}

/// The conditions of all steps of a stage, evaluated as far as they do not depend on how other steps end.
#[derive(Debug, Clone, Default)]
pub struct StageConditions {
    /// In the order of the steps.
    steps: Vec<StepConditions>,
    /// Those of a step without a `when`.
    unconditional: StepConditions,
}

impl StageConditions {
    /// Evaluates event, branch and paths of every step. The work is bounded, but may take seconds; it is done once per stage.
    #[must_use]
    pub fn evaluate(pipeline: &Pipeline, facts: &Facts) -> Self {
        Self::of_steps(pipeline.steps.iter().map(|step| step.when.as_ref()), facts)
    }

    /// As [`Self::evaluate`], from the `when` of each step.
    pub fn of_steps<'w>(whens: impl IntoIterator<Item = Option<&'w When>>, facts: &Facts) -> Self {
        let mut evaluator = Evaluator::new(facts);
        let steps = whens.into_iter().map(|when| StepConditions::evaluate(when, &mut evaluator)).collect();
        Self { steps, unconditional: StepConditions::evaluate(None, &mut evaluator) }
    }

    /// Whether the step may still run: its event, branch and paths match, and only its `status` is open.
    #[must_use]
    pub fn may_run(&self, step: StepNumber) -> bool {
        self.of(step).alternatives.iter().any(|(outcome, _)| outcome.failed.is_empty())
    }

    fn of(&self, step: StepNumber) -> &StepConditions {
        let index = usize::from(step.0).checked_sub(1);
        index.and_then(|index| self.steps.get(index)).unwrap_or(&self.unconditional)
    }

    /// Whether a ready step runs. `failed` are the names of the steps with a counted failure so far; they become part of the
    /// reason. `Ok` contains remarks about conditions that could not be checked.
    ///
    /// An alternative without a `status` condition requires that no step has failed.
    ///
    /// # Errors
    /// The reason why the step does not run.
    pub fn step_matches(&self, step: StepNumber, failed: &[&str]) -> Result<Vec<Reason>, Reason> {
        self.of(step).matches(failed)
    }
}

/// The conditions of one step: what is known of each alternative before the stage starts, and its `status` condition.
#[derive(Debug, Clone, Default)]
struct StepConditions {
    alternatives: Vec<(Outcome, Option<Choice<Status>>)>,
    is_written: bool,
}

impl StepConditions {
    fn evaluate<'w>(when: Option<&'w When>, evaluator: &mut Evaluator<'w, '_>) -> Self {
        let mut evaluated = Vec::new();
        for conditions in alternatives(when) {
            let event = conditions.event.as_ref().map_or(Ok(()), |choice| match_event(choice, evaluator.facts));
            evaluated.push((evaluator.outcome(event, conditions), conditions.status.clone()));
        }
        Self { alternatives: evaluated, is_written: when.is_some() }
    }

    fn matches(&self, failed: &[&str]) -> Result<Vec<Reason>, Reason> {
        let alternatives = self.alternatives.iter();
        let with_status = alternatives.map(|(outcome, status)| (outcome, match_status(status.as_ref(), failed).err()));
        any_of(with_status, self.is_written)
    }
}

/// Whether the step runs even after a failure. Such steps are not cancelled by a sibling's `failure: cancel`.
#[must_use]
pub fn runs_after_failure(when: Option<&When>) -> bool {
    let tolerates = |conditions: &Conditions| match_status(conditions.status.as_ref(), &["a sibling"]).is_ok();
    when.is_some_and(|When(alternatives)| alternatives.iter().any(tolerates))
}

/// The alternatives of a `when`; one without conditions if there is none.
fn alternatives(when: Option<&When>) -> &[Conditions] {
    static UNCONDITIONAL: [Conditions; 1] =
        [Conditions { event: None, branch: None, tag: None, git_ref: None, paths: None, target: None, cron: None, status: None }];
    when.map_or(UNCONDITIONAL.as_slice(), |When(alternatives)| alternatives.as_slice())
}

/// The result of one alternative.
#[derive(Debug, Clone, Default)]
struct Outcome {
    failed: Vec<Reason>,
    remarks: Vec<Reason>,
}

/// Evaluates the conditions of one build. It compares each set of patterns with the changed paths once.
struct Evaluator<'w, 'f> {
    facts: &'f Facts,
    paths: HashMap<&'w Choice<String>, Result<Option<Reason>, Reason>>,
    comparisons_left: usize,
    wildcard_work_left: usize,
}

impl<'w, 'f> Evaluator<'w, 'f> {
    fn new(facts: &'f Facts) -> Self {
        Self { facts, paths: HashMap::new(), comparisons_left: MAX_COMPARISONS, wildcard_work_left: MAX_WILDCARD_WORK }
    }

    fn outcome(&mut self, event: Result<(), Reason>, conditions: &'w Conditions) -> Outcome {
        let mut parts = Outcome { failed: event.err().into_iter().collect(), remarks: Vec::new() };
        let facts = self.facts;
        let names = [
            (&conditions.branch, "branch", ReasonCode::WhenBranch, facts.branch.as_deref()),
            (&conditions.tag, "tag", ReasonCode::WhenTag, facts.tag.as_deref()),
            (&conditions.git_ref, "ref", ReasonCode::WhenRef, Some(facts.git_ref.as_str())),
            (&conditions.target, "target", ReasonCode::WhenTarget, facts.target.as_deref()),
            (&conditions.cron, "schedule", ReasonCode::WhenCron, facts.cron.as_deref()),
        ];
        for (choice, what, code, name) in names {
            let matched = choice.as_ref().map_or(Ok(()), |choice| match_name(choice, what, name));
            parts.failed.extend(matched.err().map(|message| Reason::new(code, message)));
        }
        if let Some(choice) = &conditions.paths {
            match self.match_paths(choice) {
                Ok(remark) => parts.remarks.extend(remark),
                Err(reason) => parts.failed.push(reason),
            }
        }
        parts
    }

    fn match_paths(&mut self, choice: &'w Choice<String>) -> Result<Option<Reason>, Reason> {
        if let Some(known) = self.paths.get(choice) {
            return known.clone();
        }
        let result = match &self.facts.changed {
            ChangedPaths::Unknown(why) => Ok(Some(paths_unknown(&format!("the changed paths are unknown: {why}")))),
            ChangedPaths::Known(paths) => {
                if self.spend(choice, paths) {
                    match_paths(choice, paths)
                } else {
                    Ok(Some(paths_unknown(&format!("there are too many patterns for {} changed paths", paths.len()))))
                }
            }
        };
        self.paths.insert(choice, result.clone());
        result
    }

    /// Takes the cost of a comparison from what is left. False, and nothing taken, if it is more than that.
    fn spend(&mut self, choice: &Choice<String>, paths: &[String]) -> bool {
        let patterns = || choice.include.iter().chain(&choice.exclude);
        let wildcards = patterns().filter(|pattern| pattern.contains(['*', '?', '[', '{']));
        let wildcard_bytes = wildcards.map(String::len).fold(0, usize::saturating_add);
        let path_bytes = paths.iter().map(String::len).fold(0, usize::saturating_add);
        let comparisons = self.comparisons_left.checked_sub(paths.len().saturating_mul(patterns().count()));
        let work = self.wildcard_work_left.checked_sub(path_bytes.saturating_mul(wildcard_bytes));
        let (Some(comparisons), Some(work)) = (comparisons, work) else { return false };
        (self.comparisons_left, self.wildcard_work_left) = (comparisons, work);
        true
    }
}

fn paths_unknown(why: &str) -> Reason {
    Reason::new(ReasonCode::WhenPathsUnknown, format!("`paths` was not checked because {why}"))
}

/// Whether one of several alternatives matches: each is its outcome and the reason why its `status` does not match.
fn any_of<'o>(
    alternatives: impl Iterator<Item = (&'o Outcome, Option<Reason>)>,
    is_written: bool,
) -> Result<Vec<Reason>, Reason> {
    let mut refusals = Vec::new();
    for (outcome, status) in alternatives {
        if outcome.failed.is_empty() && status.is_none() {
            return Ok(outcome.remarks.clone());
        }
        refusals.push(outcome.failed.iter().cloned().chain(status).collect());
    }
    Err(refusal_reason(refusals, is_written))
}

/// Combines the failed conditions of all alternatives into one reason. A single alternative gets no level of its own, and a
/// single condition without a written `when` is the reason itself.
fn refusal_reason(mut refusals: Vec<Vec<Reason>>, is_written: bool) -> Reason {
    if refusals.len() == 1 {
        let mut only = refusals.pop().unwrap_or_default();
        if only.len() == 1 && !is_written {
            return only.remove(0);
        }
        return only.into_iter().fold(Reason::new(ReasonCode::WhenMismatch, "`when` does not match"), Reason::part);
    }
    let alternative = |parts: Vec<Reason>, number: usize| {
        parts.into_iter().fold(Reason::new(ReasonCode::WhenAlternative, format!("alternative {number}")), Reason::part)
    };
    let numbered = refusals.into_iter().zip(1..).map(|(parts, number)| alternative(parts, number));
    numbered.fold(Reason::new(ReasonCode::WhenMismatch, "no alternative of `when` matches"), Reason::part)
}

fn match_event(choice: &Choice<EventKind>, facts: &Facts) -> Result<(), Reason> {
    let kind = facts.event;
    if choice.exclude.contains(&kind) {
        Err(Reason::new(ReasonCode::WhenEvent, format!("the event {kind} is excluded")))
    } else if !choice.include.is_empty() && !choice.include.contains(&kind) {
        Err(Reason::new(ReasonCode::WhenEvent, format!("the event is {kind}, expected {}", join_words(&choice.include, "or"))))
    } else {
        Ok(())
    }
}

/// Whether the name of a branch, tag or other part of the event (`what`) matches; `Err` explains why not.
fn match_name(choice: &Choice<String>, what: &str, name: Option<&str>) -> Result<(), String> {
    let Some(name) = name else {
        return Err(format!("the event has no {what}, expected {}", describe_wanted(choice)));
    };
    if let Some(pattern) = first_match(&choice.exclude, name) {
        Err(format!("the {what} {} is excluded by {}", quote(name), quote(pattern)))
    } else if !choice.include.is_empty() && first_match(&choice.include, name).is_none() {
        Err(format!("the {what} is {}, expected {}", quote(name), describe_wanted(choice)))
    } else {
        Ok(())
    }
}

fn match_paths(choice: &Choice<String>, paths: &[String]) -> Result<Option<Reason>, Reason> {
    let (Some(include), Some(exclude)) = (path_set(&choice.include), path_set(&choice.exclude)) else {
        return Ok(Some(paths_unknown("its patterns are too complex")));
    };
    let is_included = |path: &&String| choice.include.is_empty() || include.is_match(path);
    let included = paths.iter().filter(is_included);
    let mut matched = 0_usize;
    for path in included {
        if !exclude.is_match(path) {
            return Ok(None);
        }
        matched += 1;
    }
    let message = match (paths, matched) {
        ([], _) => "no path was changed".to_owned(),
        ([path], 0) => format!("the only changed path {} does not match {}", quote(path), describe_wanted(choice)),
        (all, 0) => format!("none of the {} changed paths matches {}", all.len(), describe_wanted(choice)),
        (_, _) => format!("every matching changed path is excluded by {}", join_patterns(&choice.exclude)),
    };
    Err(Reason::new(ReasonCode::WhenPaths, message))
}

fn match_status(choice: Option<&Choice<Status>>, failed: &[&str]) -> Result<(), Reason> {
    let so_far = if failed.is_empty() { Status::Success } else { Status::Failure };
    let holds = match choice {
        None => so_far == Status::Success,
        Some(Choice { include, exclude }) => !exclude.contains(&so_far) && (include.is_empty() || include.contains(&so_far)),
    };
    if holds {
        return Ok(());
    }
    let message = if failed.is_empty() {
        "no step has failed".to_owned()
    } else {
        let names: Vec<String> = failed.iter().take(3).map(|name| quote(name)).collect();
        let more = failed.len().saturating_sub(names.len());
        let others = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{others} did not succeed", join_words(&names, "and"))
    };
    let code = if failed.is_empty() { ReasonCode::NothingFailed } else { ReasonCode::EarlierFailure };
    Err(Reason::new(code, message))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::patterns::pattern;
    use super::*;

    fn facts(branch: &str, paths: &[String]) -> Facts {
        Facts {
            event: EventKind::Push,
            branch: Some(branch.to_owned()),
            tag: None,
            git_ref: format!("refs/heads/{branch}"),
            target: None,
            cron: None,
            changed: ChangedPaths::Known(paths.to_vec()),
        }
    }

    #[test]
    fn a_reason_lists_a_few_of_many_patterns() {
        let patterns = (0..100).map(|number| format!("src/{number}")).collect();
        let reason = match_paths(&Choice { include: patterns, exclude: Vec::new() }, &["a".to_owned()]).unwrap_err();
        assert!(reason.message.ends_with("`src/8`, `src/9` or 90 more patterns"), "{reason}");
    }

    #[test]
    fn tags_and_refs_are_compared_with_their_patterns() {
        let of_tag = |name: &str| Facts {
            event: EventKind::Tag,
            branch: None,
            tag: Some(name.to_owned()),
            git_ref: format!("refs/tags/{name}"),
            target: None,
            cron: None,
            changed: ChangedPaths::Unknown("a tag".to_owned()),
        };
        let matches = |conditions: Conditions, facts: &Facts| {
            pipeline_matches(Some(&When(vec![conditions])), facts).map(drop).map_err(|reason| reason.parts[0].to_string())
        };
        let tag = |pattern: &str| Conditions { tag: choice(vec![pattern.to_owned()], vec![]), ..Conditions::default() };
        let git_ref = |pattern: &str| Conditions { git_ref: choice(vec![pattern.to_owned()], vec![]), ..Conditions::default() };
        assert_eq!(matches(tag("v*"), &of_tag("v1.0")), Ok(()));
        assert_eq!(matches(tag("v*"), &of_tag("release/v1")).unwrap_err(), "the tag is `release/v1`, expected `v*`");
        assert_eq!(matches(tag("**"), &facts("main", &[])).unwrap_err(), "the event has no tag, expected `**`");
        assert_eq!(matches(git_ref("refs/tags/**"), &of_tag("release/v1")), Ok(()));
        assert_eq!(
            matches(git_ref("refs/tags/**"), &facts("main", &[])).unwrap_err(),
            "the ref is `refs/heads/main`, expected `refs/tags/**`"
        );
    }

    #[test]
    fn a_target_chooses_promotions_and_rollbacks_without_an_event() {
        let to = |target: &str| Facts { event: EventKind::Promote, target: Some(target.to_owned()), ..facts("main", &[]) };
        let when = |conditions: Conditions| When(vec![conditions]);
        let production = when(Conditions { target: choice(vec!["prod*".to_owned()], vec![]), ..Conditions::default() });
        assert_eq!(pipeline_matches(Some(&production), &to("production")), Ok(vec![]));
        let refused = |facts: &Facts| pipeline_matches(Some(&production), facts).unwrap_err().parts[0].to_string();
        assert_eq!(refused(&to("staging")), "the target is `staging`, expected `prod*`");
        assert_eq!(refused(&facts("main", &[])), "the event has no target, expected `prod*`");
        let not_staging = when(Conditions { target: choice(vec![], vec!["staging".to_owned()]), ..Conditions::default() });
        assert!(pipeline_matches(Some(&not_staging), &facts("main", &[])).is_err(), "a push has no target");
        let nightly = when(Conditions { cron: choice(vec!["nightly".to_owned()], vec![]), ..Conditions::default() });
        let by = |cron: &str| Facts { event: EventKind::Cron, cron: Some(cron.to_owned()), ..facts("main", &[]) };
        assert_eq!(pipeline_matches(Some(&nightly), &by("nightly")), Ok(vec![]));
        let refused = pipeline_matches(Some(&nightly), &by("weekly")).unwrap_err();
        assert_eq!(refused.parts[0].to_string(), "the schedule is `weekly`, expected `nightly`");
        assert!(pipeline_matches(None, &to("production")).is_err(), "a promotion is not among the default events");
    }

    fn choice<T>(include: Vec<T>, exclude: Vec<T>) -> Option<Choice<T>> {
        Some(Choice { include, exclude })
    }

    fn on_branch(include: Vec<String>, exclude: Vec<String>, branch: &str) -> bool {
        let when = When(vec![Conditions { branch: choice(include, exclude), ..Conditions::default() }]);
        pipeline_matches(Some(&when), &facts(branch, &[])).is_ok()
    }

    fn step_runs(when: &When, facts: &Facts, failed: &[&str]) -> bool {
        StageConditions::of_steps([Some(when)], facts).step_matches(StepNumber(1), failed).is_ok()
    }

    fn on_paths(patterns: Vec<String>) -> When {
        When(vec![Conditions { paths: choice(patterns, vec![]), ..Conditions::default() }])
    }

    fn numbered_paths(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("p/{number}")).collect()
    }

    #[test]
    fn equal_patterns_of_many_steps_are_compared_with_the_paths_once() {
        let facts = facts("main", &numbered_paths(1_000));
        let when = on_paths(vec!["docs/**".to_owned(), "web/**".to_owned()]);
        let mut evaluator = Evaluator::new(&facts);
        for _ in 0..500 {
            assert!(StepConditions::evaluate(Some(&when), &mut evaluator).matches(&[]).is_err());
        }
        assert_eq!(evaluator.comparisons_left, MAX_COMPARISONS - 2 * 1_000);
    }

    #[test]
    fn patterns_beyond_the_bound_are_not_compared_and_count_as_met() {
        let facts = facts("main", &numbered_paths(MAX_CHANGED_PATHS));
        let whens: Vec<When> = (0..3).map(|step| on_paths((0..100).map(|n| format!("{step}/{n}/a")).collect())).collect();
        let conditions = StageConditions::of_steps(whens.iter().map(Some), &facts);
        let matches = |step| conditions.step_matches(StepNumber(step), &[]);
        assert!(matches(1).is_err() && matches(2).is_err(), "20 million comparisons");
        let remarks = matches(3).unwrap();
        assert_eq!(remarks[0].message, "`paths` was not checked because there are too many patterns for 100000 changed paths");
    }

    #[test]
    fn long_paths_with_wildcards_are_not_compared_beyond_the_bound() {
        let long: Vec<String> = (0..100).map(|n| format!("{n}/{}", "ac".repeat(10_000))).collect();
        let facts = facts("main", &long);
        let slow = on_paths((0..10).map(|n| format!("**/*a{}{n}", "?".repeat(240))).collect());
        let remarks = StageConditions::of_steps([Some(&slow)], &facts).step_matches(StepNumber(1), &[]).unwrap();
        assert_eq!(remarks[0].message, "`paths` was not checked because there are too many patterns for 100 changed paths");
        let plain = on_paths(vec!["docs".to_owned()]);
        assert!(StageConditions::of_steps([Some(&plain)], &facts).step_matches(StepNumber(1), &[]).is_err());
    }

    #[test]
    fn very_many_changed_paths_are_unknown() {
        let most = ChangedPaths::Known(numbered_paths(MAX_CHANGED_PATHS));
        assert_eq!(most.clone().bounded(), most);
        let more = ChangedPaths::Known(numbered_paths(MAX_CHANGED_PATHS + 1));
        assert_eq!(more.bounded(), ChangedPaths::Unknown("more than 100000 paths changed".to_owned()));
    }

    /// Names without characters that are special in a glob.
    const NAME: &str = "[a-z0-9._-]{1,8}";

    proptest! {
        #[test]
        fn a_plain_name_matches_only_itself(name in NAME, other in NAME) {
            prop_assert!(on_branch(vec![name.clone()], vec![], &name));
            prop_assert_eq!(on_branch(vec![name.clone()], vec![], &other), name == other);
        }

        #[test]
        fn a_star_stops_at_a_slash_and_two_do_not(head in NAME, tail in NAME, leaf in NAME) {
            let (flat, deep) = (format!("{head}/{tail}"), format!("{head}/{tail}/{leaf}"));
            let (star, stars) = (format!("{head}/*"), format!("{head}/**"));
            prop_assert!(on_branch(vec![star.clone()], vec![], &flat));
            prop_assert!(!on_branch(vec![star], vec![], &deep));
            prop_assert!(on_branch(vec![stars.clone()], vec![], &flat));
            prop_assert!(on_branch(vec![stars], vec![], &deep));
        }

        #[test]
        fn exclude_takes_precedence(name in NAME, include in proptest::collection::vec(NAME, 0..4)) {
            prop_assert!(!on_branch(include, vec![name.clone()], &name));
            prop_assert!(!on_branch(vec![name.clone()], vec!["**".to_owned()], &name));
        }

        #[test]
        fn no_pattern_or_text_panics(glob in "\\PC{0,30}", text in "\\PC{0,30}") {
            if pattern(&glob).is_ok() {
                on_branch(vec![glob], vec![], &text);
            }
        }

        #[test]
        fn paths_are_met_if_one_path_matches(paths in proptest::collection::vec("(src|docs)/[a-z]{1,3}", 0..6)) {
            let when = When(vec![Conditions {
                paths: choice(vec!["**".to_owned()], vec!["docs/**".to_owned()]),
                ..Conditions::default()
            }]);
            let expected = paths.iter().any(|path| path.starts_with("src/"));
            prop_assert_eq!(pipeline_matches(Some(&when), &facts("main", &paths)).is_ok(), expected);
        }

        #[test]
        fn more_alternatives_never_make_it_stricter(
            branches in proptest::collection::vec("[ab]", 1..4),
            more in "[ab]",
            branch in "[ab]",
            fails in any::<bool>(),
        ) {
            let alternative = |branch: &String| {
                let branch = choice(vec![branch.clone()], vec![]);
                Conditions { branch, ..Conditions::default() }
            };
            let mut when = When(branches.iter().map(alternative).collect());
            let failed: &[&str] = if fails { &["x"] } else { &[] };
            let before = step_runs(&when, &facts(&branch, &[]), failed);
            when.0.push(alternative(&more));
            let after = step_runs(&when, &facts(&branch, &[]), failed);
            prop_assert!(!before || after);
        }
    }

    #[test]
    fn what_tolerates_a_failure_says_so_in_its_status() {
        let with = |include: Vec<Status>, exclude: Vec<Status>| {
            When(vec![Conditions { status: choice(include, exclude), ..Conditions::default() }])
        };
        assert!(!runs_after_failure(None));
        assert!(!runs_after_failure(Some(&with(vec![Status::Success], vec![]))));
        assert!(runs_after_failure(Some(&with(vec![Status::Success, Status::Failure], vec![]))));
        assert!(runs_after_failure(Some(&with(vec![], vec![Status::Success]))));
    }
}
