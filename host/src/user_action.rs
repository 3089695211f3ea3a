//! What people do to builds and notices, by a button or by the API: the effects of [`beespace_core::intervention`].

use beespace_core::build::{Build, Stage};
use beespace_core::digest::Digest;
use beespace_core::ids::{BuildId, NoticeId, StageId};
use beespace_core::notice::Notice;
use beespace_core::policy::approval::Approver;
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::user_action;

use crate::api::dto::ApprovalAnswerBody;
use crate::api::problem::Problem;
use crate::http_state::AppState;
use crate::store::StoreError;
use crate::store::build::Builds as _;

/// A person's answer to what waits for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalAnswer {
    Approve,
    Decline,
}

/// To what exactly. A no may be to all that waits.
#[derive(Debug, Clone, Copy)]
enum BoundAnswer {
    Approve(Digest),
    Decline(Option<Digest>),
}

/// Builds the same event once more.
///
/// # Errors
/// [`Problem`]: conflict while the build is not over.
pub async fn restart(front: &AppState, build: &Build) -> Result<Build, Problem> {
    Ok(front.store.restart_build(build.id, BuildId(uuid::Uuid::now_v7()), front.now()).await?)
}

/// Stops a build: what waits ends at once, what runs is asked to.
///
/// # Errors
/// [`Problem`]: conflict where the build is over.
pub async fn cancel(front: &AppState, build: &Build, who: &'static str) -> Result<(), Problem> {
    let stages = front.store.read()?.stages(build.id)?;
    let now = front.now();
    if stages.is_empty() {
        let reason = Reason::new("cancelled", format!("cancelled by {who}"));
        return Ok(front.store.end_unprepared(build.id, Status::Killed, reason, front.notifiers.clone(), now).await?);
    }
    let open: Vec<StageId> = stages.iter().filter(|stage| !stage.status.is_over()).map(Stage::id).collect();
    if open.is_empty() {
        return Err(Problem::conflict(format!("The build is {} already.", build.status)));
    }
    for id in open {
        let change = move |stage: &mut Stage| match user_action::cancel(stage, who, now) {
            // It ended between our look and our word: nothing is left to stop.
            Ok(()) | Err(user_action::ActionRefused::AlreadyFinished(_)) => Ok(()),
            Err(refused) => Err(StoreError::Conflict(refused.to_string())),
        };
        front.store.change_stage(id, front.notifiers.clone(), now, change).await?;
    }
    Ok(())
}

/// Says yes or no to what waits for a person's word.
///
/// # Errors
/// [`Problem`]: conflict where nothing waits, something else waits, or the word does not count.
pub async fn answer(
    front: &AppState,
    build: &Build,
    answer: ApprovalAnswer,
    word: ApprovalAnswerBody,
    who: &'static str,
) -> Result<Stage, Problem> {
    let subject = word.subject.as_deref().map(str::parse::<Digest>).transpose();
    let subject = subject.map_err(|error| Problem::bad_request(error.to_string()))?;
    let stages = front.store.read()?.stages(build.id)?;
    let blocked: Vec<StageId> = stages.iter().filter(|stage| stage.accepts_approval()).map(Stage::id).collect();
    let id = match (word.stage, blocked.as_slice()) {
        (Some(number), _) => {
            stages.iter().map(Stage::id).find(|id| id.stage.0 == number).ok_or_else(|| Problem::not_found("stage"))?
        }
        (None, [only]) => *only,
        (None, []) => return Err(Problem::conflict(format!("Nothing waits for a word; the build is {}.", build.status))),
        (None, _) => return Err(Problem::bad_request("Several stages wait for a word; say which.")),
    };
    let (now, caused_by) = (front.now(), build.event.sender.stable_id());
    let why = word.reason.filter(|reason| !reason.trim().is_empty());
    let said = match (answer, subject) {
        (ApprovalAnswer::Approve, None) => return Err(missing_subject()),
        (ApprovalAnswer::Approve, Some(subject)) => BoundAnswer::Approve(subject),
        (ApprovalAnswer::Decline, subject) => BoundAnswer::Decline(subject),
    };
    let change = move |stage: &mut Stage| {
        let by = Approver { id: who.to_owned(), at: now };
        let changed = match said {
            BoundAnswer::Approve(subject) => user_action::approve(stage, subject, by, why.as_deref(), &caused_by),
            BoundAnswer::Decline(subject) => user_action::decline(stage, subject, by, why.as_deref(), &caused_by),
        };
        changed.map_err(|refused| StoreError::Conflict(as_sentence(&refused.to_string())))
    };
    Ok(front.store.change_stage(id, front.notifiers.clone(), now, change).await?)
}

fn missing_subject() -> Problem {
    let detail = "An approval is for exactly one thing, and the digest of what you approve is missing.";
    Problem::bad_request(detail).help("Look at the build: each of its approvals has it as `subject`.")
}

/// Sends a notice that was given up, or whose notifier has been mended, once more.
///
/// # Errors
/// [`Problem`]: not found, or conflict where it is on its way or has arrived.
pub async fn replay_notice(front: &AppState, id: NoticeId) -> Result<Notice, Problem> {
    Ok(front.store.replay_notice(id, front.now()).await?)
}

/// Text of core begins small and ends open, to stand inside a sentence.
fn as_sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}
