//! The trigger decision about a pull request.

use super::TriggerDecision;
use super::{event_of, ignore, quote_name};
use crate::event::{
    Cause, MAX_CLAIM_CHARS, PullRequest, PullRequestChange, Repository, SourceRepository, bounded_labels, shorten,
};
use crate::gogs::{self, PullRequestAction as Action};
use crate::ids::{RepositoryId, RepositoryName};
use crate::reason::Reason;
use crate::reason_code::ReasonCode;

/// A pull request is built when its code may have changed, or its state. Everything else only updates what is known about it.
pub(super) fn decide(event: &gogs::PullRequestEvent, repository: &Repository) -> TriggerDecision {
    let change = match &event.action {
        Action::Opened => PullRequestChange::Opened,
        Action::Synchronized => PullRequestChange::Synchronized,
        Action::Reopened => PullRequestChange::Reopened,
        Action::Closed => PullRequestChange::Closed,
        _ => PullRequestChange::Edited,
    };
    let pull = pull_request_of(event, change);
    if !pull.has_well_formed_branches() {
        let (source, target) = (quote_name(&pull.source_branch), quote_name(&pull.target_branch));
        let message = format!("pull request #{}: {source} or {target} is not a valid name of a branch", pull.number);
        return ignore(ReasonCode::NotABranch, message, None);
    }
    if change == PullRequestChange::Edited {
        let message = format!("pull request #{} was edited: nothing to build", pull.number);
        return TriggerDecision::Update {
            pull_request: Box::new(pull),
            reason: Reason::new(ReasonCode::NothingToBuild, message),
        };
    }
    TriggerDecision::Build(vec![event_of(repository, &event.sender, Cause::PullRequest(pull))])
}

/// The pull request of a payload. Everything in it is a claim of whoever knows the webhook's secret.
fn pull_request_of(event: &gogs::PullRequestEvent, change: PullRequestChange) -> PullRequest {
    let pull = &event.pull_request;
    let source = pull.head_repo.as_ref().filter(|head| head.id != 0).and_then(|head| {
        let owner = head.owner.as_ref()?.username.as_str();
        Some(SourceRepository { id: RepositoryId(head.id), name: RepositoryName::new(owner, &head.name).ok()? })
    });
    PullRequest {
        number: event.number,
        change,
        title: shorten(&pull.title, MAX_CLAIM_CHARS),
        target_branch: pull.base_branch.clone(),
        source_branch: pull.head_branch.clone(),
        source,
        labels: bounded_labels(pull.labels.iter().map(|label| label.name.as_str())),
        is_merged: pull.merged,
    }
}
