//! What people do with forks and pull requests.

use anyhow::Context as _;

use super::pull_request::{HeadUpdate, LabelObject, PullRequest};
use super::repository::RepositoryObject;
use super::user::User;
use super::{FakeGogs, git, owner_and_name};

impl FakeGogs {
    /// Forks a repository for a user, with all its branches. The fork has the same name.
    ///
    /// # Errors
    /// The repository or the user is unknown, or the fork exists.
    pub async fn fork(&self, repository: &str, user: &str) -> anyhow::Result<RepositoryObject> {
        let (owner, name) = owner_and_name(repository);
        let parent = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?;
        let made = self.instance.create_repository(user, name, parent.private, "").await?;
        let fork = self.instance.repository_by_id(made.id).context("it was just made")?;
        let mut copy = git::command(&self.instance.home);
        copy.arg("-C").arg(&fork.path).args(["fetch", "--quiet"]).arg(&parent.path);
        git::output(copy.args(["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])).await?;
        let mut head = git::command(&self.instance.home);
        head.arg("-C").arg(&fork.path).args(["symbolic-ref", "HEAD"]);
        git::output(head.arg(format!("refs/heads/{}", parent.default_branch))).await?;
        self.instance.update(|state| {
            let fork = state.repositories.iter_mut().find(|it| it.id == made.id).context("it was just made")?;
            fork.parent = Some(parent.id);
            fork.empty = parent.empty;
            fork.default_branch.clone_from(&parent.default_branch);
            Ok(fork.object(&self.instance.base))
        })
    }

    /// Opens a pull request as `user` and returns its number. `head` is a branch of the repository, or `eve:branch` of the fork
    /// of eve.
    ///
    /// # Errors
    /// A repository or the user is unknown.
    pub fn open_pull_request(&self, repository: &str, user: &str, head: &str, base: &str) -> anyhow::Result<u64> {
        let (owner, name) = owner_and_name(repository);
        let target = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?;
        let (head_owner, head_branch) = head.split_once(':').unwrap_or((owner, head));
        let source = self.instance.repository(head_owner, name).with_context(|| format!("{head_owner} has no {name}"))?;
        let author = self.user(user)?;
        let pull = self.instance.update(|state| {
            let number = state.pulls.iter().filter(|pull| pull.base == target.id).map(|pull| pull.number).max();
            let pull = PullRequest {
                id: state.next_id(),
                base: target.id,
                number: number.unwrap_or_default() + 1,
                author: author.clone(),
                title: format!("Merge {head_branch}"),
                labels: Vec::new(),
                head: source.id,
                head_branch: head_branch.to_owned(),
                base_branch: base.to_owned(),
                is_open: true,
                merged: None,
            };
            state.pulls.push(pull.clone());
            pull
        });
        self.instance.tell_pull_request(&pull, "opened", &author, HeadUpdate::Follow)?;
        Ok(pull.number)
    }

    /// Closes a pull request without a merge.
    ///
    /// # Errors
    /// It is unknown.
    pub fn close_pull_request(&self, repository: &str, number: u64) -> anyhow::Result<()> {
        let pull = self.instance.change_pull(repository, number, |pull| pull.is_open = false)?;
        self.instance.tell_pull_request(&pull, "closed", &pull.author, HeadUpdate::Keep)
    }

    /// Merges a pull request as `ada`: Gogs reports it as closed, and then a push.
    ///
    /// # Errors
    /// It is unknown, its ref is not there, or it has conflicts.
    pub async fn merge_pull_request(&self, repository: &str, number: u64) -> anyhow::Result<()> {
        let ada = self.user(super::ADMIN)?;
        let pull = self.instance.change_pull(repository, number, |_| ())?;
        let base = self.instance.repository_by_id(pull.base).context("the target repository is missing")?;
        let before = git::refs(&self.instance.home, &base.path).await?;
        let head = self.instance.merge(&pull).await?;
        let merged = |pull: &mut PullRequest| {
            pull.is_open = false;
            pull.merged = Some(head);
        };
        let pull = self.instance.change_pull(repository, number, merged)?;
        self.instance.tell_pull_request(&pull, "closed", &ada, HeadUpdate::Keep)?;
        self.instance.tell_merge(&pull, &ada, &before).await
    }

    /// Opens a closed pull request again.
    ///
    /// # Errors
    /// It is unknown.
    pub fn reopen_pull_request(&self, repository: &str, number: u64) -> anyhow::Result<()> {
        let pull = self.instance.change_pull(repository, number, |pull| pull.is_open = true)?;
        self.instance.tell_pull_request(&pull, "reopened", &pull.author, HeadUpdate::Follow)
    }

    /// Changes the title of a pull request.
    ///
    /// # Errors
    /// It is unknown.
    pub fn edit_pull_request(&self, repository: &str, number: u64, title: &str) -> anyhow::Result<()> {
        let pull = self.instance.change_pull(repository, number, |pull| title.clone_into(&mut pull.title))?;
        self.instance.tell_pull_request(&pull, "edited", &pull.author, HeadUpdate::Keep)
    }

    /// Replaces the labels of a pull request. `tells`: Gogs reports it; it does not if the API removed a label.
    ///
    /// # Errors
    /// It is unknown.
    pub fn label_pull_request(&self, repository: &str, number: u64, labels: &[&str], tells: bool) -> anyhow::Result<()> {
        let label = |(id, name): (u64, &&str)| LabelObject { id, name: (*name).to_owned(), color: "ee0701", url: "" };
        let labels = (1..).zip(labels).map(label).collect();
        let pull = self.instance.change_pull(repository, number, |pull| pull.labels = labels)?;
        if tells { self.instance.tell_pull_request(&pull, "label_updated", &pull.author, HeadUpdate::Keep) } else { Ok(()) }
    }

    fn user(&self, name: &str) -> anyhow::Result<User> {
        let found = self.instance.read(|state| state.users.iter().find(|user| user.name == name).cloned());
        found.with_context(|| format!("there is no {name}"))
    }
}
