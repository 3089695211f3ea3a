//! What travels as JSON: the shapes of the API, the same for the server that writes them and the command line that reads them.
//! Points in time are RFC 3339 in UTC.

use beespace_core::build::{Build, Stage, Step};
use beespace_core::exit::Exit;
use beespace_core::policy::approval;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::reason;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::web::html::rfc3339;
use crate::web::{build_row, plan_text};

/// Words beside a status: what happened, why, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Stable, for searching.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What it follows from, each with its own parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub parts: Vec<Self>,
}

impl From<&reason::Reason> for Reason {
    fn from(reason: &reason::Reason) -> Self {
        Self {
            code: reason.code.clone(),
            message: reason.message.clone(),
            help: reason.help.clone(),
            parts: reason.parts.iter().map(Self::from).collect(),
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        for (index, part) in self.parts.iter().enumerate() {
            write!(f, "{}{part}", if index == 0 { ": " } else { "; " })?;
        }
        self.help.iter().try_for_each(|help| write!(f, " ({help})"))
    }
}

/// One execution for one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildBody {
    /// Sorts by time: an UUID of version 7.
    pub id: String,
    /// `owner/name`.
    pub repository: String,
    /// None while nobody knows whether there is a pipeline file at the commit.
    pub number: Option<u64>,
    /// `pending`, `running`, `blocked`, `success`, `failure`, `error`, `after_kill`, `declined`, `skipped`.
    pub status: String,
    /// Why it has this status, where there is more to say.
    pub reason: Option<Reason>,
    /// `push`.
    pub event: String,
    /// Without `refs/heads/`.
    pub branch: Option<String>,
    /// The commit.
    pub sha: String,
    /// First line of the commit's message.
    pub title: String,
    /// Who caused it, vouched for by Gogs.
    pub actor: String,
    /// What the commit says of its author: a claim.
    pub author: Option<String>,
    /// The build that this one repeats.
    pub restarts: Option<String>,
    /// When its delivery was settled. RFC 3339, in UTC.
    pub created_at: String,
    /// When its first stage began. RFC 3339, in UTC.
    pub started_at: Option<String>,
    /// When it was over. RFC 3339, in UTC.
    pub finished_at: Option<String>,
    /// The page, as a path on this server.
    pub href: String,
    /// Only where one build is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageBody>,
    /// What is wrong with the pipeline file; only where one build is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
}

/// One pipeline being executed in a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageBody {
    /// From 1.
    pub number: u16,
    /// As the pipeline file names it.
    pub name: String,
    /// As of a build.
    pub status: String,
    /// Why it has this status, where there is more to say.
    pub reason: Option<Reason>,
    /// What of its `when` could not be checked, and holds for that.
    pub remarks: Vec<Reason>,
    /// In the order of the file, the clone first.
    pub steps: Vec<StepBody>,
    /// What people are asked for, and were asked for before.
    pub approvals: Vec<ApprovalBody>,
    /// When its first step began. RFC 3339, in UTC.
    pub started_at: Option<String>,
    /// When it was over. RFC 3339, in UTC.
    pub finished_at: Option<String>,
}

/// One step of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepBody {
    /// 0 is the host's own clone.
    pub number: u16,
    /// As the pipeline file names it.
    pub name: String,
    /// As of a build.
    pub status: String,
    /// Why it has this status, where there is more to say.
    pub reason: Option<Reason>,
    /// What of its `when` could not be checked, and holds for that.
    pub remarks: Vec<Reason>,
    /// From 1; each has a log of its own.
    pub attempt: u16,
    /// Of the last container that ended.
    pub exit_code: Option<i32>,
    /// When its first container began. RFC 3339, in UTC.
    pub started_at: Option<String>,
    /// When it was over. RFC 3339, in UTC.
    pub finished_at: Option<String>,
}

/// What a person is asked to approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalBody {
    /// Digest of exactly what would run.
    pub subject: String,
    /// The pipeline or a step, in words.
    pub what: String,
    /// What would run, in words, line by line.
    pub runs: Vec<String>,
    /// Who asks for it and why, each with its policy's name.
    pub reasons: Vec<String>,
    /// Whose word is there already.
    pub approved_by: Vec<String>,
    /// Who said no to it and why, where the stage had begun: only its step ended then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declined: Option<String>,
    /// Whose words are missing; none where it is approved and something else of the stage waits.
    pub missing: Vec<String>,
}

/// A request to approve or decline.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ApprovalAnswerBody {
    /// The stage's number; the only blocked one where none is given.
    #[serde(default)]
    pub stage: Option<u16>,
    /// The digest that is approved: an approval without one is refused. A no needs none.
    #[serde(default)]
    pub subject: Option<String>,
    /// Said to those who wait.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Text for a point in time that may not have come yet.
#[must_use]
pub fn when(at: Option<Timestamp>) -> Option<String> {
    at.map(rfc3339)
}

impl BuildBody {
    /// As a list shows it.
    #[must_use]
    pub fn new(build: &Build) -> Self {
        Self {
            id: build.id.to_string(),
            repository: build.event.repository.name.to_string(),
            number: build.number,
            status: build.status.to_string(),
            reason: build.reason.as_ref().map(Reason::from),
            event: build.event.kind().to_string(),
            branch: build.event.branch().map(str::to_owned),
            sha: build.event.sha().to_string(),
            title: build_row::build_title(build),
            actor: build.event.sender.login.clone(),
            author: build.head.as_ref().map(|head| head.author.name.clone()),
            restarts: build.restart_of.map(|id| id.to_string()),
            created_at: rfc3339(build.created_at),
            started_at: when(build.started_at),
            finished_at: when(build.finished_at),
            href: build_row::build_href(build),
            stages: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    /// With its stages.
    #[must_use]
    pub fn with_stages(build: &Build, stages: &[Stage], now: Timestamp) -> Self {
        let diagnostics = build.file.iter().flat_map(|file| &file.diagnostics).map(ToString::to_string).collect();
        let caused_by = build.event.sender.stable_id();
        let stages = stages.iter().map(|stage| StageBody::new(stage, &caused_by, now)).collect();
        Self { stages, diagnostics, ..Self::new(build) }
    }
}

impl StageBody {
    fn new(stage: &Stage, caused_by: &str, now: Timestamp) -> Self {
        let approvals = stage.approvals.iter().map(|approval| ApprovalBody::new(stage, approval, caused_by, now));
        Self {
            number: stage.number.0,
            name: stage.pipeline.name.clone(),
            status: stage.display_status().to_string(),
            reason: stage.reason.as_ref().map(Reason::from),
            remarks: stage.remarks.iter().map(Reason::from).collect(),
            steps: stage.steps.iter().map(StepBody::new).collect(),
            approvals: approvals.collect(),
            started_at: when(stage.started_at),
            finished_at: when(stage.finished_at),
        }
    }
}

impl ApprovalBody {
    /// `caused_by` is the stable id of who caused the build: some approvals do not count from them.
    #[must_use]
    pub fn new(stage: &Stage, approval: &PendingApproval, caused_by: &str, now: Timestamp) -> Self {
        let waits = stage.accepts_approval() && stage.open_approvals().any(|asked| asked.decision == approval.decision);
        let missing = if waits { approval::missing(approval, caused_by, now) } else { Vec::new() };
        Self {
            subject: approval.subject.to_string(),
            what: approval.description.clone(),
            runs: plan_text::approval_lines(stage, approval),
            reasons: approval.requirements.iter().map(|asked| format!("{}: {}", asked.policy, asked.reason)).collect(),
            approved_by: approval.approved_by.iter().map(|approver| approver.id.clone()).collect(),
            declined: approval.declined.as_ref().map(|reason| reason.message.clone()),
            missing: missing.iter().map(ToString::to_string).collect(),
        }
    }
}

impl StepBody {
    fn new(step: &Step) -> Self {
        Self {
            number: step.number.0,
            name: step.name.clone(),
            status: step.status.to_string(),
            reason: step.reason.as_ref().map(Reason::from),
            remarks: step.remarks.iter().map(Reason::from).collect(),
            attempt: step.attempt,
            exit_code: step.exits.last().and_then(|exit: &Exit| exit.code),
            started_at: when(step.started_at),
            finished_at: when(step.finished_at),
        }
    }
}
