//! The chain of policies: the order of their evaluation, and the effect of their verdicts on the subject.
//!
//! Mutators are evaluated first, in declared order, and each sees the changes of those before it. If any of them changed the
//! document, all of them are evaluated again, and a further change is a conflict. Then the validators evaluate the final
//! document. Policies in the modes `warn` and `shadow` take part in the same way; their patches are tried and recorded, but
//! never applied.

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

/// A policy bound to a point.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The binding's name.
    pub policy: String,
    pub component: Digest,
    pub settings: Digest,
    pub mode: Mode,
    /// Paths that its patches may change at this point. A policy with such paths is a mutator, without them a validator.
    pub mutable: Vec<PathGrant>,
}

/// The next policy to evaluate, and the document for it.
#[derive(Debug, Clone, Copy)]
pub struct NextEvaluation<'a> {
    /// Index in the list of bindings.
    pub binding: usize,
    pub document: &'a Document,
}

/// One decision in progress. The host evaluates [`Chain::next_evaluation`] and reports the result to
/// [`Chain::record_evaluation`] until there is no next one.
pub struct Chain<T> {
    subject: T,
    document: Document,
    /// The subject as JSON; always consistent with `subject` and `document`.
    value: Value,
    before: Digest,
    baseline: Box<dyn Fn(&T) -> Verdict + Send + Sync>,
    links: Vec<ChainLink>,
    phase: ChainPhase,
    queue: VecDeque<usize>,
    /// The obligations that the host meets.
    obligations: &'static [&'static str],
}

impl<T: fmt::Debug> fmt::Debug for Chain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("subject", &self.subject).field("round", &self.phase).finish_non_exhaustive()
    }
}

/// A binding and the result of its evaluation so far.
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

/// The subject of a decision, and the circumstances in which it is made.
#[derive(Debug, Clone)]
pub struct DecisionSite {
    pub id: DecisionId,
    pub point: Point,
    pub stage: StageId,
    /// Name of the step; `None` at `pipeline.admit`.
    pub step: Option<String>,
    /// Digest of the rules of the instance.
    pub rules: Digest,
    pub decided_at: Timestamp,
}

/// The result of a chain: a decided subject.
#[derive(Debug, Clone)]
pub struct ChainResult<T> {
    /// The subject with all patches applied.
    pub subject: T,
    /// Digest of the subject before patches.
    pub before: Digest,
    /// The evaluation of the baseline policy, then those of the other policies in declared order.
    pub evaluations: Vec<Evaluation>,
    pub ruling: Ruling,
}

impl<T: Subject + Serialize + DeserializeOwned> Chain<T> {
    /// Starts a chain with the verdict of the baseline policy. If that denies, no policy is evaluated, because none could
    /// override it.
    #[must_use]
    pub fn new(subject: T, bindings: Vec<Binding>, baseline: impl Fn(&T) -> Verdict + Send + Sync + 'static) -> Self {
        let document = subject.subject_document();
        let value = serde_json::to_value(&subject).unwrap_or_default();
        let is_denied = baseline(&subject).outcome == VerdictOutcome::Deny;
        let parts: Vec<ChainLink> = bindings.into_iter().map(ChainLink::new).collect();
        let queue = (0..parts.len()).filter(|index| parts.get(*index).is_some_and(ChainLink::is_mutator)).collect();
        let mut chain = Self {
            before: document.digest(),
            subject,
            document,
            value,
            baseline: Box::new(baseline),
            links: parts,
            phase: ChainPhase::Mutators,
            queue,
            obligations: &[],
        };
        if is_denied {
            chain.phase = ChainPhase::Done;
            chain.queue.clear();
        }
        chain.advance();
        chain
    }

    /// Sets the obligations that the host meets at this point: [`Point::obligations`].
    #[must_use]
    pub fn with_obligations(self, obligations: &'static [&'static str]) -> Self {
        Self { obligations, ..self }
    }

    /// The next evaluation; `None` when the chain is complete.
    #[must_use]
    pub fn next_evaluation(&self) -> Option<NextEvaluation<'_>> {
        self.queue.front().map(|binding| NextEvaluation { binding: *binding, document: &self.document })
    }

    /// Records the result of [`Chain::next_evaluation`], and how long the evaluation took.
    pub fn record_evaluation(&mut self, result: Result<Verdict, EvaluationError>, took: Duration) {
        let Some(index) = self.queue.pop_front() else { return };
        let result = result.and_then(|verdict| self.apply_verdict(index, verdict));
        if let Some(part) = self.links.get_mut(index) {
            part.duration += took;
            // A failure in an earlier phase stays recorded, even if the second evaluation succeeded.
            if !matches!(part.result, Some(Err(_))) {
                part.result = Some(result);
            }
        }
        self.advance();
    }

    /// Checks the obligations of a verdict and tries its patches; applies them if the binding's mode is `enforce`.
    fn apply_verdict(&mut self, index: usize, verdict: Verdict) -> Result<Verdict, EvaluationError> {
        let unknown = verdict.obligations.iter().find(|o| o.mandatory && !self.obligations.contains(&o.id.as_str()));
        if let Some(obligation) = unknown {
            let message =
                format!("the policy requires the obligation {:?}, which this version does not support here", obligation.id);
            return Err(EvaluationError { class: ErrorClass::Obligation, message });
        }
        let Some(part) = self.links.get(index) else { return Ok(verdict) };
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
        if let Some(part) = self.links.get_mut(index) {
            part.applied.clone_from(&verdict.patches);
        }
        Ok(verdict)
    }

    /// The error for `policy`, which changes the document again in the second phase. It names the conflicting policy and the
    /// path.
    fn conflict(&self, policy: &str, patches: &[PatchOp]) -> EvaluationError {
        let others: Vec<(&str, Pointer)> = (self.links.iter().rev())
            .filter(|part| part.binding.policy != policy)
            .flat_map(|part| changed_pointers(&part.applied).map(|at| (part.binding.policy.as_str(), at)))
            .collect();
        let clash = changed_pointers(patches).find_map(|at| {
            let (other, _) = others.iter().find(|(_, theirs)| theirs.touches(&at))?;
            Some(format!("the policies {policy:?} and {other:?} conflict: each changes `{at}` again after the other"))
        });
        let alone = || {
            let at = changed_pointers(patches).next().unwrap_or_default();
            format!("the policy {policy:?} changes `{at}` in every evaluation")
        };
        EvaluationError { class: ErrorClass::Conflict, message: clash.unwrap_or_else(alone) }
    }

    /// Advances to the next phase that has a policy to evaluate.
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
            let next = self.links.iter().enumerate().filter(|(_, part)| part.is_mutator() == wants_mutators);
            self.queue.extend(next.map(|(index, _)| index));
        }
    }

    fn has_changed(&self) -> bool {
        self.links.iter().any(|part| !part.applied.is_empty())
    }

    /// The ruling. A binding that was never evaluated counts as a failure, so an incomplete chain is a denial.
    #[must_use]
    pub fn into_result(self) -> ChainResult<T> {
        let verdict = (self.baseline)(&self.subject);
        let is_asked = verdict.outcome != VerdictOutcome::Deny || self.has_changed();
        let mut evaluations = vec![Evaluation {
            policy: BASELINE_POLICY.to_owned(),
            component: None,
            settings: None,
            mode: Mode::Enforce,
            result: Ok(verdict),
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
    /// The decision to store, and its subject.
    pub fn into_decision(self, site: DecisionSite) -> (Decision, T) {
        let DecisionSite { id, point, stage, step, rules, decided_at } = site;
        let decision = Decision {
            id,
            point,
            stage,
            step,
            subject_before: self.before,
            subject: self.subject.subject_digest(),
            evaluations: self.evaluations,
            ruling: self.ruling,
            rules: Some(rules),
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
        let never = || EvaluationError { class: ErrorClass::Internal, message: "the policy was not evaluated".to_owned() };
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

/// The subject with the patches applied, and its JSON, if the result is still valid.
fn apply_patches<T: Subject + Serialize + DeserializeOwned>(
    value: &Value,
    patches: &[PatchOp],
    grants: &[PathGrant],
) -> Result<(T, Value), EvaluationError> {
    let failure = |message: String| EvaluationError { class: ErrorClass::Patch, message };
    let patched = patch::apply(value, patches, grants).map_err(|error: PatchError| failure(error.to_string()))?;
    let subject =
        T::deserialize(&patched).map_err(|error| failure(format!("the patch results in an invalid document: {error}")))?;
    if let Some(problem) = subject.problem() {
        return Err(failure(format!("the patch results in a document that cannot be executed: {problem}")));
    }
    let understood = serde_json::to_value(&subject).map_err(|error| failure(error.to_string()))?;
    match patch::first_ignored_path(&patched, &understood) {
        Some(at) => Err(failure(format!("the patch sets `{at}`, which this version does not support"))),
        None => Ok((subject, understood)),
    }
}

/// The paths that a patch changes.
fn changed_pointers(patches: &[PatchOp]) -> impl Iterator<Item = Pointer> {
    patches.iter().filter(|op| op.op != PatchKind::Test).filter_map(|op| op.path.parse().ok())
}

#[cfg(test)]
mod tests;
