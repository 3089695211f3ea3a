//! Stages and steps on the page of a build.

use beespace_core::build::{Build, Stage, Step};
use beespace_core::graph;
use beespace_core::policy::approval::{Approver, PendingApproval};
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;

use super::icon::StatusLabel;
use super::log_window::LogExcerpt;
use crate::html::Html;
use crate::urls::{BuildKey, Urls};
use crate::view::approval::ApprovalSummary;
use crate::view::time;

/// A stage.
#[derive(Debug, Clone)]
pub struct StageView {
    pub name: String,
    /// The pipelines that it needs.
    pub needs: Option<String>,
    /// Its status, unless the build has the same: the page begins with that.
    pub status: Option<StatusLabel>,
    pub took: String,
    /// Whether the stage is over and none of its steps began; the page folds the steps then.
    pub is_unrun: bool,
    /// Its reason, and the parts of its `when` that could not be checked.
    pub why: Vec<String>,
    /// The approvals of the pipeline and of its steps' plans that were given.
    pub approvals: Vec<GivenApprovalView>,
    pub steps: Vec<StepView>,
}

/// A step of a stage.
#[derive(Debug, Clone)]
pub struct StepView {
    pub name: String,
    pub href: String,
    pub status: StatusLabel,
    pub took: String,
    /// Summary of its plan, from its step type.
    pub summary: Option<String>,
    /// Its reason, the exit messages of its containers, and the findings of its step type.
    pub why: Vec<String>,
    /// When it ran, relative to the stage.
    pub bar: Option<TimelineBar>,
    /// Whether it has failed and the pipeline file ignores that.
    pub failure_ignored: bool,
    /// Lines of its log, if it is the first failed step.
    pub excerpt: Option<LogExcerpt>,
}

/// A segment of the timeline, in percent of the stage's duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineBar {
    pub from: u64,
    pub width: u64,
}

/// An approval that a person gave.
#[derive(Debug, Clone)]
pub struct GivenApprovalView {
    /// `The pipeline`, `Step "deploy"`.
    pub what: String,
    pub by: String,
    pub at: Html,
    pub reason: Option<String>,
}

/// A missing approval.
#[derive(Debug, Clone)]
pub struct ApprovalView {
    pub stage: String,
    pub subject: String,
    pub what: String,
    pub plan: Vec<String>,
    /// The approvals that are missing, each with the policy that requires it and the reason, and those that were given.
    pub statuses: Vec<String>,
}

impl StageView {
    #[must_use]
    pub fn new(urls: &Urls, build: &Build, stage: &Stage, now: Timestamp) -> Self {
        Self {
            name: stage.title(),
            needs: Some(stage.pipeline.needs.join(", ")).filter(|needs| !needs.is_empty()),
            status: Some(stage.display_status()).filter(|status| *status != build.status).map(StatusLabel),
            is_unrun: stage.status.is_over()
                && !stage.steps.is_empty()
                && stage.steps.iter().all(|step| step.started_at.is_none()),
            took: time::elapsed(stage.started_at, stage.finished_at, now),
            why: stage
                .reason
                .iter()
                .filter(|reason| !is_build_reason(build, stage, reason))
                .chain(&stage.remarks)
                .map(ToString::to_string)
                .collect(),
            approvals: stage.approvals.iter().flat_map(|approval| given_approvals(approval, now)).collect(),
            steps: stage.steps.iter().map(|step| StepView::new(urls, build, stage, step, now)).collect(),
        }
    }
}

fn given_approvals(pending: &PendingApproval, now: Timestamp) -> Vec<GivenApprovalView> {
    let view = |approver: &Approver| GivenApprovalView {
        what: capitalized(&pending.description),
        by: approver.id.clone(),
        at: time::time_element(approver.at, now),
        reason: approver.reason.clone(),
    };
    pending.approved_by.iter().map(view).collect()
}

fn capitalized(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// The page starts with the build's reason, so the stage that caused it does not repeat it.
fn is_build_reason(build: &Build, stage: &Stage, reason: &Reason) -> bool {
    let Some(above) = &build.reason else { return false };
    let rest = above.message.strip_prefix(stage.title().as_str()).and_then(|rest| rest.strip_prefix(": "));
    [Some(above.message.as_str()), rest].contains(&Some(reason.message.as_str()))
}

impl StepView {
    fn new(urls: &Urls, build: &Build, stage: &Stage, step: &Step, now: Timestamp) -> Self {
        let name = &build.event.repository.name;
        let href = urls.step(name, BuildKey::of(build), stage.number, step.number);
        let ends = step.exits.iter().filter(|exit| !exit.message.is_empty()).map(|exit| exit.message.clone());
        let findings = step.findings.iter().map(|finding| match &finding.remedy {
            Some(remedy) => format!("{} → {remedy}", finding.message),
            None => finding.message.clone(),
        });
        // If nothing of the stage ran, the stage's reason is enough.
        let own = step.reason.iter().filter(|_| stage.status != Status::Declined || stage.started_at.is_some());
        let mut why: Vec<String> = own.chain(&step.remarks).map(ToString::to_string).collect();
        for line in ends.chain(findings).chain(step.log_incomplete.clone()) {
            if !why.iter().any(|known| known.contains(&line)) {
                why.push(line);
            }
        }
        Self {
            name: step.name.clone(),
            href,
            status: StatusLabel(step.status),
            took: time::elapsed(step.started_at, step.finished_at, now),
            summary: step.round.as_ref().map(|round| round.plan.summary.clone()).filter(|summary| !summary.is_empty()),
            why,
            bar: timeline_bar(stage, step, now),
            failure_ignored: graph::is_failure_ignored(stage, step),
            excerpt: None,
        }
    }
}

impl ApprovalView {
    /// `None` if no approval is missing.
    #[must_use]
    pub fn new(build: &Build, stage: &Stage, approval: &PendingApproval, now: Timestamp) -> Option<Self> {
        let summary = ApprovalSummary::new(stage, approval, &build.event.sender.stable_id(), now);
        if summary.missing.is_empty() {
            return None;
        }
        let given = summary.given.iter().map(|approval| capitalized(&approval.text(now)));
        let statuses = summary.missing.iter().map(|missing| format!("Missing: {missing}")).chain(given).collect();
        Some(Self {
            stage: stage.number.to_string(),
            subject: summary.subject,
            what: capitalized(&summary.description),
            plan: summary.plan,
            statuses,
        })
    }
}

fn timeline_bar(stage: &Stage, step: &Step, now: Timestamp) -> Option<TimelineBar> {
    let (stage_start, start) = (stage.started_at?, step.started_at?);
    let whole = stage.finished_at.unwrap_or(now).since(stage_start).as_millis().max(1);
    let part = |duration: std::time::Duration| u64::try_from(duration.as_millis() * 100 / whole).unwrap_or(100).min(100);
    let from = part(start.since(stage_start)).min(98);
    let width = part(step.finished_at.unwrap_or(now).since(start)).clamp(2, 100 - from);
    Some(TimelineBar { from, width })
}
