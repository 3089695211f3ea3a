//! Actions of people on builds and notices, by a button or by the API: the effects of [`beespace_core::user_action`].

mod schedule;
mod start;

use beespace_core::build::{Build, Stage};
use beespace_core::digest::{Digest, InvalidDigest};
use beespace_core::event::Revision;
use beespace_core::ids::{BuildId, NoticeId, StageId, StageNumber};
use beespace_core::notice::Notice;
use beespace_core::pipeline::params::{MAX_PARAMS, MAX_VALUE};
use beespace_core::policy::approval::{Approver, MAX_REASON_CHARS};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::user_action;

pub use self::schedule::{run_schedule, set_schedule};
pub use self::start::{DeploymentKind, StartRequest, deploy, start};
use crate::app::App;
use crate::clock::now;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::build::Builds as _;

/// An action on a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildAction {
    /// Build the same event again, as a new build.
    Restart,
    Cancel,
    Approve(ApprovalAnswer),
    Decline(ApprovalAnswer),
}

/// The details of an approval or a refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApprovalAnswer {
    /// The stage; the only blocked one if none is given.
    pub stage: Option<StageNumber>,
    /// The digest of the approved or declined subject. An approval requires it; without it, a refusal covers all waiting ones.
    pub subject: Option<Digest>,
    /// A reason for the people who wait for the decision; at most [`MAX_REASON_CHARS`].
    pub reason: Option<String>,
}

impl ApprovalAnswer {
    /// Parses the parts of a request. A blank reason is none.
    ///
    /// # Errors
    /// [`ActionError::InvalidSubject`]; [`ActionError::LongReason`].
    pub fn parse(stage: Option<u16>, subject: Option<&str>, reason: Option<&str>) -> Result<Self, ActionError> {
        let reason = reason.map(str::trim).filter(|reason| !reason.is_empty());
        if let Some(count) = reason.map(|reason| reason.chars().count()).filter(|count| *count > MAX_REASON_CHARS) {
            return Err(ActionError::LongReason(count));
        }
        let subject = subject.map(str::parse).transpose()?;
        Ok(Self { stage: stage.map(StageNumber), subject, reason: reason.map(str::to_owned) })
    }
}

/// Why an action changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    InvalidSubject(#[from] InvalidDigest),
    #[error("the reason has {0} characters; at most {most} are possible", most = MAX_REASON_CHARS)]
    LongReason(usize),
    #[error("{build} has no stage {stage}")]
    NoStage { build: String, stage: StageNumber },
    #[error("nothing is waiting for approval: {build} is {status}")]
    NothingBlocked { build: String, status: Status },
    #[error("several stages are waiting for approval; select one by its number")]
    SeveralBlocked,
    #[error("an approval requires the digest of its subject")]
    NoSubject,
    #[error("{build} is already {status}")]
    Over { build: String, status: Status },
    #[error("a build is started for a branch, a tag or a commit, not for several of them")]
    SeveralRevisions,
    #[error("{0:?} is not a full commit id of 40 hex digits")]
    InvalidCommit(String),
    #[error("{0} has a name that git does not allow")]
    InvalidRef(Revision),
    #[error("{build} is {status}; only a successful build can be promoted or rolled back to")]
    NotSuccessful { build: String, status: Status },
    #[error("the code of {build} is untrusted; only a commit that a branch or a tag contains can be promoted or rolled back to")]
    Untrusted { build: String },
    #[error("{0}")]
    InvalidSchedule(String),
    #[error("{0:?} is not the name of a target: 1 to 100 letters, digits, `.`, `_`, `-` and `/`")]
    InvalidTarget(String),
    #[error("{0} params were given; at most {most} are possible", most = MAX_PARAMS)]
    ManyParams(usize),
    #[error(
        "{0:?} is not a valid param: a name has letters, digits, `_` and `-`, and a value at most {most} bytes",
        most = MAX_VALUE
    )]
    InvalidParam(String),
}

/// Applies an action and returns the id of the build to show next: the new one after a restart, otherwise the same.
///
/// # Errors
/// [`ActionError`].
pub async fn apply(app: &App, build: &Build, action: BuildAction, by: &Principal) -> Result<BuildId, ActionError> {
    match action {
        BuildAction::Restart => return Ok(app.store.restart_build(build.id, BuildId(uuid::Uuid::now_v7()), now()).await?.id),
        BuildAction::Cancel => cancel(app, build, by).await?,
        BuildAction::Approve(answer) => {
            let id = answered_stage(app, build, &answer)?;
            let subject = answer.subject.ok_or(ActionError::NoSubject)?;
            change_stage(app, build, id, by, answer.reason, move |stage, by, caused_by| {
                user_action::approve(stage, subject, by.clone(), caused_by)
            })
            .await?;
        }
        BuildAction::Decline(answer) => {
            let id = answered_stage(app, build, &answer)?;
            let subject = answer.subject;
            change_stage(app, build, id, by, answer.reason, move |stage, by, caused_by| {
                user_action::decline(stage, subject, by, caused_by)
            })
            .await?;
        }
    }
    Ok(build.id)
}

/// Ends the waiting stages at once, and requests the running ones to stop.
async fn cancel(app: &App, build: &Build, by: &Principal) -> Result<(), ActionError> {
    let stages = app.store.read()?.stages(build.id)?;
    let now = now();
    if stages.is_empty() {
        let reason = Reason::new(ReasonCode::Cancelled, format!("cancelled by {}", by.id()));
        return Ok(app.store.end_unprepared(build.id, Status::Killed, reason, now).await?);
    }
    match app.store.cancel_stages(build, by.id(), now).await? {
        true => Ok(()),
        false => Err(ActionError::Over { build: build.label(), status: build.status }),
    }
}

/// The stage that an approval or a refusal is for.
fn answered_stage(app: &App, build: &Build, answer: &ApprovalAnswer) -> Result<StageId, ActionError> {
    let stages = app.store.read()?.stages(build.id)?;
    if let Some(number) = answer.stage {
        let stage = stages.iter().find(|stage| stage.number == number);
        return stage.map(Stage::id).ok_or_else(|| ActionError::NoStage { build: build.label(), stage: number });
    }
    let blocked: Vec<StageId> = stages.iter().filter(|stage| stage.accepts_approval()).map(Stage::id).collect();
    match blocked.as_slice() {
        [only] => Ok(*only),
        [] => Err(ActionError::NothingBlocked { build: build.label(), status: build.status }),
        _ => Err(ActionError::SeveralBlocked),
    }
}

/// Changes a stage by a pure decision of core, which receives the person with the given reason, and the id of the user who caused
/// the build.
async fn change_stage(
    app: &App,
    build: &Build,
    id: StageId,
    by: &Principal,
    reason: Option<String>,
    change: impl Fn(&mut Stage, &Approver, &str) -> Result<(), user_action::ActionRefused> + Send + 'static,
) -> Result<(), ActionError> {
    let approver = Approver { id: by.id().to_owned(), at: now(), reason };
    let (at, caused_by) = (approver.at, build.event.sender.stable_id());
    let change = move |stage: &mut Stage| {
        change(stage, &approver, &caused_by).map_err(|refused| StoreError::Conflict(refused.to_string()))
    };
    app.store.change_stage(id, at, change).await?;
    Ok(())
}

/// Sends a notice again, or at once if it is waiting for its next attempt.
///
/// # Errors
/// [`StoreError::NotFound`]; [`StoreError::Conflict`] if the notice has been sent.
pub async fn retry_notice(app: &App, id: NoticeId) -> Result<Notice, StoreError> {
    app.store.retry_notice(id, now()).await
}

/// Sends all unfinished notices of a notifier at once, in order. Returns whether the configuration has this notifier.
///
/// # Errors
/// [`StoreError`] if the store cannot be written.
pub async fn retry_notifier(app: &App, notifier: &str) -> Result<bool, StoreError> {
    if !app.plugins.notifiers.contains_key(notifier) {
        return Ok(false);
    }
    app.store.retry_notices_of(notifier.to_owned(), now()).await.map(|()| true)
}
