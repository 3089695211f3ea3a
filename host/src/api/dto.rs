//! The JSON types (DTOs) of the API. The server writes them and the command line reads them. Times are RFC 3339 in UTC.

use std::collections::BTreeMap;

use beespace_core::build::{Build, Stage, Step};
use beespace_core::event::PullRequest;
use beespace_core::exit::Exit;
use beespace_core::graph;
use beespace_core::pipeline::matrix;
use beespace_core::policy::Decision;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::reason::Reason;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::urls::Urls;
use crate::user_action::{ActionError, ApprovalAnswer};
use crate::view::approval::{ApprovalSummary, GivenApproval};
use crate::view::time::rfc3339;
use crate::view::{build_title, policy_warning};

/// The schema of [`Reason`] in the OpenAPI document. Core does not know OpenAPI, so its fields are repeated here.
#[derive(Debug, ToSchema)]
#[schema(as = Reason)]
pub struct ReasonSchema {
    /// A stable code, for programs and for searching.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
    /// The reasons that led to this one.
    #[schema(no_recursion, required = false)]
    pub parts: Vec<Self>,
}

/// One execution for one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildBody {
    /// A UUID of version 7, so ids sort by time.
    pub id: String,
    /// `owner/name`.
    pub repository: String,
    /// None until it is known whether the commit has a pipeline file.
    pub number: Option<u64>,
    /// `pending`, `running`, `blocked`, `success`, `failure`, `error`, `killed`, `declined`, `skipped`.
    pub status: String,
    /// The reason for the status, if there is one.
    #[schema(value_type = Option<ReasonSchema>)]
    pub reason: Option<Reason>,
    /// The kind of event: `push`, `tag`, `pull_request`, `pull_request_closed`, `release`.
    pub event: String,
    /// The branch, without `refs/heads/`; none for a tag and for a pull request.
    pub branch: Option<String>,
    /// The tag, without `refs/tags/`; none for a branch.
    #[serde(default)]
    pub tag: Option<String>,
    /// The commit; none until it is known, which for a tag is after the fetch.
    pub sha: Option<String>,
    /// The pull request; none for other events.
    #[serde(default)]
    pub pull_request: Option<PullRequestBody>,
    /// The branch and the commit that its pipeline files come from, `main at 95a2db4`; none if they are those of its commit.
    #[serde(default)]
    pub pipeline_from: Option<String>,
    /// `trusted`, or `untrusted` for code that is in no branch and no tag of the repository: its steps get no secrets. None until
    /// the commit is known.
    #[serde(default)]
    pub trust: Option<String>,
    /// The first line of the commit message.
    pub title: String,
    /// The user who caused the build, as authenticated by Gogs.
    pub actor: String,
    /// The author as stated in the commit; anyone can forge it.
    pub author: Option<String>,
    /// The target of a promotion or a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The name of the schedule that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The number of the build that is promoted or rolled back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_build: Option<u64>,
    /// The values for params that the build was started with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// The id of the build that this one repeats.
    pub restarts: Option<String>,
    /// Repository and number of the build that this one repeats, `acme/app #7`; absent in lists, and if that build was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts_label: Option<String>,
    /// When its delivery was processed. RFC 3339, in UTC.
    pub created_at: String,
    /// When its first stage started. RFC 3339, in UTC.
    pub started_at: Option<String>,
    /// When it finished. RFC 3339, in UTC.
    pub finished_at: Option<String>,
    /// The path of its page on this server.
    pub href: String,
    /// Its stages; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageBody>,
    /// Problems of the pipeline files; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
    /// Objections of policies in mode `warn`, which have no effect; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PullRequestBody {
    /// Its number in the repository.
    pub number: u64,
    /// Its title when the event was reported.
    pub title: String,
    /// The branch that it is to be merged into.
    pub target_branch: String,
    /// The branch that it proposes.
    pub source_branch: String,
    /// The repository of that branch; none if it was deleted.
    pub source_repository: Option<String>,
    /// `topic`, and `eve:topic` for a branch of another repository.
    pub source_label: String,
    /// Whether Gogs is known to have updated the head before the build took its commit.
    pub is_head_confirmed: bool,
    /// The merge into the target that a pipeline with `clone: { pull_request: merge }` checks out.
    #[serde(default)]
    pub merge_sha: Option<String>,
    /// The commit of the target that the head was merged into.
    #[serde(default)]
    pub merge_target_sha: Option<String>,
    /// Its page in Gogs.
    pub url: String,
}

/// One pipeline that executes in a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageBody {
    /// Counted from 1.
    pub number: u16,
    /// Its name in the pipeline file.
    pub name: String,
    /// The values of its cell by the names of their axes; empty without a matrix.
    #[serde(default)]
    pub matrix: BTreeMap<String, String>,
    /// The numbers of the stages that must finish before it starts.
    #[serde(default)]
    pub needs: Vec<u16>,
    /// One of the statuses of a build.
    pub status: String,
    /// The reason for the status, if there is one.
    #[schema(value_type = Option<ReasonSchema>)]
    pub reason: Option<Reason>,
    /// Conditions of its `when` that could not be checked and therefore count as met.
    #[schema(value_type = Vec<ReasonSchema>)]
    pub remarks: Vec<Reason>,
    /// The clone first, then in the order of the file.
    pub steps: Vec<StepBody>,
    /// Open and decided requests for approval.
    pub approvals: Vec<ApprovalBody>,
    /// When its first step started. RFC 3339, in UTC.
    pub started_at: Option<String>,
    /// When it finished. RFC 3339, in UTC.
    pub finished_at: Option<String>,
}

/// One step of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepBody {
    /// 0 is the clone by the host.
    pub number: u16,
    /// Its name in the pipeline file.
    pub name: String,
    /// One of the statuses of a build.
    pub status: String,
    /// The reason for the status, if there is one.
    #[schema(value_type = Option<ReasonSchema>)]
    pub reason: Option<Reason>,
    /// The secrets that it does not get, and conditions of its `when` that could not be checked and therefore count as met.
    #[schema(value_type = Vec<ReasonSchema>)]
    pub remarks: Vec<Reason>,
    /// Counted from 1; each attempt has its own log.
    pub attempt: u16,
    /// Whether the step has failed and the pipeline file ignores that (`failure: ignore`): the stage does not fail with it.
    #[serde(default)]
    pub failure_ignored: bool,
    /// The exit code of the last container that exited.
    pub exit_code: Option<i32>,
    /// The images of its containers.
    #[serde(default)]
    pub images: Vec<ImageBody>,
    /// When its first container started. RFC 3339, in UTC.
    pub started_at: Option<String>,
    /// When it finished. RFC 3339, in UTC.
    pub finished_at: Option<String>,
}

/// The image of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageBody {
    /// As written in the pipeline file, or as planned by the step type.
    pub reference: String,
    /// The digest that runs in this build; the image's id if no registry has it under this name. None until it is known.
    pub digest: Option<String>,
}

/// A request for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalBody {
    /// The digest of the pipeline or plan.
    pub subject: String,
    /// The subject of the approval: the pipeline, or a step.
    pub description: String,
    /// The content of the pipeline or plan, line by line.
    pub runs: Vec<String>,
    /// The policies that require the approval, each with its reason.
    pub reasons: Vec<String>,
    /// The people who have approved it.
    pub approved_by: Vec<String>,
    /// The approvals that were given, in the same order.
    #[serde(default)]
    pub given: Vec<GivenApprovalBody>,
    /// The person who declined it and the reason, if the stage had already started: then only the step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declined: Option<String>,
    /// The approvals that are still missing; empty if it is approved and the stage waits for something else.
    pub missing: Vec<String>,
}

/// The approval of one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GivenApprovalBody {
    /// The person.
    pub by: String,
    /// When it was given. RFC 3339, in UTC.
    pub at: String,
    /// The person's reason, if one was given.
    pub reason: Option<String>,
}

/// The body of a request to approve or decline.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ApprovalAnswerBody {
    /// The number of the stage; the only blocked one if none is given.
    #[serde(default)]
    pub stage: Option<u16>,
    /// The digest of the approved or declined subject. An approval requires it.
    #[serde(default)]
    pub subject: Option<String>,
    /// A reason for the people who wait for the decision; at most 1,000 characters. It is kept with the answer.
    #[serde(default)]
    pub reason: Option<String>,
}

/// An optional time as RFC 3339.
#[must_use]
pub fn optional_rfc3339(at: Option<Timestamp>) -> Option<String> {
    at.map(rfc3339)
}

impl BuildBody {
    /// The body for lists, without stages.
    #[must_use]
    pub fn new(urls: &Urls, build: &Build) -> Self {
        Self {
            id: build.id.to_string(),
            repository: build.event.repository.name.to_string(),
            number: build.number,
            status: build.status.to_string(),
            reason: build.reason.clone(),
            event: build.event.kind().to_string(),
            branch: build.event.branch().map(str::to_owned),
            tag: build.event.tag().map(str::to_owned),
            sha: build.sha().map(ToString::to_string),
            pull_request: build.event.pull_request().map(|pull| PullRequestBody::new(build, pull)),
            pipeline_from: build_title::pipeline_origin(build),
            trust: build.head.as_ref().map(|_| build.trust().as_str().to_owned()),
            title: build_title::build_title(build),
            actor: build.event.sender.login.clone(),
            target: build.event.target().map(str::to_owned),
            schedule: build.event.schedule().map(str::to_owned),
            promoted_build: build.event.deployment().map(|deployment| deployment.of),
            params: build.event.params().cloned().unwrap_or_default(),
            author: build.head.as_ref().map(|head| head.author.name.clone()),
            restarts: build.restart_of.map(|id| id.to_string()),
            restarts_label: None,
            created_at: rfc3339(build.created_at),
            started_at: optional_rfc3339(build.started_at),
            finished_at: optional_rfc3339(build.finished_at),
            href: urls.build(build),
            stages: Vec::new(),
            diagnostics: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The body with stages, diagnostics and warnings.
    #[must_use]
    pub fn with_stages(urls: &Urls, build: &Build, stages: &[Stage], decisions: &[Decision], now: Timestamp) -> Self {
        let diagnostics = build.files.iter().flat_map(|file| &file.diagnostics).map(ToString::to_string).collect();
        let caused_by = build.event.sender.stable_id();
        let stages = stages.iter().map(|stage| StageBody::new(stage, &caused_by, now)).collect();
        let warnings = policy_warning::of_decisions(decisions).iter().map(ToString::to_string).collect();
        Self { stages, diagnostics, warnings, ..Self::new(urls, build) }
    }
}

impl PullRequestBody {
    fn new(build: &Build, pull: &PullRequest) -> Self {
        Self {
            number: pull.number,
            title: pull.title.clone(),
            target_branch: pull.target_branch.clone(),
            source_branch: pull.source_branch.clone(),
            source_repository: pull.source.as_ref().map(|source| source.name.to_string()),
            source_label: pull.source_label(build.event.repository.id),
            is_head_confirmed: !build.head_unconfirmed,
            merge_sha: build.merge.as_ref().map(|merge| merge.commit.to_string()),
            merge_target_sha: build.merge.as_ref().map(|merge| merge.target.to_string()),
            url: pull.page(&build.event.repository),
        }
    }
}

impl StageBody {
    /// The name with the cell, for people: `test (rust=1.95)`.
    #[must_use]
    pub fn title(&self) -> String {
        matrix::title(&self.name, &self.matrix)
    }

    fn new(stage: &Stage, caused_by: &str, now: Timestamp) -> Self {
        let approvals = stage.approvals.iter().map(|approval| ApprovalBody::new(stage, approval, caused_by, now));
        Self {
            number: stage.number.0,
            name: stage.pipeline.name.clone(),
            matrix: stage.pipeline.cell.clone(),
            needs: stage.needs.iter().map(|number| number.0).collect(),
            status: stage.display_status().to_string(),
            reason: stage.reason.clone(),
            remarks: stage.remarks.clone(),
            steps: stage.steps.iter().map(|step| StepBody::new(stage, step)).collect(),
            approvals: approvals.collect(),
            started_at: optional_rfc3339(stage.started_at),
            finished_at: optional_rfc3339(stage.finished_at),
        }
    }
}

impl ApprovalBody {
    /// `caused_by` is the stable id of the user who caused the build: their own approval may not count.
    #[must_use]
    pub fn new(stage: &Stage, approval: &PendingApproval, caused_by: &str, now: Timestamp) -> Self {
        let summary = ApprovalSummary::new(stage, approval, caused_by, now);
        let ApprovalSummary { subject, description, plan, reasons, given, declined, missing } = summary;
        let approved_by = given.iter().map(|approval| approval.by.clone()).collect();
        let given = given.into_iter().map(GivenApprovalBody::from).collect();
        Self { subject, description, runs: plan, reasons, approved_by, given, declined, missing }
    }
}

impl From<GivenApproval> for GivenApprovalBody {
    fn from(approval: GivenApproval) -> Self {
        Self { by: approval.by, at: rfc3339(approval.at), reason: approval.reason }
    }
}

impl StepBody {
    fn new(stage: &Stage, step: &Step) -> Self {
        let images = stage
            .images_of(step)
            .map(|(reference, digest)| ImageBody { reference: reference.to_owned(), digest: digest.map(str::to_owned) });
        Self {
            number: step.number.0,
            name: step.name.clone(),
            status: step.status.to_string(),
            reason: step.reason.clone(),
            remarks: step.remarks.clone(),
            attempt: step.attempt,
            failure_ignored: graph::is_failure_ignored(stage, step),
            exit_code: step.exits.last().and_then(|exit: &Exit| exit.code),
            images: images.collect(),
            started_at: optional_rfc3339(step.started_at),
            finished_at: optional_rfc3339(step.finished_at),
        }
    }
}

impl TryFrom<ApprovalAnswerBody> for ApprovalAnswer {
    type Error = ActionError;
    fn try_from(body: ApprovalAnswerBody) -> Result<Self, ActionError> {
        Self::parse(body.stage, body.subject.as_deref(), body.reason.as_deref())
    }
}
