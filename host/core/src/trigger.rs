//! What to do about a happening: build it, or ignore it with a reason that a person understands.

use serde::{Deserialize, Serialize};

use crate::event::{Actor, Cause, Claim, Commit, Event, Push, Repository};
use crate::git_ref::{self, BRANCHES, TAGS};
use crate::gogs::{self, GogsEvent};
use crate::ids::{RepositoryId, RepositoryName, Sha};
use crate::reason::Reason;
use crate::verify::Verified;

/// Words in a commit's message that ask for no build.
pub const SKIP_DIRECTIVES: [&str; 3] = ["[skip ci]", "[ci skip]", "[no ci]"];

/// What a ref recorded last: how one push is known again when two hooks, or a person's redelivery, tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeenRef {
    /// None where the ref was new.
    pub before: Option<Sha>,
    pub after: Sha,
}

impl LastSeenRef {
    /// What is to be recorded with the build of this event.
    #[must_use]
    pub fn of_event(event: &Event) -> Self {
        Self { before: event.before().cloned(), after: event.sha().clone() }
    }
}

/// Whether the very same JSON has come before, under another id of Gogs'.
///
/// Gogs tells times in whole seconds: a branch that is moved there, back and there again within one makes the same JSON twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryRepeat {
    First,
    Repeated,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TriggerDecision {
    /// Build it, and record [`LastSeenRef::of`] for its ref.
    Build(Box<Event>),
    /// Keep the delivery with this reason. `forget`: the full name of a ref that is gone, whose record goes with it.
    Ignored { reason: Reason, forget_ref: Option<String> },
}

/// Full name of the ref whose record [`decide`] wants to see; none where it looks at no record.
#[must_use]
pub fn git_ref(happening: &Verified<GogsEvent>) -> Option<String> {
    match happening.get() {
        GogsEvent::Push(push) => branch_ref(push).ok(),
        GogsEvent::Deleted(delete) => Some(delete.git_ref()),
        _ => None,
    }
}

/// Decides. `hook`: the repository whose hook was called; a body that names another one is never built. `last`: what the ref
/// ([`git_ref()`]) recorded last.
#[must_use]
pub fn decide(
    happening: &Verified<GogsEvent>,
    hook: RepositoryId,
    telling: DeliveryRepeat,
    last: Option<&LastSeenRef>,
) -> TriggerDecision {
    let happening = happening.get();
    let told = happening.repository_id();
    if told != hook {
        return ignore(
            "other-repository",
            format!("repository {told} in the body, hook of {hook}"),
            Some("a hook's address belongs to one repository; remove it from the other one (organisation hooks, too)"),
        );
    }
    match happening {
        GogsEvent::Push(push) => decide_push(push, telling, last).unwrap_or_else(|reason| TriggerDecision::Ignored {
            forget_ref: is_deletion(push).then(|| push.git_ref.clone()),
            reason,
        }),
        GogsEvent::Deleted(delete) => TriggerDecision::Ignored {
            reason: Reason::new(
                "deleted",
                format!("{} {} was deleted: nothing to build", ref_type_name(delete.ref_type), quote_name(&delete.name)),
            ),
            forget_ref: Some(delete.git_ref()),
        },
        GogsEvent::BranchCreated(create) => {
            // Gogs calls every ref outside refs/tags/ a branch, so this promises no build.
            ignore(
                "branch-created",
                format!("{} is new; its push comes as a delivery of its own", quote_name(&create.name)),
                None,
            )
        }
        GogsEvent::TagCreated(create) => {
            ignore_unsupported("tag", format!("tag {} was pushed", quote_name(&create.name)), "tags")
        }
        GogsEvent::Release(event) => {
            ignore_unsupported("release", format!("release {} was published", quote_name(&event.release.tag_name)), "releases")
        }
        GogsEvent::PullRequest(event) => {
            ignore_unsupported("pull-request", format!("pull request {} changed", event.number), "pull requests")
        }
        GogsEvent::Forked(fork) => {
            ignore("forked", format!("{} forked it: nothing to build", quote_name(&fork.sender.username)), None)
        }
        GogsEvent::Issue(issues) => ignore("issue", format!("issue {} changed: nothing to build", issues.number), None),
        GogsEvent::IssueComment(comment) => {
            let of = if comment.issue.pull_request.is_some() { "pull request" } else { "issue" };
            ignore("issue-comment", format!("a comment on {of} {}: nothing to build", comment.issue.number), None)
        }
    }
}

/// The first of [`SKIP_DIRECTIVES`] in a commit's message. The listed head commit is looked at by [`decide`]; where Gogs did not list
/// it, the host asks with the message that git has.
#[must_use]
pub fn skip_directive(message: &str) -> Option<&'static str> {
    let message = message.to_lowercase();
    SKIP_DIRECTIVES.into_iter().find(|word| message.contains(word))
}

/// The reason of a build that its commit asked not to have.
#[must_use]
pub fn skip_reason(word: &str) -> Reason {
    Reason::new("skip-word", format!("the commit's message says {word}"))
        .help("push a commit whose message does not say it where you want a build after all")
}

fn decide_push(push: &gogs::Push, telling: DeliveryRepeat, last: Option<&LastSeenRef>) -> Result<TriggerDecision, Reason> {
    let after = pushed_commit(push)?;
    let git_ref = branch_ref(push)?;
    if push.before.as_ref() == Some(after) {
        return Err(test_delivery());
    }
    let mut event = event_of(push, &git_ref, after)?;
    if is_repeated_push(&event, telling, last) {
        let branch = quote_name(git_ref.strip_prefix(BRANCHES).unwrap_or(&git_ref));
        return Err(Reason::new("same-push", format!("this push of {branch} to {} is known already", after.short()))
            .help("`beespace build restart` builds it once more"));
    }
    let Cause::Push(built) = &mut event.cause;
    built.last_known_tip = last.map(|last| last.after.clone()).filter(|left_at| Some(left_at) != built.before.as_ref());
    if let Some(word) = built.head_commit().and_then(|head| skip_directive(&head.message)) {
        return Err(skip_reason(word));
    }
    Ok(TriggerDecision::Build(Box::new(event)))
}

/// Whether an event tells of a push that was recorded already.
fn is_repeated_push(event: &Event, telling: DeliveryRepeat, last: Option<&LastSeenRef>) -> bool {
    match telling {
        DeliveryRepeat::First => last.is_some_and(|last| *last == LastSeenRef::of_event(event)),
        // What does not begin where the ref was left is a second hook, or somebody who sends again what he overheard.
        DeliveryRepeat::Repeated => last.map(|last| &last.after) != event.before(),
    }
}

/// A push that ends a ref. Gogs sends `delete` in its place; other senders of this shape do not.
fn is_deletion(push: &gogs::Push) -> bool {
    push.before.is_some() && push.after.is_none()
}

fn pushed_commit(push: &gogs::Push) -> Result<&Sha, Reason> {
    let name = quote_name(&push.git_ref);
    match (&push.before, &push.after) {
        (_, Some(after)) => Ok(after),
        (Some(_), None) => Err(Reason::new("deleted", format!("{name} was deleted: nothing to build"))),
        (None, None) if push.repository.mirror => {
            Err(Reason::new("tag", format!("the mirror got the tag {name}")).help(not_supported_yet("tags")))
        }
        (None, None) => Err(test_delivery().part(Reason::new("empty-repository", "the repository has no commit yet"))),
    }
}

/// The full name of the branch that was pushed, or why it is none.
fn branch_ref(push: &gogs::Push) -> Result<String, Reason> {
    let name = push.git_ref.as_str();
    let full = if name.starts_with("refs/") {
        name.to_owned()
    } else if push.repository.mirror && push.after.is_some() {
        // The sync of a mirror names branches by their short name; its tags come without a commit.
        format!("{BRANCHES}{name}")
    } else {
        return Err(Reason::new("not-a-branch", format!("{} is not the full name of a ref", quote_name(name))));
    };
    if !git_ref::is_well_formed(&full) {
        return Err(Reason::new("not-a-branch", format!("git cannot have a ref named {}", quote_name(&full))));
    }
    if full.starts_with(BRANCHES) {
        return Ok(full);
    }
    if let Some(tag) = full.strip_prefix(TAGS) {
        return Err(Reason::new("tag", format!("tag {} was pushed", quote_name(tag))).help(not_supported_yet("tags")));
    }
    Err(Reason::new("not-a-branch", format!("{} is no branch", quote_name(&full)))
        .help("only refs under refs/heads/ are built: every writer can push any other ref, `refs/pull/…` included"))
}

fn test_delivery() -> Reason {
    Reason::new("test-delivery", "a test delivery: the hook works").help("push a commit to see a build")
}

fn event_of(push: &gogs::Push, git_ref: &str, after: &Sha) -> Result<Event, Reason> {
    Ok(Event {
        repository: repository_of(&push.repository)?,
        sender: Actor { id: push.sender.id, login: push.sender.username.clone() },
        cause: Cause::Push(Push {
            branch: git_ref.strip_prefix(BRANCHES).unwrap_or(git_ref).to_owned(),
            before: push.before.clone(),
            last_known_tip: None,
            after: after.clone(),
            commits: push.commits.iter().filter_map(commit_of).collect(),
            compare_url: web_address(&push.compare_url),
        }),
    })
}

fn repository_of(told: &gogs::Repository) -> Result<Repository, Reason> {
    let owner = told.owner.as_ref().map_or("", |owner| owner.username.as_str());
    let name = RepositoryName::new(owner, &told.name).map_err(|error| Reason::new("repository-name", error.to_string()))?;
    Ok(Repository {
        id: RepositoryId(told.id),
        name,
        default_branch: told.default_branch.clone(),
        is_private: told.private,
        html_url: web_address(&told.html_url).unwrap_or_default(),
    })
}

/// Only what a browser opens as a page may become a link.
fn web_address(url: &str) -> Option<String> {
    (url.starts_with("https://") || url.starts_with("http://")).then(|| url.to_owned())
}

fn commit_of(commit: &gogs::Commit) -> Option<Commit> {
    Some(Commit {
        sha: commit.id.clone()?,
        message: commit.message.clone(),
        author: Claim { name: commit.author.name.clone(), email: commit.author.email.clone() },
    })
}

fn ref_type_name(kind: gogs::RefType) -> &'static str {
    match kind {
        gogs::RefType::Branch => "branch",
        gogs::RefType::Tag => "tag",
    }
}

/// A stranger's name as part of our sentence: quoted where it could be taken for something else, and never long.
fn quote_name(name: &str) -> String {
    let short: String = name.chars().take(100).collect();
    let is_plain = short.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | '.'));
    if is_plain && short.len() == name.len() { short } else { format!("{short:?}") }
}

fn not_supported_yet(what: &str) -> String {
    format!("Beespace does not build {what} yet")
}

fn ignore_unsupported(code: &str, message: String, what: &str) -> TriggerDecision {
    ignore(code, message, Some(&not_supported_yet(what)))
}

fn ignore(code: &str, message: String, help: Option<&str>) -> TriggerDecision {
    let reason = Reason::new(code, message);
    TriggerDecision::Ignored { reason: if let Some(help) = help { reason.help(help) } else { reason }, forget_ref: None }
}

#[cfg(test)]
mod tests;
