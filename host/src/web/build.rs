//! The page of a build: the reason for its status, its commit, its stages, the policy decisions and the pipeline file.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use beespace_core::build::{Build, Stage};
use beespace_core::graph;
use beespace_core::ids::StepId;
use beespace_core::policy::{Decision, Ruling};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_core::trust::Trust;

use super::callout::Callout;
use super::decision::DecisionsView;
use super::icon::{StatusLabel, icon};
use super::layout::{Layout, LiveScope};
use super::pipeline_file::PipelineFileView;
use super::repository::{commit_url, safe_link};
use super::stage::{ApprovalView, StageView};
use super::start::DeployForm;
use super::{log_window, render_page};
use crate::app::App;
use crate::authorization::Authorized;
use crate::clock::now;
use crate::html::Html;
use crate::http_problem::Problem;
use crate::store::build::Builds as _;
use crate::urls::{self, BuildKey, Urls};
use crate::view::policy_warning::PolicyWarning;
use crate::view::trust::{HEAD_NOT_CONFIRMED, UNTRUSTED};
use crate::view::{build_title, policy_warning, time};

/// Lines of the first failed step's log on the page.
const EXCERPT_LINES: u64 = 30;

/// The contents of the page.
#[derive(Template, Debug)]
#[template(path = "build.html")]
pub struct BuildPage {
    layout: Layout,
    owner: String,
    owner_href: String,
    repository_href: String,
    name: String,
    number: String,
    /// The builds with the previous and with the next number: path and number.
    previous: Option<(String, String)>,
    next: Option<(String, String)>,
    href: String,
    title: String,
    /// The commit message after its first line.
    message: String,
    status: StatusLabel,
    sha: String,
    commit_url: Option<String>,
    /// Between the commit and the name of its branch or tag.
    on: &'static str,
    branch: String,
    /// Label of `actor`.
    actor_label: &'static str,
    actor: String,
    /// `name=value` of each param that the build was started with.
    params: Vec<String>,
    author: Option<String>,
    /// Its page in Gogs, and its title with the number.
    pull_request: Option<(Option<String>, String)>,
    /// The merge that is checked out, and what it was merged into: `95a2db4 into main at 1f7e2d9`.
    merge: Option<String>,
    /// What follows from it that the code is untrusted; none if it is trusted or unknown.
    untrusted: Option<&'static str>,
    /// Label of `at`: when the build started, or when its delivery was received if it has not started.
    time_label: &'static str,
    at: Html,
    took: String,
    restart_of: Option<(String, String)>,
    may_cancel: bool,
    may_restart: bool,
    deploy: Vec<DeployForm>,
    /// The build that is promoted or rolled back to: path and number.
    promoted: Option<(String, String)>,
    callouts: Vec<Callout>,
    approvals: Vec<ApprovalView>,
    stages: Vec<StageView>,
    decisions: DecisionsView,
    /// Where the files come from, if not from the commit: `main at 95a2db4`.
    pipeline_from: Option<String>,
    files: Vec<PipelineFileView>,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    build: Authorized<Build>,
) -> Result<Response, Problem> {
    let (build, stages, decisions, restart_of, adjacent) = {
        let read = app.store.read()?;
        // Read again, so that the build and its stages are of one moment.
        let build = read.build(build.id)?.ok_or_else(|| Problem::not_found("build", build.id))?;
        let restart_of = build.restart_of.map_or(Ok(None), |id| read.build(id))?;
        let (stages, decisions) = (read.stages(build.id)?, read.decisions(build.id)?);
        let adjacent = read.adjacent_builds(&build)?;
        (build, stages, decisions, restart_of, adjacent)
    };
    let mut page = BuildPage::new(layout, &build, &stages, &decisions, now());
    page.restart_of = restart_of.map(|old| (app.urls.build(&old), build_title::build_name(&old)));
    let link = |build: Build| (app.urls.build(&build), build_title::number_label(&build));
    [page.previous, page.next] = adjacent.map(|build| build.map(link));
    page.add_excerpt(&app, &build, &stages).await;
    render_page(&page)
}

impl BuildPage {
    /// The page of a build at `now`, without a log excerpt.
    #[must_use]
    pub fn new(layout: Layout, build: &Build, stages: &[Stage], decisions: &[Decision], now: Timestamp) -> Self {
        let repository = &build.event.repository.name;
        let number = build_title::number_label(build);
        let title = build_title::build_title(build);
        let urls = layout.urls.clone();
        let mut layout =
            layout.with_title(format!("{} · {} {number}", title, build.status)).in_section("builds").with_status(build.status);
        if !build.status.is_over() {
            layout = layout.with_changes(LiveScope::Build(build.id));
        }
        Self {
            layout,
            owner: repository.owner().to_owned(),
            owner_href: urls.owner(repository.owner()),
            repository_href: urls.repository(repository),
            name: repository.name().to_owned(),
            href: urls.build(build),
            number,
            previous: None,
            next: None,
            title,
            message: build_title::message_body(build),
            status: StatusLabel(build.status),
            sha: build.short_sha().to_owned(),
            commit_url: commit_url(build),
            on: match (build.event.tag(), build.event.pull_request()) {
                (Some(_), _) => "tag",
                (None, Some(_)) => "of",
                (None, None) => "on",
            },
            branch: build_title::branch_or_tag(build),
            actor_label: build_title::actor_label(build),
            actor: build.event.sender.login.clone(),
            params: build.event.params().into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect(),
            pull_request: pull_request_link(build),
            merge: build_title::merge(build),
            author: build.head.as_ref().map(|head| head.author.name.clone()).filter(|name| *name != build.event.sender.login),
            untrusted: build.head.as_ref().filter(|_| build.trust() == Trust::Untrusted).map(|_| UNTRUSTED),
            time_label: if build.started_at.is_some() { "Started" } else { "Received" },
            at: time::time_element(build.started_at.unwrap_or(build.created_at), now),
            took: Some(time::elapsed(build.started_at, build.finished_at, now))
                .filter(|text| !text.is_empty())
                .unwrap_or("–".into()),
            restart_of: None,
            may_cancel: !build.status.is_over(),
            may_restart: build.status.is_over(),
            deploy: DeployForm::of_build(build, stages),
            promoted: promoted(&urls, build),
            callouts: callouts(build, stages, decisions).into_iter().chain(warnings(decisions)).collect(),
            approvals: missing_approvals(build, stages, now),
            stages: stages.iter().map(|stage| StageView::new(&urls, build, stage, now)).collect(),
            decisions: DecisionsView::new(decisions, &build.files, stages),
            pipeline_from: build_title::pipeline_origin(build),
            files: PipelineFileView::of_build(build, stages, decisions),
        }
    }

    /// Adds the failure, or the end, of the first failed step's log below the step.
    async fn add_excerpt(&mut self, app: &App, build: &Build, stages: &[Stage]) {
        for (stage, view) in stages.iter().zip(&mut self.stages) {
            let Some(found) = graph::failed_step(stage).filter(|step| step.status != Status::Declined) else { continue };
            let index = stage.steps.iter().position(|step| step.number == found.number);
            let Some(view) = index.and_then(|index| view.steps.get_mut(index)) else { continue };
            // The findings of a step type are already on the page, and its log repeats them.
            if !found.findings.is_empty() {
                return;
            }
            let id = StepId { build: build.id, stage: stage.number, step: found.number, attempt: found.attempt };
            // A damaged log must not break the page.
            let excerpt = log_window::failure_excerpt(app, id, EXCERPT_LINES, &view.href).await.ok();
            view.excerpt = excerpt.filter(|excerpt| !excerpt.lines.is_empty());
            return;
        }
    }
}

/// The page of the pull request in Gogs, if its address may be a link, and its title.
fn pull_request_link(build: &Build) -> Option<(Option<String>, String)> {
    let pull = build.event.pull_request()?;
    Some((safe_link(&pull.page(&build.event.repository)), build_title::build_title(build)))
}

/// The build that a build promotes or rolls back to: path, number and target.
fn promoted(urls: &Urls, build: &Build) -> Option<(String, String)> {
    let deployment = build.event.deployment()?;
    let path = urls::build(&build.event.repository.name, BuildKey::Number(deployment.of));
    Some((urls.below_base(&path), format!("{}, target {}", deployment.of, deployment.target)))
}

/// The approvals that are missing. If the build has several stages, each names its stage.
fn missing_approvals(build: &Build, stages: &[Stage], now: Timestamp) -> Vec<ApprovalView> {
    let waiting = stages.iter().filter(|stage| stage.accepts_approval());
    let pending = waiting.flat_map(|stage| stage.open_approvals().map(move |approval| (stage, approval)));
    let view = |(stage, approval): (&Stage, _)| {
        let mut view = ApprovalView::new(build, stage, approval, now)?;
        if stages.len() > 1 {
            view.what = format!("{} (stage {})", view.what, stage.title());
        }
        Some(view)
    };
    pending.filter_map(view).collect()
}

/// The objections of policies in mode `warn`, one message for each policy and effect.
fn warnings(decisions: &[Decision]) -> Vec<Callout> {
    let mut callouts: Vec<Callout> = Vec::new();
    for PolicyWarning { policy, effect, message, remedy } in policy_warning::of_decisions(decisions) {
        let title = format!("Warning: policy {policy:?} {effect}");
        let text = remedy.map_or_else(|| message.clone(), |remedy| format!("{message} ({remedy})"));
        match callouts.iter_mut().find(|callout| callout.title == title) {
            Some(callout) => callout.parts.push(text),
            None => callouts.push(Callout {
                status: "pending",
                icon: icon("error"),
                title,
                message: "The policy's mode is `warn`, so this has no effect.".to_owned(),
                parts: vec![text],
                help: None,
            }),
        }
    }
    callouts
}

/// The messages at the top of the page: each denial, or else the build's own reason.
fn callouts(build: &Build, stages: &[Stage], decisions: &[Decision]) -> Vec<Callout> {
    let mut callouts = Vec::new();
    if build.head_unconfirmed {
        let reason =
            Reason::new(ReasonCode::HeadNotConfirmed, HEAD_NOT_CONFIRMED).help("if a newer commit is missing here, push again");
        callouts.push(Callout { title: "The head is not confirmed".to_owned(), ..Callout::new("", Status::Pending, &reason) });
    }
    let denials = decisions.iter().filter_map(|decision| match &decision.ruling {
        Ruling::Denied { by } => Some(by),
        _ => None,
    });
    for denial in denials.flatten() {
        let reason = Reason {
            code: denial.finding.rule_id.clone(),
            message: denial.finding.message.clone(),
            help: denial.finding.remedy.clone(),
            parts: Vec::new(),
        };
        let callout = Callout {
            title: format!(
                "Policy {:?} denied {}",
                denial.policy,
                if build.started_at.is_none() { "this build; nothing ran" } else { "a step" }
            ),
            ..Callout::new("", Status::Declined, &reason)
        };
        callouts.push(callout);
    }
    let speaks = !matches!(build.status, Status::Success | Status::Running | Status::Blocked);
    if let Some(reason) = build.reason.as_ref().filter(|_| speaks && callouts.is_empty()) {
        let decided = stages.iter().find(|stage| stage.status == build.status);
        // The title names the step, so the text below it need not.
        let (who, reason) = match decided.and_then(|stage| Some((stage, graph::decisive_step(stage)?))) {
            Some((stage, step)) if stages.len() > 1 => {
                (format!("Step {:?} of {:?}", step.name, stage.title()), step.reason.as_ref().unwrap_or(reason))
            }
            Some((_, step)) => (format!("Step {:?}", step.name), step.reason.as_ref().unwrap_or(reason)),
            None => ("This build".to_owned(), reason),
        };
        callouts.push(Callout::new(&who, build.status, reason));
    }
    callouts
}
