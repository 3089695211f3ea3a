//! The changes of a push, as git computes them. Gogs' own lists are wrong: paths end at spaces, a list has at most five commits,
//! and after a forced push it has other commits.

use beespace_core::build::Base;
use beespace_core::event::{Claim, Commit};
use beespace_core::git_ref::BRANCHES;
use beespace_core::ids::Sha;
use beespace_core::pipeline::eval_when::ChangedPaths;

use super::git::Call;
use super::{Mirror, SourceError};

/// Enough for the names of about a million changed files.
const NAMES_CAP: u64 = 64 * 1024 * 1024;

/// Enough for fifty commits with extremely long messages.
const LOG_CAP: u64 = 64 * 1024 * 1024;

/// The range of a push, from which its changes are computed.
#[derive(Debug, Clone, Copy)]
pub struct PushRange<'a> {
    /// The tip of the branch before the push; none for a new branch.
    pub before: Option<&'a Sha>,
    /// The tip that the previous push left, if it differs from `before`.
    pub last_known_tip: Option<&'a Sha>,
    pub after: &'a Sha,
    /// Short names.
    pub branch: &'a str,
    pub default_branch: &'a str,
}

impl Mirror {
    /// The commit that a push is compared with: the old tip of the branch. For a new branch, and when `before` is lost, the
    /// commit where it left the default branch.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn base(&self, push: PushRange<'_>) -> Result<Base, SourceError> {
        let old_tip = self.old_tip(push).await?;
        match old_tip.or(push.before) {
            Some(before) if self.has_commit(before).await? => Ok(Base::Commit(before.clone())),
            Some(before) => self.fork_point(push, &format!("{} no longer exists", before.short())).await,
            None => self.fork_point(push, "the branch is new").await,
        }
    }

    /// The commit that a pull request is compared with: the merge base with its target, as a review shows it.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn base_of_pull_request(&self, target: &str, head: &Sha) -> Result<Base, SourceError> {
        let Some(tip) = self.tip(&format!("{BRANCHES}{target}")).await? else {
            return Ok(Base::Unknown(format!("the target branch {target:?} does not exist")));
        };
        Ok(match self.merge_base(&tip, head).await? {
            Some(base) if base == *head => Base::Unknown(format!("{target:?} contains the pull request already")),
            Some(base) => Base::Commit(base),
            None => Base::Unknown(format!("the pull request has no commit in common with {target:?}")),
        })
    }

    /// The commit where two histories part.
    async fn merge_base(&self, one: &Sha, other: &Sha) -> Result<Option<Sha>, SourceError> {
        let call = Call::new(["merge-base", "--end-of-options", one.as_str(), other.as_str()]);
        let ran = self.git.run(&self.directory, call).await?;
        Ok(Sha::new(String::from_utf8_lossy(&ran.stdout).trim()).ok())
    }

    /// The paths that differ between two commits. They are unknown if a commit has more files than its limit, because git lists
    /// all differences in memory.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn changed_paths(&self, base: &Sha, after: &Sha) -> Result<ChangedPaths, SourceError> {
        if let Err(error) = tokio::try_join!(self.tree_size(base), self.tree_size(after)) {
            return if error.is_refusal() { Ok(ChangedPaths::Unknown(error.to_string())) } else { Err(error) };
        }
        let options = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", "--end-of-options"];
        let arguments = options.into_iter().chain([base.as_str(), after.as_str()]);
        match self.git.run_checked(&self.directory, Call::new(arguments).cap(NAMES_CAP)).await {
            Ok(names) => {
                Ok(ChangedPaths::Known(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(lossy).collect()))
            }
            Err(SourceError::TooLarge { .. }) => Ok(ChangedPaths::Unknown("too many paths changed".to_owned())),
            Err(error) if error.is_refusal() => Ok(ChangedPaths::Unknown(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// The commits in `after` that are not in `base` (without a base: all), newest first, at most `most`, and their total number.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn commits(&self, base: Option<&Sha>, after: &Sha, most: usize) -> Result<(Vec<Commit>, u64), SourceError> {
        let range = base.map_or_else(|| after.to_string(), |base| format!("{base}..{after}"));
        let most_text = format!("--max-count={most}");
        let format = "--format=tformat:%H%x00%P%x00%an%x00%ae%x00%B%x00";
        let log = ["log", "--no-notes", "--encoding=UTF-8", "-z", &most_text, format, "--end-of-options", &range];
        let output = self.git.run_checked(&self.directory, Call::new(log).cap(LOG_CAP)).await?;
        let commits = commits_of(&output);
        if commits.len() < most {
            let count = commits.len() as u64;
            return Ok((commits, count));
        }
        let count = self.git.run_checked(&self.directory, Call::new(["rev-list", "--count", "--end-of-options", &range])).await?;
        let count = String::from_utf8_lossy(&count).trim().parse();
        Ok((commits, count.map_err(|_| SourceError::Internal("git did not print the number of commits".to_owned()))?))
    }

    /// The tip of the branch before a merge. Gogs reports the commit that both sides share as the `before` of a merge; the
    /// tip that the previous push left is recognised because it lies between the two.
    async fn old_tip<'a>(&self, push: PushRange<'a>) -> Result<Option<&'a Sha>, SourceError> {
        let (Some(before), Some(last_known_tip)) = (push.before, push.last_known_tip) else { return Ok(None) };
        let lies_between =
            self.is_ancestor(before, last_known_tip).await? && self.is_ancestor(last_known_tip, push.after).await?;
        Ok(Some(last_known_tip).filter(|_| lies_between))
    }

    /// Whether `one` is an ancestor of `other`; false if either does not exist.
    async fn is_ancestor(&self, one: &Sha, other: &Sha) -> Result<bool, SourceError> {
        let call = Call::new(["merge-base", "--is-ancestor", "--end-of-options", one.as_str(), other.as_str()]);
        Ok(self.git.run(&self.directory, call).await?.code == Some(0))
    }

    /// The commit where the branch left the default branch, or why it has none.
    async fn fork_point(&self, push: PushRange<'_>, why: &str) -> Result<Base, SourceError> {
        if push.branch == push.default_branch {
            return Ok(Base::Unknown(format!("{why}, and it is the default branch")));
        }
        if let Some(failure) = self.last_fetch_failure() {
            // The branches here are those of an earlier fetch, so the commit may have left the default branch later.
            return Ok(Base::Unknown(format!("{why}, and the default branch could not be fetched: {failure}")));
        }
        let Some(default) = self.tip(&format!("{BRANCHES}{}", push.default_branch)).await? else {
            return Ok(Base::Unknown(format!("{why}, and the repository has no default branch to compare with")));
        };
        Ok(match self.merge_base(&default, push.after).await? {
            Some(base) => Base::Commit(base),
            None => Base::Unknown(format!("{why}, and it has no commit in common with the default branch")),
        })
    }
}

/// Parses git's output: five texts per commit, each terminated by NUL, and one more NUL after the commit.
fn commits_of(output: &[u8]) -> Vec<Commit> {
    let mut texts = output.split(|byte| *byte == 0).map(lossy);
    let mut next = || texts.next();
    let mut commits = Vec::new();
    while let (Some(sha), Some(parents), Some(name), Some(email), Some(message)) = (next(), next(), next(), next(), next()) {
        let Ok(sha) = Sha::new(&sha) else { break };
        let (message, parents) = (message.trim_end_matches('\n').to_owned(), Some(parents.split_whitespace().count()));
        commits.push(Commit { sha, message, author: Claim::shortened(&name, &email), parents });
        next();
    }
    commits
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
