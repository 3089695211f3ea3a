//! Prepares a build: source, pipeline, admit, plan, admit, stages. Nothing here uses the engine.

mod pipelines;
mod pull_request;
mod schedules;

use std::time::Duration;

use beespace_core::build::{Build, PipelineOrigin};
use beespace_core::build_admission::PIPELINE_FROM_TARGET;
use beespace_core::event::EventKind;
use beespace_core::pipeline::ParsedPipeline;
use beespace_core::pipeline::eval_when::Facts;
use beespace_core::policy::{Decision, Ruling};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;

use self::pipelines::MatchedPipeline;
use crate::app::App;
use crate::clock::now;
use crate::planning::{self, denied_reason};
use crate::repository_identity;
use crate::source::{self, ChangeSet, FetchAttempt, FetchedCommit, MergeOutcome, PipelineSource, Resolution, SourceError};
use crate::store::StoreError;
use crate::store::build_lifecycle::Prepared;
use crate::store::repository::Repositories as _;
use crate::worker::{MAX_WAIT, WorkError, wait_delay};

/// How long a fetched repository may lack the ref of an event, before the ref counts as deleted. Gogs reports a push when the
/// branch is there, but a proxy or a replica may be late.
const MISSING_REF_WAIT: Duration = Duration::from_secs(60);

/// The most conflicts that a reason lists.
const MAX_CONFLICTS: usize = 20;

/// `source`: the commit of the build. The build's event gets the repository's present name, visibility and default branch.
///
/// # Errors
/// [`WorkError::Wait`] while Gogs cannot provide the commit, or the disk is full; the build shows the reason.
pub async fn resolve(app: &App, build: &mut Build) -> Result<Resolution, WorkError> {
    if let Some(ended) = pull_request::find_head(app, build).await? {
        return Ok(ended);
    }
    let id = build.event.repository.id;
    let origin = repository_identity::confirmed_origin(app, id);
    let fetched = FetchAttempt::begin(app.mirrors.of(id), origin, &app.forge.access()).await;
    build.event.repository = repository_identity::stored(app, id)?;
    if let Err(error) = pull_request::fetch_head(app, build, &fetched).await {
        return source_failed(app, build, error).await;
    }
    match source::resolve(fetched, build).await {
        Ok(resolution) => Ok(resolution),
        Err(SourceError::CommitMissing { .. }) if is_ref_deleted(app, build)? => {
            Ok(Resolution::Ended(Status::Skipped, ref_deleted(build)))
        }
        Err(error) => source_failed(app, build, error).await,
    }
}

/// Ends the build whose commit cannot be had, or lets it wait.
async fn source_failed(app: &App, build: &Build, error: SourceError) -> Result<Resolution, WorkError> {
    match error {
        error if error.is_refusal() => Ok(Resolution::Ended(Status::Error, error.reason())),
        error if error.is_retryable() => wait_or_give_up(app, build, &error).await,
        error => Err(WorkError::Failed(error.into())),
    }
}

/// Whether the ref that Gogs does not serve was deleted: Gogs has reported that of a branch, or the ref has been missing for a
/// minute.
fn is_ref_deleted(app: &App, build: &Build) -> Result<bool, StoreError> {
    let recorded = app.store.read()?.last_seen(build.event.repository.id, &build.event.git_ref())?;
    let is_reported = recorded.is_none() && build.event.branch().is_some();
    Ok(is_reported || now().since(build.created_at) >= MISSING_REF_WAIT)
}

fn ref_deleted(build: &Build) -> Reason {
    if let Some(pull) = build.event.pull_request() {
        let message = format!("{} no longer leads to {}, which could not be fetched", pull.git_ref(), build.short_sha());
        return Reason::new(ReasonCode::RefMoved, message);
    }
    match (build.event.tag(), build.event.branch().unwrap_or_default()) {
        (Some(tag), _) => {
            Reason::new(ReasonCode::TagDeleted, format!("tag {tag:?} was deleted before its commit could be fetched"))
        }
        (None, branch) => {
            let message = format!("branch {branch:?} was deleted before its commit {} could be fetched", build.short_sha());
            Reason::new(ReasonCode::BranchDeleted, message)
        }
    }
}

/// Shows the reason on the build and reschedules it; after [`MAX_WAIT`] the build ends.
async fn wait_or_give_up(app: &App, build: &Build, error: &SourceError) -> Result<Resolution, WorkError> {
    let waited = now().since(build.created_at);
    if waited > MAX_WAIT {
        return Ok(Resolution::Ended(Status::Error, error.retries_exhausted_reason(MAX_WAIT)));
    }
    let delay = wait_delay(waited);
    let mut reason = error.reason();
    reason.message = format!("{}; next attempt in {} s", reason.message, delay.as_secs());
    app.store.set_waiting_reason(build.id, reason).await?;
    Err(WorkError::Wait { until: now() + delay })
}

/// `pipeline ─▶ admit ─▶ plan ─▶ admit`: the stages of the commit's pipelines, or why there are none.
///
/// # Errors
/// The mirror cannot be read.
pub async fn stages(app: &App, mut build: Build, commit: &FetchedCommit) -> Result<Prepared, WorkError> {
    // A tag that is already built is neither decided on nor pinned again.
    let repeated = app.store.read()?.repeated_tag(&build)?;
    if let Some(reason) = repeated {
        return Ok(Prepared::Ignored(reason));
    }
    let mirror = app.mirrors.of(build.event.repository.id);
    let (files, (change_set, facts)) = tokio::join!(source::read_pipeline_files(commit), ChangeSet::read(mirror, &build));
    let change_set = planning::with_present_labels(app, &build, change_set).await;
    let admission = planning::admit::build(app, &build, &change_set.event).await;
    let files = match &admission {
        Some(Decision { ruling: Ruling::Denied { by }, .. }) => {
            let declined = ended_without_stages(build, Status::Declined, denied_reason("the build", by));
            return Ok(declined.with_decision(admission));
        }
        Some(decision) if decision.obliges(PIPELINE_FROM_TARGET) => files_of_target(&mut build, commit).await,
        _ => files,
    };
    let files = files.map_err(anyhow::Error::from)?;
    let prepared = stages_of_files(app, build, (commit, files), (change_set, facts)).await?;
    Ok(prepared.with_decision(admission))
}

/// The pipeline files of the target branch, which a policy demands for code that it does not trust.
async fn files_of_target(build: &mut Build, commit: &FetchedCommit) -> Result<PipelineSource, SourceError> {
    let branch = build.event.branch_or_target().unwrap_or(&build.event.repository.default_branch).to_owned();
    let Some(tip) = commit.branch_tip(&branch).await? else { return Ok(PipelineSource::Missing) };
    let files = source::read_pipeline_files_at(commit, &tip).await;
    build.pipeline_from = Some(PipelineOrigin { branch, commit: tip });
    files
}

/// `pipeline ─▶ admit ─▶ plan ─▶ admit`, from the files.
async fn stages_of_files(
    app: &App,
    mut build: Build,
    (commit, files): (&FetchedCommit, PipelineSource),
    (change_set, facts): (ChangeSet, Facts),
) -> Result<Prepared, WorkError> {
    let files = match files {
        PipelineSource::Files(files) => files,
        // Whoever starts a build is told why nothing runs.
        PipelineSource::Missing if build.event.params().is_some() => {
            let reason = no_file(&build, commit).await;
            return Ok(ended_without_stages(build, Status::Error, reason));
        }
        PipelineSource::Missing => return Ok(Prepared::Ignored(no_file(&build, commit).await)),
        PipelineSource::Unreadable(reason) => return Ok(ended_without_stages(build, Status::Error, reason)),
    };
    let pipelines = match pipelines::read(&mut build, &files) {
        Ok(pipelines) => pipelines,
        Err(reason) => return Ok(ended_without_stages(build, Status::Error, reason)),
    };
    if let Some(reason) = not_asked_for(&build, &pipelines) {
        return Ok(Prepared::Ignored(reason));
    }
    if let Some(reason) = schedules::problem(app, &build)? {
        return Ok(ended_without_stages(build, Status::Error, reason));
    }
    let mut matched = pipelines::match_all(pipelines, facts).await?;
    if let [only] = matched.as_slice()
        && let Err(reason) = &only.answer
    {
        let reason = reason.clone();
        return Ok(ended_without_stages(build, Status::Skipped, reason));
    }
    if let Some(reason) = merge(&mut build, commit, &matched).await? {
        return Ok(ended_without_stages(build, Status::Error, reason));
    }
    if let Err(reason) = pipelines::check_params(&matched, &build.event) {
        return Ok(ended_without_stages(build, Status::Error, reason));
    }
    if let Err(reason) = pipelines::set_values(app, &mut build, &mut matched).await? {
        return Ok(ended_without_stages(build, Status::Error, reason));
    }
    let (stages, decisions) = pipelines::plan_all(app, &build, matched, &change_set).await;
    Ok(Prepared::Stages { build: Box::new(build), stages, decisions })
}

/// Merges a pull request into its target if a pipeline checks out the merge. Returns why that is not possible.
async fn merge(build: &mut Build, commit: &FetchedCommit, matched: &[MatchedPipeline]) -> Result<Option<Reason>, WorkError> {
    let Some(pull) = build.event.pull_request() else { return Ok(None) };
    if !matched.iter().any(MatchedPipeline::checks_out_merge) {
        return Ok(None);
    }
    let Some(target) = commit.branch_tip(&pull.target_branch).await.map_err(anyhow::Error::from)? else {
        let message = format!("the target branch {:?} does not exist, so nothing can be merged into it", pull.target_branch);
        return Ok(Some(Reason::new(ReasonCode::BranchDeleted, message)));
    };
    match commit.merge_into(&target, build.id).await.map_err(anyhow::Error::from)? {
        MergeOutcome::Merged(merge) => {
            build.merge = Some(merge);
            Ok(None)
        }
        MergeOutcome::Conflict(paths) => {
            let (head, target) = (build.short_sha(), target.short());
            let message = format!("{head} cannot be merged into {target} of {:?}", pull.target_branch);
            let reason = Reason::new(ReasonCode::MergeConflict, message)
                .help("merge the target into the branch and resolve the conflicts, or use `clone: { pull_request: head }`");
            Ok(Some(paths.iter().take(MAX_CONFLICTS).fold(reason, |reason, path| {
                reason.part(Reason::new(ReasonCode::MergeConflict, format!("conflict in {path:?}")))
            })))
        }
    }
}

/// Why an event that is built only on request is ignored: the tag of a release is built as a tag, and the head of a closed pull
/// request was built before.
fn not_asked_for(build: &Build, pipelines: &[ParsedPipeline]) -> Option<Reason> {
    let kind = build.event.kind();
    let reason = match kind {
        EventKind::Release => Reason::new(ReasonCode::NoReleasePipeline, "the pipeline does not ask for releases")
            .help("to build releases besides their tags, add `when: { event: release }`"),
        EventKind::PullRequestClosed => Reason::new(ReasonCode::NoClosedPipeline, "no pipeline asks for closed pull requests")
            .help("to build them, add `when: { event: pull_request_closed }`"),
        _ => return None,
    };
    let is_named = pipelines.iter().any(|parsed| parsed.pipeline.names_event(kind));
    (!is_named).then_some(reason)
}

async fn no_file(build: &Build, commit: &FetchedCommit) -> Reason {
    if let Some(PipelineOrigin { branch, commit }) = &build.pipeline_from {
        let message = format!("no pipeline file at {} of branch {branch:?}, whose pipeline the build has to run", commit.short());
        return Reason::new(ReasonCode::NoPipelineFile, message).help("add a pipeline file to that branch first");
    }
    let help = source::missing_file_help(commit).await;
    Reason::new(ReasonCode::NoPipelineFile, format!("no pipeline file at {}", commit.head.sha.short())).help(help)
}

/// The build ends without a stage.
pub fn ended_without_stages(mut build: Build, status: Status, reason: Reason) -> Prepared {
    build.status = status;
    build.reason = Some(reason);
    Prepared::Over { build: Box::new(build), decisions: Vec::new() }
}
