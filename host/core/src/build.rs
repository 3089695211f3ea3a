//! A build and its parts in their current state: one execution for one event.

mod head;
mod pipeline_file;
mod schedules;
mod summary;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::head::{Base, Head};
use crate::event::Event;
use crate::exit::Exit;
use crate::ids::{BuildId, DecisionId, DeliveryId, Sha, StageId, StageNumber, StepNumber};
use crate::pipeline::eval_when::StartsOn;
use crate::pipeline::substitution::Values;
use crate::pipeline::{Pipeline, Place, matrix};
use crate::plan::StepPlan;
use crate::policy::Finding;
use crate::policy::approval::PendingApproval;
use crate::reason::Reason;
use crate::reason_code::ReasonCode;
use crate::status::Status;
use crate::time::Timestamp;
use crate::trust::Trust;
pub use pipeline_file::PipelineFile;

/// One execution for one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    pub id: BuildId,
    /// Per repository, from 1. `None` until it is known whether the commit has a pipeline file.
    pub number: Option<u64>,
    pub event: Event,
    /// The delivery that reported the event.
    pub delivery: Option<DeliveryId>,
    /// The build that this one repeats.
    pub restart_of: Option<BuildId>,
    /// The commit to build, if it is known before the fetch: the one that the event names, or that of the repeated build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Sha>,
    /// The branch whose pipeline files the build runs instead of those of its commit; none if it runs its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_from: Option<PipelineOrigin>,
    /// The merge that a pipeline with `clone: { pull_request: merge }` checks out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
    /// Whether the commit is the value of a pull request's ref that Gogs may not have updated yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub head_unconfirmed: bool,
    /// How far the code is trusted, recorded with `head`; before that, for a restart, the trust in the repeated build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    pub status: Status,
    /// Why the build waits, was skipped or declined, or could not be run.
    pub reason: Option<Reason>,
    /// The commit as git describes it; `None` before the source is fetched.
    pub head: Option<Head>,
    /// The pipeline files, sorted by path, and the problems found in them; empty before the source is fetched.
    #[serde(default, alias = "file", deserialize_with = "pipeline_file::one_or_several")]
    pub files: Vec<PipelineFile>,
    pub phase: Phase,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl Build {
    /// `acme/app #12`. A build has no number until its pipeline file has been found.
    #[must_use]
    pub fn label(&self) -> String {
        let name = &self.event.repository.name;
        self.number.map_or_else(|| name.to_string(), |number| format!("{name} #{number}"))
    }

    /// A build that is stored, but not prepared yet.
    #[must_use]
    pub fn pending(id: BuildId, event: Event, at: Timestamp) -> Self {
        Self {
            id,
            number: None,
            commit: event.sha().cloned(),
            pipeline_from: None,
            merge: None,
            head_unconfirmed: false,
            trust: None,
            event,
            delivery: None,
            restart_of: None,
            status: Status::Pending,
            reason: Some(Reason::new(ReasonCode::WaitingForSource, "waiting for its source")),
            head: None,
            files: Vec::new(),
            phase: Phase::Prepare,
            created_at: at,
            started_at: None,
            finished_at: None,
        }
    }

    /// The commit that is built; `None` until it is known, which for a tag is after the fetch.
    #[must_use]
    pub fn sha(&self) -> Option<&Sha> {
        self.head.as_ref().map(|head| &head.sha).or(self.commit.as_ref()).or(self.event.sha())
    }

    /// The commit that the changes of the build are compared with, if there is one: for a pull request the merge base with its
    /// target.
    #[must_use]
    pub fn base(&self) -> Option<&Sha> {
        match &self.head.as_ref()?.base {
            Base::Commit(base) => Some(base),
            Base::Unknown(_) => None,
        }
    }

    /// How far the code is trusted. It is not while its commit is unknown.
    #[must_use]
    pub fn trust(&self) -> Trust {
        // A row that has a commit but no trust was stored before trust was recorded, when only pushes were built.
        let of_earlier_row = if self.event.push().is_some() { Trust::Trusted } else { Trust::Untrusted };
        if self.head.is_some() { self.trust.unwrap_or(of_earlier_row) } else { Trust::Untrusted }
    }

    /// The values of the substitutions in its pipeline file.
    #[must_use]
    pub fn values(&self) -> Values {
        Values::of_event(&self.event, self.sha(), self.number)
    }

    /// The first seven digits of [`Self::sha`]; empty while it is unknown.
    #[must_use]
    pub fn short_sha(&self) -> &str {
        self.sha().map_or("", Sha::short)
    }

    /// The commit that the ref pointed to before, combined from Gogs' payload and git's history; `None` for a new ref.
    #[must_use]
    pub fn before(&self) -> Option<&Sha> {
        let push = self.event.push()?;
        self.base().filter(|base| push.last_known_tip.as_ref() == Some(*base)).or(push.before.as_ref())
    }
}

/// The head of a pull request merged into its target by this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    pub commit: Sha,
    /// The commit of the target branch that the head was merged into.
    pub target: Sha,
}

/// Where the pipeline files of a build come from, if not from its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineOrigin {
    /// Short name of the branch.
    pub branch: String,
    pub commit: Sha,
}

/// How far a build has progressed: it selects the worker that processes the build next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Source, pipeline, admission and planning are still ahead.
    Prepare,
    /// The stages are stored, and each of them is scheduled on its own.
    Run,
    /// Nothing more will happen.
    Finished,
}

/// One pipeline that executes in a build, with its own workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    pub build: BuildId,
    pub number: StageNumber,
    /// The pipeline as admitted, with the policies' patches applied.
    pub pipeline: Pipeline,
    /// Where the pipeline comes from.
    #[serde(default)]
    pub place: Place,
    /// The stages of the build that must finish before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<StageNumber>,
    /// The results of those stages after which it starts.
    #[serde(default)]
    pub starts_on: StartsOn,
    /// Whether it still waits for those stages. Until then it is not queued.
    #[serde(default)]
    pub waits_for_needs: bool,
    pub status: Status,
    pub reason: Option<Reason>,
    /// Conditions of its `when` that could not be checked and therefore count as met.
    pub remarks: Vec<Reason>,
    /// The decision of `pipeline.admit`.
    pub decision: Option<DecisionId>,
    pub steps: Vec<Step>,
    /// Which image each reference means, from its normal form to a reference that means this image for ever. All steps of the
    /// build run these images.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Every approval that was ever requested. [`Stage::open_approvals`] are those that are still open.
    pub approvals: Vec<PendingApproval>,
    /// Start of the current wait for an approval, while none of its steps runs. The stage's network is released meanwhile, its
    /// workspace is kept.
    pub awaiting_approval_since: Option<Timestamp>,
    /// Duration of all earlier waits for approvals, in milliseconds.
    pub approval_wait_ms: u64,
    /// Set when a person has cancelled the stage.
    pub cancel_requested: Option<CancelRequest>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl Stage {
    /// A stage that has not started yet.
    #[must_use]
    pub fn pending(id: StageId, pipeline: Pipeline, decision: Option<DecisionId>, steps: Vec<Step>, at: Timestamp) -> Self {
        Self {
            build: id.build,
            number: id.stage,
            pipeline,
            place: Place::default(),
            needs: Vec::new(),
            starts_on: StartsOn::default(),
            waits_for_needs: false,
            status: Status::Pending,
            reason: None,
            remarks: Vec::new(),
            decision,
            steps,
            images: BTreeMap::new(),
            approvals: Vec::new(),
            awaiting_approval_since: None,
            approval_wait_ms: 0,
            cancel_requested: None,
            created_at: at,
            started_at: None,
            finished_at: None,
        }
    }

    /// The id of the stage.
    #[must_use]
    pub fn id(&self) -> StageId {
        StageId { build: self.build, stage: self.number }
    }

    /// The name of its pipeline with its cell, for people: `test (rust=1.95)`.
    #[must_use]
    pub fn title(&self) -> String {
        matrix::title(&self.pipeline.name, &self.pipeline.cell)
    }

    /// The step with this number, if the stage has one.
    #[must_use]
    pub fn step(&self, number: StepNumber) -> Option<&Step> {
        self.steps.iter().find(|step| step.number == number)
    }

    /// Like [`step`](Self::step), for changing the step.
    pub fn step_mut(&mut self, number: StepNumber) -> Option<&mut Step> {
        self.steps.iter_mut().find(|step| step.number == number)
    }

    /// The status that people see: a running stage is shown as blocked while one of its steps waits for an approval.
    #[must_use]
    pub fn display_status(&self) -> Status {
        let waits = self.status == Status::Running && self.steps.iter().any(|step| step.status == Status::Blocked);
        if waits { Status::Blocked } else { self.status }
    }

    /// Whether a person can approve or decline something now: the stage is blocked, or it has started and one of its steps is
    /// blocked.
    #[must_use]
    pub fn accepts_approval(&self) -> bool {
        self.status == Status::Blocked
            || (!self.status.is_over() && self.started_at.is_some() && self.blocked_steps().next().is_some())
    }

    /// The approvals that the stage waits for, or would wait for again if a given approval expired. Before the start these are
    /// all that policies require; after it, those for the next plan of each blocked step.
    pub fn open_approvals(&self) -> impl Iterator<Item = &PendingApproval> {
        let open = self.approvals.iter().filter(|pending| pending.declined.is_none());
        open.filter(|pending| {
            self.started_at.is_none() || self.blocked_steps().any(|(_, round)| round.decision == pending.decision)
        })
    }

    /// The images that a step runs, or will run: their references as written, each with the digest if it is known.
    pub fn images_of<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let containers = step.round.iter().flat_map(|round| &round.plan.containers);
        containers.map(|container| {
            let image = container.image_reference().and_then(|reference| self.images.get(&reference));
            (container.image.as_str(), image.map(|image| image.split_once('@').map_or(&**image, |(_, digest)| digest)))
        })
    }

    /// Steps whose next plan waits for an approval, with that plan.
    pub fn blocked_steps(&self) -> impl Iterator<Item = (&Step, &Round)> {
        let blocked = self.steps.iter().filter(|step| step.status == Status::Blocked);
        blocked.filter_map(|step| Some((step, step.round.as_ref()?)))
    }

    /// How long the stage has run by `now`, without the time that it waited for approvals.
    #[must_use]
    pub fn run_duration(&self, now: Timestamp) -> Duration {
        let since_start =
            self.started_at.map_or(Duration::ZERO, |started| self.awaiting_approval_since.unwrap_or(now).since(started));
        since_start.saturating_sub(Duration::from_millis(self.approval_wait_ms))
    }
}

/// The person who cancelled a stage, and the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    pub by: String,
    pub at: Timestamp,
}

/// One step of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub number: StepNumber,
    pub name: String,
    pub status: Status,
    pub reason: Option<Reason>,
    /// The secrets that it does not get, and conditions of its `when` that could not be checked and therefore count as met.
    pub remarks: Vec<Reason>,
    /// The plan of the current round and the decision that allowed it; `None` until the step is planned, and if it is skipped.
    pub round: Option<Round>,
    /// From 1. Each attempt has its own log.
    pub attempt: u16,
    /// The first round, kept for a further attempt if a later one has replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_round: Option<Round>,
    /// Exits of the current round.
    pub exits: Vec<Exit>,
    /// Findings that a step type reported at its end.
    pub findings: Vec<Finding>,
    /// Why the log is incomplete; `None` if it is complete.
    pub log_incomplete: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl Step {
    /// Makes the row that of the next attempt: it begins with the first round again.
    pub fn begin_next_attempt(&mut self, remark: Reason) {
        self.attempt = self.attempt.saturating_add(1);
        self.round = self.first_round.take().or(self.round.take());
        self.exits.clear();
        self.findings.clear();
        self.log_incomplete = None;
        self.remarks.push(remark);
    }

    /// A step that has not started yet.
    #[must_use]
    pub fn pending(number: StepNumber, name: impl Into<String>) -> Self {
        Self {
            number,
            name: name.into(),
            status: Status::Pending,
            reason: None,
            remarks: Vec::new(),
            round: None,
            attempt: 1,
            first_round: None,
            exits: Vec::new(),
            findings: Vec::new(),
            log_incomplete: None,
            started_at: None,
            finished_at: None,
        }
    }
}

/// One plan of a step, with the decision that admitted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// From 0; at most 31.
    pub number: u16,
    pub plan: StepPlan,
    pub decision: DecisionId,
    /// A cleanup round, planned after the step was stopped. A stop does not reach it, and no other round follows.
    pub is_cleanup: bool,
}

impl Round {
    /// The first round of a step.
    #[must_use]
    pub fn first(plan: StepPlan, decision: DecisionId) -> Self {
        Self { number: 0, plan, decision, is_cleanup: false }
    }
}
