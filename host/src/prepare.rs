//! Prepares a build: source, pipeline, admit, plan, admit, stages. Nothing here uses the engine.

use std::time::Duration;

use beespace_core::build::{Build, PipelineFile, Stage};
use beespace_core::diagnostic::Diagnostic;
use beespace_core::event::EventKind;
use beespace_core::pipeline::eval_when::pipeline_matches;
use beespace_core::pipeline::substitution::Path;
use beespace_core::pipeline::{self, ParsedPipeline, Pipeline, params};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use tokio::task::spawn_blocking;

use crate::app::App;
use crate::clock::now;
use crate::planning;
use crate::repository_identity;
use crate::source::{self, ChangeSet, FetchAttempt, FetchedCommit, PipelineSource, Resolution, SourceError};
use crate::store::StoreError;
use crate::store::build_lifecycle::Prepared;
use crate::store::repository::Repositories as _;
use crate::worker::{MAX_WAIT, WorkError, wait_delay};

/// How long a fetched repository may lack the ref of an event, before the ref counts as deleted. Gogs reports a push when the
/// branch is there, but a proxy or a replica may be late.
const MISSING_REF_WAIT: Duration = Duration::from_secs(60);

/// `source`: the commit of the build. The build's event gets the repository's present name, visibility and default branch.
///
/// # Errors
/// [`WorkError::Wait`] while Gogs cannot provide the commit, or the disk is full; the build shows the reason.
pub async fn resolve(app: &App, build: &mut Build) -> Result<Resolution, WorkError> {
    let id = build.event.repository.id;
    let origin = repository_identity::confirmed_origin(app, id);
    let fetched = FetchAttempt::begin(app.mirrors.of(id), origin, &app.forge.access()).await;
    build.event.repository = repository_identity::stored(app, id)?;
    match source::resolve(fetched, build).await {
        Ok(resolution) => Ok(resolution),
        Err(SourceError::CommitMissing { .. }) if is_ref_deleted(app, build)? => {
            Ok(Resolution::Ended(Status::Skipped, ref_deleted(build)))
        }
        Err(error) if error.is_refusal() => Ok(Resolution::Ended(Status::Error, error.reason())),
        Err(error) if error.is_retryable() => wait_or_give_up(app, build, &error).await,
        Err(error) => Err(WorkError::Failed(error.into())),
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

/// `pipeline ─▶ admit ─▶ plan ─▶ admit`: the stages of the commit's pipeline file, or why there are none.
///
/// # Errors
/// The mirror cannot be read.
pub async fn stages(app: &App, mut build: Build, commit: &FetchedCommit) -> Result<Prepared, WorkError> {
    let mirror = app.mirrors.of(build.event.repository.id);
    let (file, (change_set, facts)) = tokio::join!(source::read_pipeline_file(commit), ChangeSet::read(mirror, &build));
    let (path, bytes) = match file.map_err(anyhow::Error::from)? {
        PipelineSource::File { path, bytes } => (path, bytes),
        // Whoever starts a build is told why nothing runs.
        PipelineSource::Missing if build.event.params().is_some() => {
            return Ok(ended_without_stages(build, Status::Error, no_file(commit).await));
        }
        PipelineSource::Missing => return Ok(Prepared::Ignored(no_file(commit).await)),
        PipelineSource::Unreadable(reason) => return Ok(ended_without_stages(build, Status::Error, reason)),
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let parsed = match pipeline::read(&path, &bytes) {
        Ok(parsed) => parsed,
        Err(diagnostics) => {
            let reason = invalid_file(&path, diagnostics.len());
            build.file = Some(PipelineFile { path, text, diagnostics, spans: Default::default() });
            return Ok(ended_without_stages(build, Status::Error, reason));
        }
    };
    build.file = Some(PipelineFile { path: path.clone(), text, diagnostics: Vec::new(), spans: parsed.spans.clone() });
    if build.event.kind() == EventKind::Release && !parsed.pipeline.names_event(EventKind::Release) {
        return Ok(Prepared::Ignored(no_release_pipeline()));
    }
    if let Err(reason) = params::check(&[&parsed.pipeline], &build.event) {
        return Ok(ended_without_stages(build, Status::Error, reason));
    }
    let when = parsed.pipeline.when.clone();
    // The comparison of many paths with many patterns takes a while, so it has a thread of its own.
    let matched = spawn_blocking(move || pipeline_matches(when.as_ref(), &facts)).await.map_err(anyhow::Error::from)?;
    let remarks = match matched {
        Ok(remarks) => remarks,
        Err(reason) => {
            let reason = when_of_pipeline(reason);
            return Ok(ended_without_stages(build, Status::Skipped, reason));
        }
    };
    let pipeline = match with_values(app, &mut build, &path, &parsed).await? {
        Ok(pipeline) => pipeline,
        Err(diagnostics) => return Ok(invalid_values(build, diagnostics)),
    };
    let (stage, decisions) = planning::plan_stage(app, &build, pipeline, &change_set).await;
    let stage = Stage { remarks: remarks.into_iter().chain(stage.remarks).collect(), ..stage };
    Ok(Prepared::Stages { build: Box::new(build), stages: vec![stage], decisions })
}

/// Puts the values of the build into its pipeline. A pipeline that contains the number of the build needs it now.
async fn with_values(
    app: &App,
    build: &mut Build,
    path: &str,
    parsed: &ParsedPipeline,
) -> Result<Result<Pipeline, Vec<Diagnostic>>, StoreError> {
    if parsed.substitutions.contains(&Path::Number) && build.number.is_none() {
        build.number = Some(app.store.assign_number(build.id).await?);
    }
    let params = params::values(&parsed.pipeline, &build.event);
    Ok(pipeline::substitute(path, parsed, &build.values().with_params(&params)))
}

/// The file is valid, but not with the values of this build.
fn invalid_values(mut build: Build, diagnostics: Vec<Diagnostic>) -> Prepared {
    let path = build.file.as_ref().map_or("the pipeline file", |file| &file.path);
    let reason = Reason::new(ReasonCode::InvalidFile, format!("{path} is invalid with the values of this build"));
    if let Some(file) = &mut build.file {
        file.diagnostics = diagnostics;
    }
    ended_without_stages(build, Status::Error, reason)
}

/// Says that the `when` of the pipeline itself did not match, without a second level for the same fact.
fn when_of_pipeline(reason: Reason) -> Reason {
    match &*reason.message {
        "`when` does not match" => Reason { message: "the pipeline's `when` does not match".to_owned(), ..reason },
        _ => Reason::new(ReasonCode::WhenMismatch, "the pipeline's `when` does not match").part(reason),
    }
}

/// The tag of a release is built as a tag, so a file that does not ask for releases wants no second build.
fn no_release_pipeline() -> Reason {
    Reason::new(ReasonCode::NoReleasePipeline, "the pipeline does not ask for releases")
        .help("to build releases besides their tags, add `when: { event: release }`")
}

async fn no_file(commit: &FetchedCommit) -> Reason {
    let help = source::missing_file_help(commit).await;
    Reason::new(ReasonCode::NoPipelineFile, format!("no pipeline file at {}", commit.head.sha.short())).help(help)
}

fn invalid_file(path: &str, count: usize) -> Reason {
    let problems = if count == 1 { "a problem".to_owned() } else { format!("{count} problems") };
    Reason::new(ReasonCode::InvalidFile, format!("{path} has {problems}"))
        .help("run `beespace lint` to check the file before you push")
}

/// The build ends without a stage.
pub fn ended_without_stages(mut build: Build, status: Status, reason: Reason) -> Prepared {
    build.status = status;
    build.reason = Some(reason);
    Prepared::Over { build: Box::new(build), decisions: Vec::new() }
}
