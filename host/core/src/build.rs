//! A build and its parts as they stand: one execution for one event.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::event::{Cause, Claim, Event};
use crate::exit::Exit;
use crate::ids::{BuildId, DecisionId, DeliveryId, Sha, StageId, StageNumber, StepNumber};
use crate::pipeline::{Pipeline, Spans};
use crate::plan::StepPlan;
use crate::policy::Finding;
use crate::policy::approval::PendingApproval;
use crate::reason::Reason;
use crate::status::Status;
use crate::time::Timestamp;

/// One execution for one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    pub id: BuildId,
    /// Per repository, from 1. None while nobody knows whether there is a pipeline file at the commit.
    pub number: Option<u64>,
    pub event: Event,
    /// What told us of the event.
    pub delivery: Option<DeliveryId>,
    /// The build this one repeats.
    pub restart_of: Option<BuildId>,
    pub status: Status,
    /// Why it waits, was skipped, declined or could not be run.
    pub reason: Option<Reason>,
    /// What git knows of the commit; none before the source is fetched.
    pub head: Option<Head>,
    /// The pipeline file and what is wrong with it.
    pub file: Option<PipelineFile>,
    pub phase: Phase,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl Build {
    /// A build that is stored, but not prepared yet.
    #[must_use]
    pub fn pending(id: BuildId, event: Event, at: Timestamp) -> Self {
        Self {
            id,
            number: None,
            event,
            delivery: None,
            restart_of: None,
            status: Status::Pending,
            reason: Some(Reason::new("waiting-for-source", "waits for its source")),
            head: None,
            file: None,
            phase: Phase::Prepare,
            created_at: at,
            started_at: None,
            finished_at: None,
        }
    }

    /// Where the ref stood before, as Gogs and git tell it together; none where it is new.
    #[must_use]
    pub fn before(&self) -> Option<&Sha> {
        let Cause::Push(push) = &self.event.cause;
        let base = self.head.as_ref().and_then(|head| match &head.base {
            Base::Commit(base) => Some(base),
            Base::Unknown(_) => None,
        });
        base.filter(|base| push.last_known_tip.as_ref() == Some(*base)).or(push.before.as_ref())
    }
}

/// How far a build has come: which worker takes it next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Source, pipeline, admit and plan are still to come.
    Prepare,
    /// Its stages are stored and have a life of their own.
    Run,
    /// Nothing more will happen.
    Finished,
}

/// The commit as git tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub sha: Sha,
    /// Whole message, lossy where it is no UTF-8.
    pub message: String,
    pub author: Claim,
    pub base: Base,
}

/// What the change of a build is told against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// Where the branch stood before the push; for a new branch, where it left the default branch then.
    Commit(Sha),
    /// There is none; why, as the end of a sentence: `the branch is new, and it is the default branch`.
    Unknown(String),
}

/// The exact bytes that were read, and every problem with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineFile {
    /// Path in the repository.
    pub path: String,
    pub text: String,
    pub diagnostics: Vec<Diagnostic>,
    /// Where each part of the normal form was written, so that a finding about a part is shown at its line.
    pub spans: Spans,
}

/// One pipeline being executed in a build, with its own workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    pub build: BuildId,
    pub number: StageNumber,
    /// The pipeline as admitted (patches applied).
    pub pipeline: Pipeline,
    pub status: Status,
    pub reason: Option<Reason>,
    /// What of its `when` could not be checked, and holds for that.
    pub remarks: Vec<Reason>,
    /// What `pipeline.admit` decided.
    pub decision: Option<DecisionId>,
    pub steps: Vec<Step>,
    /// What people were asked for, [asked](Self::open_approvals) now or before.
    pub approvals: Vec<PendingApproval>,
    /// Since when nothing of it runs because a person is waited for. Its network is given back meanwhile, its workspace stays.
    pub awaiting_approval_since: Option<Timestamp>,
    /// How long it rested before, in milliseconds.
    pub approval_wait_ms: u64,
    /// A person asked for its end.
    pub cancel_requested: Option<CancelRequest>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl Stage {
    /// One whose turn has not come.
    #[must_use]
    pub fn pending(id: StageId, pipeline: Pipeline, decision: Option<DecisionId>, steps: Vec<Step>, at: Timestamp) -> Self {
        Self {
            build: id.build,
            number: id.stage,
            pipeline,
            status: Status::Pending,
            reason: None,
            remarks: Vec::new(),
            decision,
            steps,
            approvals: Vec::new(),
            awaiting_approval_since: None,
            approval_wait_ms: 0,
            cancel_requested: None,
            created_at: at,
            started_at: None,
            finished_at: None,
        }
    }

    #[must_use]
    pub fn id(&self) -> StageId {
        StageId { build: self.build, stage: self.number }
    }

    /// The step with this number, if the stage has one.
    #[must_use]
    pub fn step(&self, number: StepNumber) -> Option<&Step> {
        self.steps.iter().find(|step| step.number == number)
    }

    /// As [`step`](Self::step), to change the step.
    pub fn step_mut(&mut self, number: StepNumber) -> Option<&mut Step> {
        self.steps.iter_mut().find(|step| step.number == number)
    }

    /// The status that people see: one that runs is blocked while a step of it waits for a person.
    #[must_use]
    pub fn display_status(&self) -> Status {
        let waits = self.status == Status::Running && self.steps.iter().any(|step| step.status == Status::Blocked);
        if waits { Status::Blocked } else { self.status }
    }

    /// Whether a person may say something to it: it is blocked, or a step of it that has begun is.
    #[must_use]
    pub fn accepts_approval(&self) -> bool {
        self.status == Status::Blocked
            || (!self.status.is_over() && self.started_at.is_some() && self.blocked_steps().next().is_some())
    }

    /// What it waits for, or would have to wait for again if a word lapsed: before it starts, everything that policies want approved; since,
    /// the next plan of each step that is blocked.
    pub fn open_approvals(&self) -> impl Iterator<Item = &PendingApproval> {
        let open = self.approvals.iter().filter(|pending| pending.declined.is_none());
        open.filter(|pending| {
            self.started_at.is_none() || self.blocked_steps().any(|(_, round)| round.decision == pending.decision)
        })
    }

    /// Steps whose next plan waits for a person, with that plan.
    pub fn blocked_steps(&self) -> impl Iterator<Item = (&Step, &Round)> {
        let blocked = self.steps.iter().filter(|step| step.status == Status::Blocked);
        blocked.filter_map(|step| Some((step, step.round.as_ref()?)))
    }

    /// For how long it has run by `now`. What it waited for people meanwhile is not counted.
    #[must_use]
    pub fn run_duration(&self, now: Timestamp) -> Duration {
        let since_start =
            self.started_at.map_or(Duration::ZERO, |started| self.awaiting_approval_since.unwrap_or(now).since(started));
        since_start.saturating_sub(Duration::from_millis(self.approval_wait_ms))
    }
}

/// Who wants a stage stopped, and since when.
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
    /// What of its `when` could not be checked, and holds for that.
    pub remarks: Vec<Reason>,
    /// The plan of the current round and what allowed it; none until its turn or where it is skipped.
    pub round: Option<Round>,
    pub attempt: u16,
    /// Exits of the current round.
    pub exits: Vec<Exit>,
    /// What a step type said at its end.
    pub findings: Vec<Finding>,
    /// The log lacks something: why.
    pub log_incomplete: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl Step {
    /// One whose turn has not come.
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
    /// Planned after someone stopped the step: it cleans up, no stop reaches it, and no other round follows.
    pub is_cleanup: bool,
}

impl Round {
    /// A step's first round.
    #[must_use]
    pub fn first(plan: StepPlan, decision: DecisionId) -> Self {
        Self { number: 0, plan, decision, is_cleanup: false }
    }
}
