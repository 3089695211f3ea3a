//! The `needs` of steps: a dependency graph, which must have no cycle. Pipelines use the same search for cycles.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::Reader;
use super::diagnostics::{did_you_mean, quote};
use super::step::StepDraft;
use super::{Pipeline, Step};
use crate::cycle_detection::first_in_cycle;
use crate::diagnostic::Span;

impl Pipeline {
    /// Why the steps cannot be executed in any order. The reader accepts only pipelines without such a problem.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let mut names = BTreeSet::new();
        if let Some(twice) = self.steps.iter().find(|step| !names.insert(step.name.as_str())) {
            return Some(format!("two steps are named {}", quote(&twice.name)));
        }
        let mut needs = self.steps.iter().flat_map(|step| &step.needs);
        if let Some(unknown) = needs.find(|need| !names.contains(need.as_str())) {
            return Some(format!("no step is named {}, but another step needs it", quote(unknown)));
        }
        let nodes: Vec<(&str, &[String])> = self.steps.iter().map(|step| (step.name.as_str(), step.needs.as_slice())).collect();
        let step = self.steps.get(first_in_cycle(&nodes)?)?;
        Some(format!("step {} depends on itself through `needs`", quote(&step.name)))
    }
}

impl Reader {
    /// Fills in the `needs` of each step: those in the file, or else the preceding step. Names must be unique and known, and
    /// there must be no cycle. If a step could not be read (`is_complete` is false), unknown names are not reported, because it
    /// may have that name. Cycles are reported only if names are unique.
    pub(super) fn resolve_needs(&mut self, drafts: Vec<StepDraft>, is_complete: bool) -> Vec<Step> {
        let is_unique = self.check_unique(&drafts);
        let names: BTreeSet<String> = drafts.iter().map(|draft| draft.step.name.clone()).collect();
        let mut spans: BTreeMap<String, Span> = BTreeMap::new();
        let mut silent = BTreeSet::new();
        let mut steps: Vec<Step> = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let mut step = draft.step;
            if let Some(needs) = draft.needs {
                for (need, span) in needs {
                    if is_complete && !names.contains(&need) {
                        self.unknown_step(&need, span, &names);
                    } else if step.needs.contains(&need) {
                        self.diagnostics.add("duplicate-name", span, format!("{} is listed twice in `needs`", quote(&need)));
                    } else {
                        step.needs.push(need);
                    }
                }
            } else {
                silent.insert(step.name.clone());
                step.needs.extend(steps.last().map(|before| before.name.clone()));
            }
            spans.insert(step.name.clone(), draft.name_span);
            steps.push(step);
        }
        if is_complete && is_unique {
            self.check_cycles(&steps, &spans, &silent);
        }
        steps
    }

    fn check_unique(&mut self, drafts: &[StepDraft]) -> bool {
        let mut first: BTreeMap<&str, Span> = BTreeMap::new();
        for draft in drafts {
            let name = draft.step.name.as_str();
            if let Some(span) = first.get(name) {
                let message = format!("duplicate step name {}; first used in line {}", quote(name), span.line);
                self.diagnostics.add_with_help(
                    "duplicate-name",
                    draft.name_span,
                    message,
                    "step names must be unique in a pipeline",
                );
            } else {
                first.insert(name, draft.name_span);
            }
        }
        first.len() == drafts.len()
    }

    fn unknown_step(&mut self, need: &str, span: Span, names: &BTreeSet<String>) {
        if self.diagnostics.has_diagnostic_at(span) {
            return;
        }
        let message = format!("no step is named {}", quote(need));
        let help = match did_you_mean(need, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {}?", quote(meant)),
            None => "`needs` can name only steps of the same pipeline".to_owned(),
        };
        self.diagnostics.add_with_help("unknown-step", span, message, help);
    }

    fn check_cycles(&mut self, steps: &[Step], spans: &BTreeMap<String, Span>, silent: &BTreeSet<String>) {
        let order: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        let needs = steps.iter().map(|step| (step.name.as_str(), step.needs.iter().map(String::as_str).collect()));
        for cycle in cycles(needs.collect(), &order) {
            let span = cycle.first().and_then(|name| spans.get(*name)).copied();
            let message = cycle_message("step", &cycle);
            let help = match cycle.iter().find(|name| silent.contains(**name)) {
                Some(name) => format!("{} has no `needs`, so it waits for the step before it; add `needs: []`", quote(name)),
                None if cycle.len() == 1 => "remove it from its `needs`".to_owned(),
                None => "remove one of the `needs`".to_owned(),
            };
            self.diagnostics.add_with_help("cycle", span, message, help);
        }
    }
}

/// A cycle of steps or pipelines (`what`), in words.
pub(super) fn cycle_message(what: &str, cycle: &[&str]) -> String {
    let way: Vec<String> = cycle.iter().chain(cycle.first()).map(|name| quote(name)).collect();
    match cycle {
        [name] => format!("{what} {} needs itself", quote(name)),
        _ => format!("these {what}s need each other: {}", way.join(" needs ")),
    }
}

/// Cycles without a common member, each beginning with its first member in `order`. `waits` are names with the names that they
/// need.
pub(super) fn cycles<'s>(mut waits: BTreeMap<&'s str, Vec<&'s str>>, order: &[&'s str]) -> Vec<Vec<&'s str>> {
    let mut cycles = Vec::new();
    while let Some(cycle) = next_cycle(&mut waits, order) {
        for name in &cycle {
            waits.remove(name);
        }
        cycles.push(cycle);
    }
    cycles
}

/// A cycle in `waits`, beginning with its first member in `order`. Names that need no other one in `waits` are removed first.
fn next_cycle<'s>(waits: &mut BTreeMap<&'s str, Vec<&'s str>>, order: &[&'s str]) -> Option<Vec<&'s str>> {
    loop {
        let done: Vec<&str> =
            waits.iter().filter(|(_, needs)| !needs.iter().any(|need| waits.contains_key(need))).map(|(name, _)| *name).collect();
        if done.is_empty() {
            break;
        }
        for name in done {
            waits.remove(name);
        }
    }
    let mut way: Vec<&str> = vec![order.iter().copied().find(|name| waits.contains_key(name))?];
    // Every remaining name needs a remaining one, so following the needs must return to a visited step.
    loop {
        let next = way.last().and_then(|last| waits.get(last)?.iter().copied().find(|need| waits.contains_key(need)))?;
        if let Some(start) = way.iter().position(|name| *name == next) {
            let mut cycle = way.split_off(start);
            let position = |name: &str| order.iter().position(|other| *other == name);
            let first = (0..cycle.len()).min_by_key(|index| cycle.get(*index).and_then(|name| position(name)))?;
            cycle.rotate_left(first);
            return Some(cycle);
        }
        way.push(next);
    }
}
