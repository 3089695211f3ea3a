//! The trigger decision: whether an event of Gogs causes a build, or is ignored with a reason.

mod pull_request;

use serde::{Deserialize, Serialize};

use crate::event::{
    Actor, Cause, Claim, Commit, Event, MAX_CLAIM_CHARS, MAX_MESSAGE_CHARS, PullRequest, Push, Release, Repository, Tag, shorten,
    tag_ref,
};
use crate::git_ref::{self, BRANCHES, TAGS};
use crate::gogs::{self, GogsEvent};
use crate::ids::{InvalidRepositoryName, RepositoryId, RepositoryName, Sha};
use crate::reason::Reason;
use crate::reason_code::ReasonCode;
use crate::verify::Verified;

/// The most commits of a delivery that are stored. Gogs lists fewer, newest first.
const MAX_LISTED_COMMITS: usize = 100;
/// The longest address of a page that is stored. Browsers and proxies refuse much longer ones.
const MAX_ADDRESS_BYTES: usize = 2_048;

/// Directives in a commit message that suppress the build.
pub const SKIP_DIRECTIVES: [&str; 3] = ["[skip ci]", "[ci skip]", "[no ci]"];

/// The last commit that was recorded for a ref. It identifies duplicates: of a push that two webhooks or a manual redelivery
/// report, and of a tag that Gogs reports as created and as a release. Pushes are recorded when their build is created; tags when
/// it is prepared, because only git tells the commit of an annotated tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeenRef {
    /// `None` if the ref was new.
    pub before: Option<Sha>,
    pub after: Sha,
}

impl LastSeenRef {
    /// The record to store with the build of this push; `None` for another event.
    #[must_use]
    pub fn of_push(event: &Event) -> Option<Self> {
        event.push().map(|push| Self { before: push.before.clone(), after: push.after.clone() })
    }

    /// The record of a tag that is built at this commit.
    #[must_use]
    pub fn of_tag(commit: Sha) -> Self {
        Self { before: None, after: commit }
    }
}

/// Whether the same JSON has been delivered before under another delivery id.
///
/// Equal JSON does not prove a repeated delivery. Gogs sends times in whole seconds, so a branch that moves from A to B, back
/// to A and to B again within one second produces the same JSON twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryRepeat {
    /// The JSON is delivered for the first time.
    First,
    /// The JSON was delivered before.
    Repeated,
}

/// The decision about one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TriggerDecision {
    /// Build these events; one delivery may report several: a release also reports its tag. [`LastSeenRef::of_push`] is recorded.
    Build(Vec<Event>),
    /// Keep what is now known about a pull request, and the delivery with this reason.
    Update { pull_request: Box<PullRequest>, reason: Reason },
    /// Keep the delivery with this reason. `forget_ref` is the full name of a deleted ref whose record must be removed.
    Ignored { reason: Reason, forget_ref: Option<String> },
}

/// Full name of the ref whose record [`decide`] needs; `None` if it needs no record.
#[must_use]
pub fn recorded_ref(event: &Verified<GogsEvent>) -> Option<String> {
    match event.get() {
        GogsEvent::Push(push) => branch_ref(push).ok(),
        GogsEvent::Deleted(delete) => Some(delete.git_ref()),
        _ => None,
    }
}

/// The repository as the payload describes it; `None` for an event of another repository than `hook`, which [`decide`] ignores.
///
/// The description is a claim: Gogs shows the secret of a webhook to the administrators of its repository, so they can sign any
/// payload.
#[must_use]
pub fn claimed_repository(event: &Verified<GogsEvent>, hook: RepositoryId) -> Option<&gogs::Repository> {
    Some(event.get().repository()).filter(|claimed| RepositoryId(claimed.id) == hook)
}

/// Decides about an event. `repository` is the repository whose webhook was called, as the server knows it; an event of another
/// repository is never built, and nothing that the payload claims about its repository becomes part of the built event.
/// `last` is the last recorded push of the ref ([`recorded_ref`]).
#[must_use]
pub fn decide(
    event: &Verified<GogsEvent>,
    repository: &Repository,
    repeat: DeliveryRepeat,
    last: Option<&LastSeenRef>,
) -> TriggerDecision {
    let event = event.get();
    let payload_repository = event.repository_id();
    let hook = repository.id;
    if payload_repository != hook {
        return ignore(
            ReasonCode::OtherRepository,
            format!("the payload is for repository {payload_repository}, but the webhook belongs to repository {hook}"),
            Some(
                "a webhook URL belongs to one repository: remove the webhook from the other repository and from its organisation",
            ),
        );
    }
    match event {
        GogsEvent::Push(push) => decide_push(push, repository, repeat, last).unwrap_or_else(|reason| TriggerDecision::Ignored {
            forget_ref: is_deletion(push).then(|| push.git_ref.clone()),
            reason,
        }),
        GogsEvent::Deleted(delete) => TriggerDecision::Ignored {
            reason: Reason::new(
                ReasonCode::RefDeleted,
                format!("{} {} was deleted: nothing to build", ref_type_name(delete.ref_type), quote_name(&delete.name)),
            ),
            forget_ref: Some(delete.git_ref()),
        },
        GogsEvent::BranchCreated(create) => {
            // Gogs reports every ref outside refs/tags/ as a branch, so the text does not promise a build.
            ignore(
                ReasonCode::BranchCreated,
                format!("{} was created; Gogs sends its push as a separate delivery", quote_name(&create.name)),
                None,
            )
        }
        GogsEvent::TagCreated(create) => decide_tag(create, repository).unwrap_or_else(ignored),
        GogsEvent::Release(event) => decide_release(event, repository).unwrap_or_else(ignored),
        GogsEvent::PullRequest(event) => pull_request::decide(event, repository),
        GogsEvent::Forked(fork) => ignore(
            ReasonCode::NothingToBuild,
            format!("{} forked the repository: nothing to build", quote_name(&fork.sender.username)),
            None,
        ),
        GogsEvent::Issue(issues) => {
            ignore(ReasonCode::NothingToBuild, format!("issue {} changed: nothing to build", issues.number), None)
        }
        GogsEvent::IssueComment(comment) => {
            let of = if comment.issue.pull_request.is_some() { "pull request" } else { "issue" };
            ignore(ReasonCode::NothingToBuild, format!("comment on {of} {}: nothing to build", comment.issue.number), None)
        }
    }
}

/// The first of [`SKIP_DIRECTIVES`] in a commit message. [`decide`] checks the head commit if Gogs listed it. Otherwise the
/// host checks the message from git.
#[must_use]
pub fn skip_directive(message: &str) -> Option<&'static str> {
    let message = message.to_lowercase();
    SKIP_DIRECTIVES.into_iter().find(|word| message.contains(word))
}

/// The reason of a build that its commit message suppresses.
#[must_use]
pub fn skip_reason(word: &str) -> Reason {
    Reason::new(ReasonCode::SkipDirective, format!("the commit message contains {word}"))
        .help("to get a build, push a commit whose message does not contain it")
}

fn decide_push(
    push: &gogs::Push,
    repository: &Repository,
    repeat: DeliveryRepeat,
    last: Option<&LastSeenRef>,
) -> Result<TriggerDecision, Reason> {
    if let Some(tag) = pushed_tag(push) {
        return Ok(TriggerDecision::Build(vec![event_of(repository, &push.sender, Cause::Tag(tag?))]));
    }
    let after = pushed_commit(push)?;
    let git_ref = branch_ref(push)?;
    if push.before.as_ref() == Some(after) {
        return Err(test_delivery());
    }
    let built = push_of(push, &git_ref, after, last);
    let directive = built.head_commit().and_then(|head| skip_directive(&head.message));
    let event = event_of(repository, &push.sender, Cause::Push(built));
    if is_repeated_push(&event, repeat, last) {
        let branch = quote_name(git_ref.strip_prefix(BRANCHES).unwrap_or(&git_ref));
        return Err(Reason::new(
            ReasonCode::DuplicatePush,
            format!("this push of {branch} to {} was already processed", after.short()),
        )
        .help("to build it again, use `beespace build restart`"));
    }
    match directive {
        Some(word) => Err(skip_reason(word)),
        None => Ok(TriggerDecision::Build(vec![event])),
    }
}

/// Gogs sends this again when the tag is moved.
fn decide_tag(create: &gogs::Create, repository: &Repository) -> Result<TriggerDecision, Reason> {
    let tag = Tag { name: tag_name(&create.name)?, object: create.sha.clone() };
    Ok(TriggerDecision::Build(vec![event_of(repository, &create.sender, Cause::Tag(tag))]))
}

/// A release that creates its tag is the only report of that tag, so the tag is built as well, unless it already is.
fn decide_release(event: &gogs::ReleaseEvent, repository: &Repository) -> Result<TriggerDecision, Reason> {
    let release = &event.release;
    if event.action != gogs::ReleaseAction::Published || release.draft {
        let message = format!("release {} is not published: nothing to build", quote_name(&release.tag_name));
        return Err(Reason::new(ReasonCode::NothingToBuild, message));
    }
    let tag = tag_name(&release.tag_name)?;
    let published = Release {
        tag: tag.clone(),
        title: shorten(&release.name, MAX_CLAIM_CHARS),
        notes: shorten(&release.body, MAX_MESSAGE_CHARS),
        is_prerelease: release.prerelease,
    };
    let causes = [Cause::Tag(Tag { name: tag, object: None }), Cause::Release(published)];
    let events = causes.into_iter().map(|cause| event_of(repository, &event.sender, cause));
    Ok(TriggerDecision::Build(events.collect()))
}

/// The tag of a push event. Gogs reports tags that people push as `create`; the sync of a mirror reports a new tag as a push with
/// its short name and without commits.
fn pushed_tag(push: &gogs::Push) -> Option<Result<Tag, Reason>> {
    let is_sync = push.repository.mirror && push.before.is_none() && push.after.is_none();
    let name = if is_sync && !push.git_ref.starts_with("refs/") {
        push.git_ref.as_str()
    } else {
        push.git_ref.strip_prefix(TAGS).filter(|_| push.after.is_some())?
    };
    Some(tag_name(name).map(|name| Tag { name, object: push.after.clone() }))
}

/// The short name of a tag, if git allows it.
fn tag_name(name: &str) -> Result<String, Reason> {
    if git_ref::is_well_formed(&tag_ref(name)) {
        return Ok(name.to_owned());
    }
    Err(Reason::new(ReasonCode::NotABranch, format!("{} is not a valid name of a tag", quote_name(name))))
}

/// Whether an event reports a push that is already recorded.
fn is_repeated_push(event: &Event, repeat: DeliveryRepeat, last: Option<&LastSeenRef>) -> bool {
    match repeat {
        DeliveryRepeat::First => last.is_some() && last == LastSeenRef::of_push(event).as_ref(),
        // A push that does not begin at the ref's recorded commit comes from a second webhook, or an attacker replays a delivery.
        DeliveryRepeat::Repeated => last.map(|last| &last.after) != event.before(),
    }
}

/// Whether a push deletes a ref. Gogs sends `delete` instead; other senders of this payload do not.
fn is_deletion(push: &gogs::Push) -> bool {
    push.before.is_some() && push.after.is_none()
}

fn pushed_commit(push: &gogs::Push) -> Result<&Sha, Reason> {
    let name = quote_name(&push.git_ref);
    match (&push.before, &push.after) {
        (_, Some(after)) => Ok(after),
        (Some(_), None) => Err(Reason::new(ReasonCode::RefDeleted, format!("{name} was deleted: nothing to build"))),
        (None, None) => Err(test_delivery().part(Reason::new(ReasonCode::EmptyRepository, "the repository has no commit yet"))),
    }
}

/// The full name of the branch that was pushed, or the reason why the push is not for a branch.
fn branch_ref(push: &gogs::Push) -> Result<String, Reason> {
    let name = push.git_ref.as_str();
    let full = if name.starts_with("refs/") {
        name.to_owned()
    } else if push.repository.mirror && push.after.is_some() {
        // The sync of a mirror sends short names of branches, and tags without a commit.
        format!("{BRANCHES}{name}")
    } else {
        return Err(Reason::new(ReasonCode::NotABranch, format!("{} is not the full name of a ref", quote_name(name))));
    };
    if !git_ref::is_well_formed(&full) {
        return Err(Reason::new(ReasonCode::NotABranch, format!("{} is not a valid git ref name", quote_name(&full))));
    }
    if full.starts_with(BRANCHES) {
        return Ok(full);
    }
    Err(Reason::new(ReasonCode::NotABranch, format!("{} is neither a branch nor a tag", quote_name(&full))).help(
        "only refs under refs/heads/ and refs/tags/ are built: everyone with write access can push any other ref, including \
         `refs/pull/…`",
    ))
}

fn test_delivery() -> Reason {
    Reason::new(ReasonCode::TestDelivery, "test delivery: the webhook works").help("push a commit to start a build")
}

fn push_of(push: &gogs::Push, git_ref: &str, after: &Sha, last: Option<&LastSeenRef>) -> Push {
    Push {
        branch: git_ref.strip_prefix(BRANCHES).unwrap_or(git_ref).to_owned(),
        before: push.before.clone(),
        last_known_tip: last.map(|last| last.after.clone()).filter(|tip| Some(tip) != push.before.as_ref()),
        after: after.clone(),
        commits: push.commits.iter().take(MAX_LISTED_COMMITS).filter_map(commit_of).collect(),
        compare_url: web_address(&push.compare_url),
    }
}

fn event_of(repository: &Repository, sender: &gogs::User, cause: Cause) -> Event {
    let sender = Actor::user(sender.id, shorten(&sender.username, MAX_CLAIM_CHARS));
    Event { repository: repository.clone(), sender, cause }
}

/// A repository as a response of Gogs describes it.
///
/// # Errors
/// [`InvalidRepositoryName`] if its name could leave its directory: Gogs accepted the name `..` until 0.14.3.
pub fn repository_of(found: &gogs::Repository) -> Result<Repository, InvalidRepositoryName> {
    let owner = found.owner.as_ref().map_or("", |owner| owner.username.as_str());
    Ok(Repository {
        id: RepositoryId(found.id),
        name: RepositoryName::new(owner, &found.name)?,
        default_branch: found.default_branch.clone(),
        is_private: found.private,
        html_url: web_address(&found.html_url).unwrap_or_default(),
    })
}

/// Only http and https addresses of a usual length may become links on pages.
fn web_address(url: &str) -> Option<String> {
    let is_link = url.len() <= MAX_ADDRESS_BYTES && (url.starts_with("https://") || url.starts_with("http://"));
    is_link.then(|| url.to_owned())
}

fn commit_of(commit: &gogs::Commit) -> Option<Commit> {
    Some(Commit {
        sha: commit.id.clone()?,
        message: shorten(&commit.message, MAX_MESSAGE_CHARS),
        author: Claim::shortened(&commit.author.name, &commit.author.email),
        parents: None,
    })
}

fn ref_type_name(kind: gogs::RefType) -> &'static str {
    match kind {
        gogs::RefType::Branch => "branch",
        gogs::RefType::Tag => "tag",
    }
}

/// An untrusted name for use in a sentence: truncated, and quoted if it contains unusual characters.
fn quote_name(name: &str) -> String {
    let short: String = name.chars().take(100).collect();
    let is_plain = short.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | '.'));
    if is_plain && short.len() == name.len() { short } else { format!("{short:?}") }
}

fn ignore(code: ReasonCode, message: String, help: Option<&str>) -> TriggerDecision {
    let reason = Reason::new(code, message);
    ignored(if let Some(help) = help { reason.help(help) } else { reason })
}

fn ignored(reason: Reason) -> TriggerDecision {
    TriggerDecision::Ignored { reason, forget_ref: None }
}

#[cfg(test)]
mod tests;
