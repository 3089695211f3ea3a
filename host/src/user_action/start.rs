//! Starting a build without an event of Gogs.

use beespace_core::build::Build;
use beespace_core::event::{Actor, Cause, Deployment, Event, GivenParams, Manual, Revision, is_target_name};
use beespace_core::git_ref;
use beespace_core::ids::{BuildId, Sha};
use beespace_core::pipeline::params::{MAX_PARAMS, MAX_VALUE, is_param_name};
use beespace_core::status::Status;
use beespace_core::trust::Trust;

use super::ActionError;
use crate::app::App;
use crate::clock::now;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::repository::{Repositories as _, Repository};

/// A request to start a build. At most one of branch, tag and commit is given; without any, the default branch is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartRequest {
    pub branch: Option<String>,
    pub tag: Option<String>,
    pub sha: Option<String>,
    /// Values for the params of the pipeline. They are compared with the file when it is read.
    pub params: GivenParams,
}

impl StartRequest {
    fn revision(&self, default_branch: &str) -> Result<Revision, ActionError> {
        let revision = match (&self.branch, &self.tag, &self.sha) {
            (None, None, None) => Revision::Branch(default_branch.to_owned()),
            (Some(branch), None, None) => Revision::Branch(branch.clone()),
            (None, Some(tag), None) => Revision::Tag(tag.clone()),
            (None, None, Some(sha)) => {
                return Sha::new(sha).map(Revision::Commit).map_err(|_| ActionError::InvalidCommit(sha.clone()));
            }
            _ => return Err(ActionError::SeveralRevisions),
        };
        if git_ref::is_well_formed(&revision.git_ref()) { Ok(revision) } else { Err(ActionError::InvalidRef(revision)) }
    }
}

/// Bounds the values that are stored with the build. Their meaning is checked against the pipeline file, once that is known.
pub(super) fn check_params(params: &GivenParams) -> Result<(), ActionError> {
    if params.len() > MAX_PARAMS {
        return Err(ActionError::ManyParams(params.len()));
    }
    let odd = params.iter().find(|(name, value)| !is_param_name(name) || value.len() > MAX_VALUE);
    odd.map_or(Ok(()), |(name, _)| Err(ActionError::InvalidParam(name.clone())))
}

/// Starts a build of a revision and returns its id. The revision is looked up when the sources are fetched.
///
/// # Errors
/// [`ActionError`] if the request is invalid or the repository is disabled.
pub async fn start(app: &App, repository: Repository, request: StartRequest, by: &Principal) -> Result<BuildId, ActionError> {
    check_params(&request.params)?;
    let revision = request.revision(&repository.default_branch)?;
    create(app, repository, Cause::Manual(Manual { revision, params: request.params }), None, by).await
}

/// What is done with a successful build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentKind {
    /// It is brought to a target.
    Promote,
    /// A target returns to it.
    Rollback,
}

/// Builds the commit of a successful build for a target, and returns the id of the new build.
///
/// # Errors
/// [`ActionError`] if the request is invalid, the build was not successful or is untrusted, or the repository is disabled.
pub async fn deploy(
    app: &App,
    build: &Build,
    kind: DeploymentKind,
    target: String,
    params: GivenParams,
    by: &Principal,
) -> Result<BuildId, ActionError> {
    check_params(&params)?;
    if !is_target_name(&target) {
        return Err(ActionError::InvalidTarget(target));
    }
    let (Status::Success, Some(of), Some(commit)) = (build.status, build.number, build.sha()) else {
        return Err(ActionError::NotSuccessful { build: build.label(), status: build.status });
    };
    // The pipeline of untrusted code comes from its target, and a promotion has only the commit.
    if build.trust() == Trust::Untrusted {
        return Err(ActionError::Untrusted { build: build.label() });
    }
    let event = &build.event;
    let (branch, tag) = (event.branch().map(str::to_owned), event.tag().map(str::to_owned));
    let deployment = Deployment { target, of, commit: commit.clone(), git_ref: event.git_ref(), branch, tag, params };
    let cause = match kind {
        DeploymentKind::Promote => Cause::Promote(deployment),
        DeploymentKind::Rollback => Cause::Rollback(deployment),
    };
    let repository = app.store.read()?.repository(event.repository.id)?.ok_or(StoreError::NotFound("repository"))?;
    create(app, repository, cause, build.trust, by).await
}

/// Creates a build that a person started. `repeated` is the trust in the build whose commit is built again.
async fn create(
    app: &App,
    repository: Repository,
    cause: Cause,
    repeated: Option<Trust>,
    by: &Principal,
) -> Result<BuildId, ActionError> {
    if repository.hook.is_none() {
        let text = format!("{} is disabled: run `beespace repo enable {}` first", repository.name, repository.name);
        return Err(StoreError::Conflict(text).into());
    }
    let event = Event { repository: repository.described(), sender: Actor::local(by.id()), cause };
    let build = Build { trust: repeated, ..Build::pending(BuildId(uuid::Uuid::now_v7()), event, now()) };
    let id = build.id;
    app.store.start_build(build).await?;
    Ok(id)
}
