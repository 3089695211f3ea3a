//! What to do about a happening: build it, or ignore it with a reason that a person understands.

use serde::{Deserialize, Serialize};

use crate::event::{Actor, Cause, Claim, Commit, Event, Push, Repository};
use crate::git_ref::{self, BRANCHES, TAGS};
use crate::gogs::{self, Happening};
use crate::ids::{RepositoryId, RepositoryName, Sha};
use crate::outcome::Reason;
use crate::verify::Verified;

/// Words in a commit's message that ask for no build.
pub const SKIP_WORDS: [&str; 3] = ["[skip ci]", "[ci skip]", "[no ci]"];

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
    pub fn of(event: &Event) -> Self {
        Self { before: event.before().cloned(), after: event.sha().clone() }
    }
}

/// Whether the very same JSON has come before, under another id of Gogs'.
///
/// Gogs tells times in whole seconds: a branch that is moved there, back and there again within one makes the same JSON twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    First,
    Again,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intake {
    /// Build it, and record [`LastSeenRef::of`] for its ref.
    Build(Box<Event>),
    /// Keep the delivery with this reason. `forget`: the full name of a ref that is gone, whose record goes with it.
    Ignored { reason: Reason, forget: Option<String> },
}

/// Full name of the ref whose record [`decide`] wants to see; none where it looks at no record.
#[must_use]
pub fn git_ref(happening: &Verified<Happening>) -> Option<String> {
    match happening.get() {
        Happening::Push(push) => branch_ref(push).ok(),
        Happening::Deleted(delete) => Some(delete.git_ref()),
        _ => None,
    }
}

/// Decides. `hook`: the repository whose hook was called; a body that names another one is never built. `last`: what the ref
/// ([`git_ref()`]) recorded last.
#[must_use]
pub fn decide(happening: &Verified<Happening>, hook: RepositoryId, telling: Telling, last: Option<&LastSeenRef>) -> Intake {
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
        Happening::Push(push) => decide_push(push, telling, last)
            .unwrap_or_else(|reason| Intake::Ignored { forget: is_deletion(push).then(|| push.git_ref.clone()), reason }),
        Happening::Deleted(delete) => Intake::Ignored {
            reason: Reason::new(
                "deleted",
                format!("{} {} was deleted: nothing to build", ref_word(delete.ref_type), shown(&delete.name)),
            ),
            forget: Some(delete.git_ref()),
        },
        Happening::BranchCreated(create) => {
            // Gogs calls every ref outside refs/tags/ a branch, so this promises no build.
            ignore("branch-created", format!("{} is new; its push comes as a delivery of its own", shown(&create.name)), None)
        }
        Happening::TagCreated(create) => not_yet("tag", format!("tag {} was pushed", shown(&create.name)), "tags"),
        Happening::Release(event) => {
            not_yet("release", format!("release {} was published", shown(&event.release.tag_name)), "releases")
        }
        Happening::PullRequest(event) => {
            not_yet("pull-request", format!("pull request {} changed", event.number), "pull requests")
        }
        Happening::Forked(fork) => {
            ignore("forked", format!("{} forked it: nothing to build", shown(&fork.sender.username)), None)
        }
        Happening::Issue(issues) => ignore("issue", format!("issue {} changed: nothing to build", issues.number), None),
        Happening::IssueComment(comment) => {
            let of = if comment.issue.pull_request.is_some() { "pull request" } else { "issue" };
            ignore("issue-comment", format!("a comment on {of} {}: nothing to build", comment.issue.number), None)
        }
    }
}

/// The first of [`SKIP_WORDS`] in a commit's message. The listed head commit is looked at by [`decide`]; where Gogs did not list
/// it, the host asks with the message that git has.
#[must_use]
pub fn skip_word(message: &str) -> Option<&'static str> {
    let message = message.to_lowercase();
    SKIP_WORDS.into_iter().find(|word| message.contains(word))
}

/// The reason of a build that its commit asked not to have.
#[must_use]
pub fn skip_reason(word: &str) -> Reason {
    Reason::new("skip-word", format!("the commit's message says {word}"))
        .help("push a commit whose message does not say it where you want a build after all")
}

fn decide_push(push: &gogs::Push, telling: Telling, last: Option<&LastSeenRef>) -> Result<Intake, Reason> {
    let after = after_of(push)?;
    let git_ref = branch_ref(push)?;
    if push.before.as_ref() == Some(after) {
        return Err(test_delivery());
    }
    let mut event = event_of(push, &git_ref, after)?;
    if is_known(&event, telling, last) {
        let branch = shown(git_ref.strip_prefix(BRANCHES).unwrap_or(&git_ref));
        return Err(Reason::new("same-push", format!("this push of {branch} to {} is known already", after.short()))
            .help("`beespace build restart` builds it once more"));
    }
    let Cause::Push(built) = &mut event.cause;
    built.left_at = last.map(|last| last.after.clone()).filter(|left_at| Some(left_at) != built.before.as_ref());
    if let Some(word) = built.head_commit().and_then(|head| skip_word(&head.message)) {
        return Err(skip_reason(word));
    }
    Ok(Intake::Build(Box::new(event)))
}

/// Whether an event tells of a push that was recorded already.
fn is_known(event: &Event, telling: Telling, last: Option<&LastSeenRef>) -> bool {
    match telling {
        Telling::First => last.is_some_and(|last| *last == LastSeenRef::of(event)),
        // What does not begin where the ref was left is a second hook, or somebody who sends again what he overheard.
        Telling::Again => last.map(|last| &last.after) != event.before(),
    }
}

/// A push that ends a ref. Gogs sends `delete` in its place; other senders of this shape do not.
fn is_deletion(push: &gogs::Push) -> bool {
    push.before.is_some() && push.after.is_none()
}

fn after_of(push: &gogs::Push) -> Result<&Sha, Reason> {
    let name = shown(&push.git_ref);
    match (&push.before, &push.after) {
        (_, Some(after)) => Ok(after),
        (Some(_), None) => Err(Reason::new("deleted", format!("{name} was deleted: nothing to build"))),
        (None, None) if push.repository.mirror => {
            Err(Reason::new("tag", format!("the mirror got the tag {name}")).help(later("tags")))
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
        return Err(Reason::new("not-a-branch", format!("{} is not the full name of a ref", shown(name))));
    };
    if !git_ref::is_well_formed(&full) {
        return Err(Reason::new("not-a-branch", format!("git cannot have a ref named {}", shown(&full))));
    }
    if full.starts_with(BRANCHES) {
        return Ok(full);
    }
    if let Some(tag) = full.strip_prefix(TAGS) {
        return Err(Reason::new("tag", format!("tag {} was pushed", shown(tag))).help(later("tags")));
    }
    Err(Reason::new("not-a-branch", format!("{} is no branch", shown(&full)))
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
            left_at: None,
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

fn ref_word(kind: gogs::RefType) -> &'static str {
    match kind {
        gogs::RefType::Branch => "branch",
        gogs::RefType::Tag => "tag",
    }
}

/// A stranger's name as part of our sentence: quoted where it could be taken for something else, and never long.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(100).collect();
    let is_plain = short.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | '.'));
    if is_plain && short.len() == name.len() { short } else { format!("{short:?}") }
}

fn later(what: &str) -> String {
    format!("Beespace does not build {what} yet")
}

fn not_yet(code: &str, message: String, what: &str) -> Intake {
    ignore(code, message, Some(&later(what)))
}

fn ignore(code: &str, message: String, help: Option<&str>) -> Intake {
    let reason = Reason::new(code, message);
    Intake::Ignored { reason: if let Some(help) = help { reason.help(help) } else { reason }, forget: None }
}

#[cfg(test)]
mod tests;
