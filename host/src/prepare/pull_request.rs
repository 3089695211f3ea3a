//! The commit of a pull request's build, which no payload names. It is found in Gogs' refs and stored, so that every later
//! attempt builds the same commit. Gogs updates the ref after the webhook; between two looks the build waits in its queue.

use std::collections::BTreeMap;

use beespace_core::build::Build;
use beespace_core::event::{PullRequest, PullRequestChange, tag_ref};
use beespace_core::git_ref::BRANCHES;
use beespace_core::ids::Sha;
use beespace_core::pull_request_head::{Conclusion, Look, PATIENCE, SourceBranch, next_look};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use url::Url;

use super::source_failed;
use crate::app::App;
use crate::clock::now;
use crate::repository_identity;
use crate::source::{FetchAttempt, Resolution, SourceError};
use crate::store::StoreError;
use crate::store::pull_request::{HeadRecorded, PullRequests as _};
use crate::worker::WorkError;

/// Finds the commit of a pull request's build. Returns how the build ends if there is nothing to build. Other builds are
/// unchanged.
///
/// # Errors
/// [`WorkError::Wait`] until the next look, or while Gogs is unreachable; the build shows the reason.
pub(super) async fn find_head(app: &App, build: &mut Build) -> Result<Option<Resolution>, WorkError> {
    let Some(pull) = build.event.pull_request().cloned() else { return Ok(None) };
    match pull.change {
        _ if build.commit.is_some() => Ok(None),
        PullRequestChange::Closed => Ok(take_recorded_head(app, build, &pull)?),
        _ => look(app, build, &pull).await,
    }
}

/// Brings the commit of a pull request into the mirror. Other builds have theirs in branches and tags.
pub(super) async fn fetch_head(app: &App, build: &Build, fetched: &FetchAttempt) -> Result<(), SourceError> {
    let (Some(pull), Some(sha)) = (build.event.pull_request(), &build.commit) else { return Ok(()) };
    let url = app.forge.clone_url(&build.event.repository.name);
    fetched.fetch_pull_request(pull.number, sha, &url, &app.forge.access()).await
}

/// A closed pull request has no new head: the last one is built.
fn take_recorded_head(app: &App, build: &mut Build, pull: &PullRequest) -> Result<Option<Resolution>, StoreError> {
    build.commit = recorded_head(app, build, pull)?;
    let message = || format!("pull request #{} was closed, and none of its commits is known", pull.number);
    Ok(build.commit.is_none().then(|| Resolution::Ignored(Reason::new(ReasonCode::NothingToBuild, message()))))
}

fn recorded_head(app: &App, build: &Build, pull: &PullRequest) -> Result<Option<Sha>, StoreError> {
    let known = app.store.read()?.pull_request(build.event.repository.id, pull.number)?;
    Ok(known.and_then(|known| known.head).map(|head| head.sha))
}

/// One look at the refs in Gogs.
async fn look(app: &App, build: &mut Build, pull: &PullRequest) -> Result<Option<Resolution>, WorkError> {
    let base = build.event.repository.id;
    let url = app.forge.clone_url(&repository_identity::stored(app, base)?.name);
    let is_own = !pull.is_from_fork(base);
    let pull_ref = pull.git_ref();
    let mut names = vec![pull_ref.clone()];
    // The source branch of another repository needs requests of its own, which are made only if they can tell something.
    names.extend(is_own.then(|| source_refs(pull)).into_iter().flatten());
    let refs = match remote_refs(app, build, &url, &names).await {
        Ok(refs) => refs,
        Err(error) => return source_failed(app, build, error).await.map(Some),
    };
    let recorded = recorded_head(app, build, pull)?;
    let waited = now().since(build.created_at);
    let look = Look { change: pull.change, pull_ref: refs.get(&pull_ref), recorded: recorded.as_ref(), waited };
    let branch = match (is_own, look.needs_branch()) {
        (true, _) => Some(branch_in(&refs, pull)),
        (false, false) => None,
        (false, true) => match branch_of_fork(app, build, pull).await {
            Ok(branch) => Some(branch),
            Err(error) => return source_failed(app, build, error).await.map(Some),
        },
    };
    match look.conclude(branch.as_ref()) {
        Conclusion::Head(sha) => record(app, build, sha, true).await,
        Conclusion::Unconfirmed(sha) => record(app, build, sha, false).await,
        Conclusion::OnBranchOnly(sha) => match fetch_branch(app, build, pull).await {
            Ok(true) => record(app, build, sha, true).await,
            Ok(false) => Ok(Some(Resolution::Ended(Status::Error, missing(pull)))),
            Err(error) => source_failed(app, build, error).await.map(Some),
        },
        Conclusion::Wait => {
            wait(app, build, pull).await?;
            Err(WorkError::Wait { until: build.created_at + next_look(waited) })
        }
        Conclusion::BranchDeleted => {
            let message = format!("branch {:?} of pull request #{} was deleted", pull.source_branch, pull.number);
            Ok(Some(Resolution::Ignored(Reason::new(ReasonCode::BranchDeleted, message))))
        }
        Conclusion::Missing => Ok(Some(Resolution::Ended(Status::Error, missing(pull)))),
    }
}

/// The branch and the tag that the name of the source branch may mean: Gogs accepts both.
fn source_refs(pull: &PullRequest) -> [String; 2] {
    [format!("{BRANCHES}{}", pull.source_branch), tag_ref(&pull.source_branch)]
}

fn branch_in(refs: &BTreeMap<String, Sha>, pull: &PullRequest) -> SourceBranch {
    let [branch, tag] = source_refs(pull);
    match (refs.get(&branch), refs.contains_key(&tag)) {
        (Some(tip), _) => SourceBranch::At(tip.clone()),
        // A pull request of a tag has no branch that could be deleted.
        (None, true) => SourceBranch::Unreadable,
        (None, false) => SourceBranch::Deleted,
    }
}

async fn branch_of_fork(app: &App, build: &Build, pull: &PullRequest) -> Result<SourceBranch, SourceError> {
    let Some(source) = &pull.source else { return Ok(SourceBranch::Unreadable) };
    let Some(url) = repository_identity::fork_origin(app, &build.event.repository, source).await? else {
        return Ok(SourceBranch::Unreadable);
    };
    match remote_refs(app, build, &url, &source_refs(pull)).await {
        Ok(refs) => Ok(branch_in(&refs, pull)),
        Err(SourceError::RepositoryGone(_) | SourceError::FetchForbidden(_)) => Ok(SourceBranch::Unreadable),
        Err(error) => Err(error),
    }
}

async fn remote_refs(app: &App, build: &Build, url: &Url, names: &[String]) -> Result<BTreeMap<String, Sha>, SourceError> {
    app.mirrors.of(build.event.repository.id).remote_refs(url, &app.forge.access(), names).await
}

/// Fetches the source branch of a fork, whose commit is in no ref of the target repository. False if Gogs knows no such pull
/// request: a payload could name any fork.
async fn fetch_branch(app: &App, build: &Build, pull: &PullRequest) -> Result<bool, SourceError> {
    let base = &build.event.repository;
    let (Some(source), true) = (&pull.source, pull.is_from_fork(base.id)) else { return Ok(true) };
    let is_pull_request = app.forge.issue(&base.name, pull.number).await.is_ok_and(|issue| issue.pull_request.is_some());
    let origin = repository_identity::fork_origin(app, base, source).await?;
    let Some(url) = origin.filter(|_| is_pull_request) else { return Ok(false) };
    let mirror = app.mirrors.of(base.id);
    mirror.fetch_branch_of_fork(&url, &app.forge.access(), &pull.source_branch, pull.number).await?;
    Ok(true)
}

/// Stores the commit with the build, unless another build has it.
async fn record(app: &App, build: &mut Build, sha: Sha, is_confirmed: bool) -> Result<Option<Resolution>, WorkError> {
    match app.store.record_pull_request_head(build.id, sha.clone(), is_confirmed, now()).await? {
        HeadRecorded::AlreadyBuilt(reason) => Ok(Some(Resolution::Ignored(reason))),
        HeadRecorded::Stored => {
            (build.commit, build.head_unconfirmed) = (Some(sha), !is_confirmed);
            Ok(None)
        }
    }
}

/// Shows why the build waits, once.
async fn wait(app: &App, build: &Build, pull: &PullRequest) -> Result<(), WorkError> {
    if build.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::WaitingForHead.as_str()) {
        return Ok(());
    }
    let message = format!("waiting until Gogs has updated the head of pull request #{}", pull.number);
    Ok(app.store.set_waiting_reason(build.id, Reason::new(ReasonCode::WaitingForHead, message)).await?)
}

fn missing(pull: &PullRequest) -> Reason {
    let message = format!(
        "after {} s Gogs has no {}, and branch {:?} cannot be read",
        PATIENCE.as_secs(),
        pull.git_ref(),
        pull.source_branch
    );
    Reason::new(ReasonCode::HeadMissing, message)
        .help("push to the branch again, or give the token's user read access to its repository")
}
