//! Stages and steps, as the page of a build shows them.

use beespace_core::build::{Build, Stage, Step};
use beespace_core::policy::approval::PendingApproval;
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;

use super::html::{self, Html, StatusLabel};
use crate::api::dto::ApprovalBody;
use crate::urls::{self, BuildKey};

/// One stage.
#[derive(Debug, Clone)]
pub struct StageView {
    pub name: String,
    pub status: StatusLabel,
    pub took: String,
    /// Its reason, and what of its `when` could not be checked.
    pub why: Vec<String>,
    pub steps: Vec<StepView>,
}

/// One step of it.
#[derive(Debug, Clone)]
pub struct StepView {
    pub name: String,
    pub href: String,
    pub status: StatusLabel,
    pub took: String,
    /// What it is going to do, in the words of its step type.
    pub summary: Option<String>,
    /// Its reason, what its containers said of their ends, and what a step type found.
    pub why: Vec<String>,
    /// Where in the stage's time it ran.
    pub bar: Option<TimelineBar>,
    /// The last lines of the log of the first step that failed.
    pub excerpt: Vec<Html>,
}

/// Part of a line of 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineBar {
    pub from: u64,
    pub width: u64,
}

/// What a person is asked for.
#[derive(Debug, Clone)]
pub struct ApprovalView {
    pub stage: String,
    pub subject: String,
    pub what: String,
    pub runs: Vec<String>,
    pub asks: Vec<String>,
    /// Whose words are missing, and who has given theirs.
    pub words: Vec<String>,
}

impl StageView {
    #[must_use]
    pub fn new(build: &Build, stage: &Stage, now: Timestamp) -> Self {
        Self {
            name: stage.pipeline.name.clone(),
            status: StatusLabel(stage.display_status()),
            took: html::elapsed(stage.started_at, stage.finished_at, now),
            why: stage
                .reason
                .iter()
                .filter(|reason| !is_build_reason(build, reason))
                .chain(&stage.remarks)
                .map(ToString::to_string)
                .collect(),
            steps: stage.steps.iter().map(|step| StepView::new(build, stage, step, now)).collect(),
        }
    }
}

/// The page begins with the build's reason; it is not said again in the stage that it comes from.
fn is_build_reason(build: &Build, reason: &Reason) -> bool {
    build.reason.as_ref().is_some_and(|above| above.message == reason.message)
}

impl StepView {
    fn new(build: &Build, stage: &Stage, step: &Step, now: Timestamp) -> Self {
        let name = &build.event.repository.name;
        let href = urls::step(name, BuildKey::of(build), stage.number, step.number);
        let ends = step.exits.iter().filter(|exit| !exit.message.is_empty()).map(|exit| exit.message.clone());
        let findings = step.findings.iter().map(|finding| match &finding.remedy {
            Some(remedy) => format!("{}: {remedy}", finding.message),
            None => finding.message.clone(),
        });
        // Where nothing of the stage ran, its own reason is enough.
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
            took: html::elapsed(step.started_at, step.finished_at, now),
            summary: step.round.as_ref().map(|round| round.plan.summary.clone()).filter(|summary| !summary.is_empty()),
            why,
            bar: timeline_bar(stage, step, now),
            excerpt: Vec::new(),
        }
    }
}

impl ApprovalView {
    /// None where it has every word that was asked for.
    #[must_use]
    pub fn new(build: &Build, stage: &Stage, approval: &PendingApproval, now: Timestamp) -> Option<Self> {
        let body = ApprovalBody::new(stage, approval, &build.event.sender.stable_id(), now);
        if body.missing.is_empty() {
            return None;
        }
        let mut what = body.what;
        if let Some(first) = what.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let given =
            Some(body.approved_by).filter(|given| !given.is_empty()).map(|given| format!("Approved by {}", given.join(", ")));
        let words = body.missing.iter().map(|word| format!("Missing: {word}")).chain(given).collect();
        Some(Self { stage: stage.number.to_string(), subject: body.subject, what, runs: body.runs, asks: body.reasons, words })
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
