//! Pull requests: their webhooks, and the ref that Gogs updates after the webhook was answered.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::git;
use super::push_events;
use super::repository::{Repository, RepositoryObject};
use super::state::{Instance, now};
use super::user::{User, UserObject};

/// A pull request. Issues share its numbers in Gogs; the fake Gogs has no issues.
#[derive(Debug, Clone)]
pub(super) struct PullRequest {
    pub(super) id: u64,
    /// The id of the target repository.
    pub(super) base: u64,
    pub(super) number: u64,
    pub(super) author: User,
    pub(super) title: String,
    pub(super) labels: Vec<LabelObject>,
    /// The id of the repository of the source branch.
    pub(super) head: u64,
    pub(super) head_branch: String,
    pub(super) base_branch: String,
    pub(super) is_open: bool,
    /// The head when it was merged.
    pub(super) merged: Option<String>,
}

/// A label as Gogs shows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LabelObject {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) color: &'static str,
    pub(super) url: &'static str,
}

#[derive(Debug, Serialize)]
struct Payload {
    action: &'static str,
    number: u64,
    pull_request: Object,
    repository: RepositoryObject,
    sender: UserObject,
}

#[derive(Debug, Serialize)]
struct Object {
    id: u64,
    number: u64,
    user: UserObject,
    title: String,
    body: &'static str,
    labels: Vec<LabelObject>,
    milestone: Option<()>,
    assignee: Option<()>,
    state: &'static str,
    comments: u64,
    head_branch: String,
    head_repo: Option<RepositoryObject>,
    base_branch: String,
    base_repo: RepositoryObject,
    html_url: String,
    mergeable: Option<bool>,
    merged: bool,
    merged_at: Option<String>,
    merge_commit_sha: Option<String>,
    merged_by: Option<UserObject>,
}

/// An issue of the API; for a pull request the only source of its present title, labels and state.
#[derive(Debug, Serialize)]
pub(super) struct IssueObject {
    id: u64,
    number: u64,
    user: UserObject,
    title: String,
    body: &'static str,
    labels: Vec<LabelObject>,
    milestone: Option<()>,
    assignee: Option<()>,
    state: &'static str,
    comments: u64,
    created_at: String,
    updated_at: String,
    pull_request: IssuePullRequest,
}

#[derive(Debug, Serialize)]
struct IssuePullRequest {
    merged: bool,
    merged_at: Option<String>,
}

impl PullRequest {
    pub(super) fn issue(&self, base: &str) -> IssueObject {
        IssueObject {
            id: self.id,
            number: self.number,
            user: self.author.object(base),
            title: self.title.clone(),
            body: "",
            labels: self.labels.clone(),
            milestone: None,
            assignee: None,
            state: self.state(),
            comments: 0,
            created_at: now(),
            updated_at: now(),
            pull_request: IssuePullRequest { merged: self.merged.is_some(), merged_at: None },
        }
    }

    fn state(&self) -> &'static str {
        if self.is_open { "open" } else { "closed" }
    }
}

/// What happens to the head of a pull request after its webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadUpdate {
    Keep,
    /// The ref gets the tip of the source branch, or disappears with it.
    Follow,
}

impl Instance {
    /// Queues the webhook of a pull request, and updates its ref after it was answered.
    pub(super) fn tell_pull_request(
        self: &Arc<Self>,
        pull: &PullRequest,
        action: &'static str,
        sender: &User,
        update: HeadUpdate,
    ) -> anyhow::Result<()> {
        let payload = self.pull_request_payload(pull, action, sender)?;
        let base = self.repository_by_id(pull.base).context("the target repository is missing")?;
        let queued = self.read(|state| state.deliveries.len());
        self.queue_event(&base, "pull_request", &payload)?;
        let last = self.read(|state| state.deliveries.len());
        if update == HeadUpdate::Follow {
            let (gogs, pull) = (Arc::clone(self), pull.clone());
            tokio::spawn(async move {
                gogs.wait_for(|state| {
                    let sent = state.deliveries.iter().skip(queued).take(last - queued).all(|it| !it.attempts.is_empty());
                    sent.then_some(())
                })
                .await;
                let faults = gogs.read(|state| state.faults);
                tokio::time::sleep(Duration::from_millis(faults.pull_ref_delay_ms)).await;
                let updated = gogs.update_pull_ref(&pull, faults.pull_refs_lost).await;
                #[expect(clippy::print_stderr, reason = "nobody waits for the update; a test sees that it is missing")]
                if let Err(error) = updated {
                    eprintln!("the ref of pull request {} could not be updated: {error:#}", pull.number);
                }
            });
        }
        Ok(())
    }

    fn pull_request_payload(&self, pull: &PullRequest, action: &'static str, sender: &User) -> anyhow::Result<Payload> {
        let base = self.repository_by_id(pull.base).context("the target repository is missing")?.object(&self.base);
        let head = self.repository_by_id(pull.head).map(|head| self.object_with_parent(&head));
        let html_url = format!("{}/pulls/{}", base.html_url, pull.number);
        let object = Object {
            id: pull.id,
            number: pull.number,
            user: pull.author.object(&self.base),
            title: pull.title.clone(),
            body: "",
            labels: pull.labels.clone(),
            milestone: None,
            assignee: None,
            state: pull.state(),
            comments: 0,
            head_branch: pull.head_branch.clone(),
            head_repo: head,
            base_branch: pull.base_branch.clone(),
            base_repo: base.clone(),
            html_url,
            mergeable: Some(true),
            merged: pull.merged.is_some(),
            merged_at: pull.merged.as_ref().map(|_| now()),
            // Despite its name this is the head, not the merge.
            merge_commit_sha: pull.merged.clone(),
            merged_by: pull.merged.as_ref().map(|_| sender.object(&self.base)),
        };
        let sender = sender.object(&self.base);
        Ok(Payload { action, number: pull.number, pull_request: object, repository: base, sender })
    }

    /// Gogs deletes the ref, and then pushes the branch to it. `is_lost`: the push fails.
    async fn update_pull_ref(&self, pull: &PullRequest, is_lost: bool) -> anyhow::Result<()> {
        let base = self.repository_by_id(pull.base).context("the target repository is missing")?;
        let _alone = Arc::clone(&base.receiving).lock_owned().await;
        let pull_ref = format!("refs/pull/{}/head", pull.number);
        let head = self.repository_by_id(pull.head);
        let branch = format!("refs/heads/{}", pull.head_branch);
        let refs = match &head {
            Some(head) => git::refs(&self.home, &head.path).await?,
            None => git::Refs::new(),
        };
        let mut update = git::command(&self.home);
        update.arg("-C").arg(&base.path);
        match head.filter(|_| refs.contains_key(&branch) && !is_lost) {
            Some(head) => update.args(["fetch", "--quiet", "--no-tags"]).arg(&head.path).arg(format!("+{branch}:{pull_ref}")),
            None => update.args(["update-ref", "-d", &pull_ref]),
        };
        git::output(&mut update).await.map(drop)
    }

    /// Reports a push to every open pull request of its branches.
    pub(super) fn synchronize_pull_requests(
        self: &Arc<Self>,
        repository: &Repository,
        pusher: &User,
        branches: &[&str],
    ) -> anyhow::Result<()> {
        let concerned =
            |pull: &&PullRequest| pull.is_open && pull.head == repository.id && branches.contains(&pull.head_branch.as_str());
        let pulls: Vec<PullRequest> = self.read(|state| state.pulls.iter().filter(concerned).cloned().collect());
        pulls.iter().try_for_each(|pull| self.tell_pull_request(pull, "synchronized", pusher, HeadUpdate::Follow))
    }

    pub(super) fn repository_by_id(&self, id: u64) -> Option<Repository> {
        self.read(|state| state.repositories.iter().find(|it| it.id == id).cloned())
    }

    /// A repository as the API and pull requests show it: a fork with its parent.
    pub(super) fn object_with_parent(&self, repository: &Repository) -> RepositoryObject {
        let parent = repository.parent.and_then(|id| self.repository_by_id(id));
        RepositoryObject { parent: parent.map(|parent| Box::new(parent.object(&self.base))), ..repository.object(&self.base) }
    }

    /// Changes a pull request, and returns it.
    pub(super) fn change_pull(
        &self,
        repository: &str,
        number: u64,
        change: impl FnOnce(&mut PullRequest),
    ) -> anyhow::Result<PullRequest> {
        let (owner, name) = super::owner_and_name(repository);
        let base = self.repository(owner, name).with_context(|| format!("there is no {repository}"))?.id;
        self.update(|state| {
            let pull = state.pulls.iter_mut().find(|pull| pull.base == base && pull.number == number);
            let pull = pull.with_context(|| format!("there is no pull request {number}"))?;
            change(pull);
            Ok(pull.clone())
        })
    }

    /// Merges the branch of a pull request into its target, as Gogs does, and returns the head.
    pub(super) async fn merge(&self, pull: &PullRequest) -> anyhow::Result<String> {
        let base = self.repository_by_id(pull.base).context("the target repository is missing")?;
        let run = async |arguments: &[&str]| {
            let mut command = git::command(&self.home);
            for person in ["AUTHOR", "COMMITTER"] {
                command.env(format!("GIT_{person}_NAME"), "Ada Lovelace").env(format!("GIT_{person}_EMAIL"), "ada@example.com");
            }
            git::line(command.arg("-C").arg(&base.path).args(arguments)).await
        };
        let (target, head_ref) = (format!("refs/heads/{}", pull.base_branch), format!("refs/pull/{}/head", pull.number));
        let (tip, head) = (run(&["rev-parse", &target]).await?, run(&["rev-parse", &head_ref]).await?);
        let tree = run(&["merge-tree", "--write-tree", &tip, &head]).await?;
        let message = format!("Merge branch '{}' of {}", pull.head_branch, pull.author.name);
        let merge = run(&["commit-tree", "-p", &tip, "-p", &head, "-m", &message, &tree]).await?;
        run(&["update-ref", &target, &merge]).await?;
        Ok(head)
    }

    /// Reports what a merge did to the target branch.
    pub(super) async fn tell_merge(
        self: &Arc<Self>,
        pull: &PullRequest,
        merger: &User,
        before: &git::Refs,
    ) -> anyhow::Result<()> {
        let base = self.repository_by_id(pull.base).context("the target repository is missing")?;
        let after = git::refs(&self.home, &base.path).await?;
        push_events::queue_push_events(self, &base, merger, before, &after).await
    }
}
