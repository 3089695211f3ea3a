//! The order in which policies are asked, and what their answers do to the subject.
//!
//! Mutators first, in declared order, each seeing what those before it made; where any of them changed something, all of them
//! once more: a document that still moves is a conflict. Then the validators, on the final document. A policy that only warns or
//! shadows goes the same way, with its patches tried and recorded, never applied.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::decide::decide;
use super::patch::{self, PatchError};
use super::pointer::{PathGrant, Pointer};
use super::{
    BASELINE_POLICY, Decision, ErrorClass, Evaluation, EvaluationError, Mode, PatchKind, PatchOp, Point, Ruling, Subject,
    Verdict, VerdictOutcome,
};
use crate::digest::{Digest, Document};
use crate::ids::{DecisionId, StageId};
use crate::time::Timestamp;

/// Obligations that this version meets when an `grant_access` depends on them: none yet.
const KNOWN_OBLIGATIONS: [&str; 0] = [];

/// A policy bound to a point.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The binding's name.
    pub policy: String,
    pub component: Digest,
    pub settings: Digest,
    pub mode: Mode,
    /// What its patches may touch at this point. With any it is a mutator, without a validator.
    pub mutable: Vec<PathGrant>,
}

/// Whom to ask next, and about what.
#[derive(Debug, Clone, Copy)]
pub struct NextEvaluation<'a> {
    /// The place in the list of bindings.
    pub binding: usize,
    pub document: &'a Document,
}

/// One decision on its way: the host asks [`Chain::next_evaluation`], evaluates, and gives [`Chain::answer`] until there is none left.
pub struct Chain<T> {
    subject: T,
    document: Document,
    /// The subject as JSON, in step with the two above.
    value: Value,
    before: Digest,
    baseline: Box<dyn Fn(&T) -> Verdict + Send + Sync>,
    links: Vec<ChainLink>,
    phase: ChainPhase,
    queue: VecDeque<usize>,
}

impl<T: fmt::Debug> fmt::Debug for Chain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("subject", &self.subject).field("round", &self.phase).finish_non_exhaustive()
    }
}

/// A binding and what has become of it so far.
#[derive(Debug)]
struct ChainLink {
    binding: Binding,
    result: Option<Result<Verdict, EvaluationError>>,
    applied: Vec<PatchOp>,
    duration: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChainPhase {
    Mutators,
    MutatorsAgain,
    Validators,
    Done,
}

/// A decided subject.
#[derive(Debug, Clone)]
pub struct ChainResult<T> {
    /// With all patches applied.
    pub subject: T,
    /// Digest of what was asked about.
    pub before: Digest,
    /// The floor's first, then the policies' in declared order.
    pub evaluations: Vec<Evaluation>,
    pub ruling: Ruling,
}

impl<T: Subject + Serialize + DeserializeOwned> Chain<T> {
    /// Begins with the built-in floor's word. What it denies is denied: no policy is asked, because none could change that.
    #[must_use]
    pub fn new(subject: T, bindings: Vec<Binding>, floor: impl Fn(&T) -> Verdict + Send + Sync + 'static) -> Self {
        let document = subject.subject_document();
        let value = serde_json::to_value(&subject).unwrap_or_default();
        let is_denied = floor(&subject).outcome == VerdictOutcome::Deny;
        let parts: Vec<ChainLink> = bindings.into_iter().map(ChainLink::new).collect();
        let queue = (0..parts.len()).filter(|place| parts.get(*place).is_some_and(ChainLink::is_mutator)).collect();
        let mut chain = Self {
            before: document.digest(),
            subject,
            document,
            value,
            baseline: Box::new(floor),
            links: parts,
            phase: ChainPhase::Mutators,
            queue,
        };
        if is_denied {
            chain.phase = ChainPhase::Done;
            chain.queue.clear();
        }
        chain.advance();
        chain
    }

    /// Whom to ask next; none when all is said.
    #[must_use]
    pub fn next_evaluation(&self) -> Option<NextEvaluation<'_>> {
        self.queue.front().map(|binding| NextEvaluation { binding: *binding, document: &self.document })
    }

    /// What the binding of [`Chain::next_evaluation`] said, and how long that took.
    pub fn record_evaluation(&mut self, result: Result<Verdict, EvaluationError>, took: Duration) {
        let Some(place) = self.queue.pop_front() else { return };
        let result = result.and_then(|verdict| self.apply_verdict(place, verdict));
        if let Some(part) = self.links.get_mut(place) {
            part.duration += took;
            // Trouble in an earlier round stays: that it went well the second time makes it no better.
            if !matches!(part.result, Some(Err(_))) {
                part.result = Some(result);
            }
        }
        self.advance();
    }

    /// Checks a verdict's conditions and tries its patches; applies them where the binding counts.
    fn apply_verdict(&mut self, place: usize, verdict: Verdict) -> Result<Verdict, EvaluationError> {
        let unknown = verdict.obligations.iter().find(|o| o.mandatory && !KNOWN_OBLIGATIONS.contains(&o.id.as_str()));
        if let Some(obligation) = unknown {
            let message = format!("it allows on the condition {:?}, which this Beespace cannot meet", obligation.id);
            return Err(EvaluationError { class: ErrorClass::Obligation, message });
        }
        let Some(part) = self.links.get(place) else { return Ok(verdict) };
        if verdict.patches.is_empty() {
            return Ok(verdict);
        }
        let (subject, value) = apply_patches::<T>(&self.value, &verdict.patches, &part.binding.mutable)?;
        if value == self.value || part.binding.mode != Mode::Enforce {
            return Ok(verdict);
        }
        if self.phase != ChainPhase::Mutators {
            return Err(self.conflict(&part.binding.policy, &verdict.patches));
        }
        self.document = subject.subject_document();
        self.subject = subject;
        self.value = value;
        if let Some(part) = self.links.get_mut(place) {
            part.applied.clone_from(&verdict.patches);
        }
        Ok(verdict)
    }

    /// `policy` changes the document although every mutator has had its say: names whom it disagrees with, and where.
    fn conflict(&self, policy: &str, patches: &[PatchOp]) -> EvaluationError {
        let others: Vec<(&str, Pointer)> = (self.links.iter().rev())
            .filter(|part| part.binding.policy != policy)
            .flat_map(|part| changed_pointers(&part.applied).map(|at| (part.binding.policy.as_str(), at)))
            .collect();
        let clash = changed_pointers(patches).find_map(|at| {
            let (other, _) = others.iter().find(|(_, theirs)| theirs.touches(&at))?;
            Some(format!("{policy:?} and {other:?} do not agree on `{at}`: each changes it again after the other"))
        });
        let alone = || {
            let at = changed_pointers(patches).next().unwrap_or_default();
            format!("{policy:?} changes `{at}` again every time it is asked")
        };
        EvaluationError { class: ErrorClass::Conflict, message: clash.unwrap_or_else(alone) }
    }

    /// Goes on to the next round that has anyone to ask.
    fn advance(&mut self) {
        while self.queue.is_empty() && self.phase != ChainPhase::Done {
            self.phase = match self.phase {
                ChainPhase::Mutators if self.has_changed() => ChainPhase::MutatorsAgain,
                ChainPhase::Mutators | ChainPhase::MutatorsAgain => ChainPhase::Validators,
                ChainPhase::Validators | ChainPhase::Done => ChainPhase::Done,
            };
            let wants_mutators = match self.phase {
                ChainPhase::Mutators | ChainPhase::MutatorsAgain => true,
                ChainPhase::Validators => false,
                ChainPhase::Done => return,
            };
            let asked = self.links.iter().enumerate().filter(|(_, part)| part.is_mutator() == wants_mutators);
            self.queue.extend(asked.map(|(place, _)| place));
        }
    }

    fn has_changed(&self) -> bool {
        self.links.iter().any(|part| !part.applied.is_empty())
    }

    /// The ruling. A binding that was never asked counts as trouble, so that a host that stops half-way has denied.
    #[must_use]
    pub fn into_result(self) -> ChainResult<T> {
        let floor = (self.baseline)(&self.subject);
        let is_asked = floor.outcome != VerdictOutcome::Deny || self.has_changed();
        let mut evaluations = vec![Evaluation {
            policy: BASELINE_POLICY.to_owned(),
            component: None,
            settings: None,
            mode: Mode::Enforce,
            result: Ok(floor),
            applied: Vec::new(),
            duration_us: 0,
        }];
        if is_asked {
            evaluations.extend(self.links.into_iter().map(ChainLink::into_evaluation));
        }
        ChainResult { subject: self.subject, before: self.before, ruling: decide(&evaluations), evaluations }
    }
}

impl<T: Subject> ChainResult<T> {
    /// The record to keep, and the subject that it is about.
    pub fn into_decision(
        self,
        id: DecisionId,
        point: Point,
        stage: StageId,
        step: Option<String>,
        decided_at: Timestamp,
    ) -> (Decision, T) {
        let decision = Decision {
            id,
            point,
            stage,
            step,
            subject_before: self.before,
            subject: self.subject.subject_digest(),
            evaluations: self.evaluations,
            ruling: self.ruling,
            decided_at,
        };
        (decision, self.subject)
    }
}

impl ChainLink {
    fn new(binding: Binding) -> Self {
        Self { binding, result: None, applied: Vec::new(), duration: Duration::ZERO }
    }

    fn is_mutator(&self) -> bool {
        !self.binding.mutable.is_empty()
    }

    fn into_evaluation(self) -> Evaluation {
        let never = || EvaluationError { class: ErrorClass::Internal, message: "it was never asked".to_owned() };
        Evaluation {
            policy: self.binding.policy,
            component: Some(self.binding.component),
            settings: Some(self.binding.settings),
            mode: self.binding.mode,
            result: self.result.unwrap_or_else(|| Err(never())),
            applied: self.applied,
            duration_us: u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// The subject with the patches applied, and its JSON, where it still is one of ours.
fn apply_patches<T: Subject + Serialize + DeserializeOwned>(
    value: &Value,
    patches: &[PatchOp],
    grants: &[PathGrant],
) -> Result<(T, Value), EvaluationError> {
    let trouble = |message: String| EvaluationError { class: ErrorClass::Patch, message };
    let patched = patch::apply(value, patches, grants).map_err(|error: PatchError| trouble(error.to_string()))?;
    let subject = T::deserialize(&patched).map_err(|error| trouble(format!("its patch leaves no valid document: {error}")))?;
    if let Some(problem) = subject.problem() {
        return Err(trouble(format!("its patch leaves what cannot be carried out: {problem}")));
    }
    let understood = serde_json::to_value(&subject).map_err(|error| trouble(error.to_string()))?;
    match patch::first_ignored_path(&patched, &understood) {
        Some(at) => Err(trouble(format!("its patch sets `{at}`, which this Beespace does not know"))),
        None => Ok((subject, understood)),
    }
}

/// The places that a patch changes.
fn changed_pointers(patches: &[PatchOp]) -> impl Iterator<Item = Pointer> {
    patches.iter().filter(|op| op.op != PatchKind::Test).filter_map(|op| op.path.parse().ok())
}

#[cfg(test)]
mod tests;
