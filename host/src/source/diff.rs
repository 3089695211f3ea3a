//! What a push changed. Gogs' own lists are cut: paths at spaces, commits at five, and after a forced push they are other commits. So git tells.

use beespace_core::build::Base;
use beespace_core::event::{Claim, Commit};
use beespace_core::git_ref::BRANCHES;
use beespace_core::ids::Sha;
use beespace_core::pipeline::eval_when::ChangedPaths;

use super::git::Call;
use super::{Mirror, SourceError};

/// Names of about a million changed files.
const NAMES_CAP: u64 = 64 * 1024 * 1024;

/// Fifty commits with messages nobody would write.
const LOG_CAP: u64 = 64 * 1024 * 1024;

/// A push, as far as the question of its changes goes.
#[derive(Debug, Clone, Copy)]
pub struct PushRange<'a> {
    /// Where the branch stood; none where it is new.
    pub before: Option<&'a Sha>,
    /// Where the push before this one left the branch, if not there.
    pub left_at: Option<&'a Sha>,
    pub after: &'a Sha,
    /// Short names.
    pub branch: &'a str,
    pub default_branch: &'a str,
}

impl Mirror {
    /// What the change of a push is told against: where the branch stood. For a new branch, and where `before` is lost, where it left the default
    /// branch. The commit stays in the mirror from now on.
    ///
    /// # Errors
    /// [`SourceError`] where the mirror cannot be read.
    pub async fn base(&self, push: PushRange<'_>) -> Result<Base, SourceError> {
        let old_tip = self.old_tip(push).await?;
        let base = match old_tip.or(push.before) {
            Some(before) if self.has_commit(before).await? => Base::Commit(before.clone()),
            Some(before) => self.fork_point(push, &format!("{} is not there any more", before.short())).await?,
            None => self.fork_point(push, "the branch is new").await?,
        };
        if let Base::Commit(base) = &base {
            self.add_pin_ref(base).await?;
        }
        Ok(base)
    }

    /// The paths that differ between two commits.
    ///
    /// # Errors
    /// [`SourceError`] where the mirror cannot be read.
    pub async fn changed_paths(&self, base: &Sha, after: &Sha) -> Result<ChangedPaths, SourceError> {
        let options = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", "--end-of-options"];
        let arguments = options.into_iter().chain([base.as_str(), after.as_str()]);
        match self.git.run_checked(&self.directory, Call::new(arguments).cap(NAMES_CAP)).await {
            Ok(names) => {
                Ok(ChangedPaths::Known(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(lossy).collect()))
            }
            Err(SourceError::TooLarge { .. }) => Ok(ChangedPaths::Unknown("too many paths changed".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// The commits that `after` has and `base` has not (without one: all), newest first, `most` of them, and how many there are.
    ///
    /// # Errors
    /// [`SourceError`] where the mirror cannot be read.
    pub async fn commits(&self, base: Option<&Sha>, after: &Sha, most: usize) -> Result<(Vec<Commit>, u64), SourceError> {
        let range = base.map_or_else(|| after.to_string(), |base| format!("{base}..{after}"));
        let most_text = format!("--max-count={most}");
        let format = "--format=tformat:%H%x00%an%x00%ae%x00%B%x00";
        let log = ["log", "--no-notes", "--encoding=UTF-8", "-z", &most_text, format, "--end-of-options", &range];
        let told = self.git.run_checked(&self.directory, Call::new(log).cap(LOG_CAP)).await?;
        let commits = commits_of(&told);
        if commits.len() < most {
            let count = commits.len() as u64;
            return Ok((commits, count));
        }
        let count = self.git.run_checked(&self.directory, Call::new(["rev-list", "--count", "--end-of-options", &range])).await?;
        let count = String::from_utf8_lossy(&count).trim().parse();
        Ok((commits, count.map_err(|_| SourceError::Trouble("git does not say how many commits there are".to_owned()))?))
    }

    /// Where the branch stood before a merge: what Gogs tells as `before` of one is the commit that both sides share. It is told by where the push
    /// before left the branch, which lies between the two.
    async fn old_tip<'a>(&self, push: PushRange<'a>) -> Result<Option<&'a Sha>, SourceError> {
        let (Some(before), Some(left_at)) = (push.before, push.left_at) else { return Ok(None) };
        let lies_between = self.is_ancestor(before, left_at).await? && self.is_ancestor(left_at, push.after).await?;
        Ok(Some(left_at).filter(|_| lies_between))
    }

    /// Whether the one is an ancestor of the other; false where either is not there.
    async fn is_ancestor(&self, one: &Sha, other: &Sha) -> Result<bool, SourceError> {
        let call = Call::new(["merge-base", "--is-ancestor", "--end-of-options", one.as_str(), other.as_str()]);
        Ok(self.git.run(&self.directory, call).await?.code == Some(0))
    }

    /// The commit where the branch left the default branch, or why there is none.
    async fn fork_point(&self, push: PushRange<'_>, why: &str) -> Result<Base, SourceError> {
        if push.branch == push.default_branch {
            return Ok(Base::Unknown(format!("{why}, and it is the default branch")));
        }
        let Some(default) = self.tip(&format!("{BRANCHES}{}", push.default_branch)).await? else {
            return Ok(Base::Unknown(format!("{why}, and there is no default branch to compare with")));
        };
        let call = Call::new(["merge-base", "--end-of-options", default.as_str(), push.after.as_str()]);
        let ran = self.git.run(&self.directory, call).await?;
        Ok(match Sha::new(String::from_utf8_lossy(&ran.stdout).trim()) {
            Ok(base) => Base::Commit(base),
            Err(_) => Base::Unknown(format!("{why}, and it has no commit in common with the default branch")),
        })
    }
}

/// Reads what git was asked to print: four texts a commit, each with a NUL behind it, and one more NUL behind the commit.
fn commits_of(told: &[u8]) -> Vec<Commit> {
    let mut texts = told.split(|byte| *byte == 0).map(lossy);
    let mut next = || texts.next();
    let mut commits = Vec::new();
    while let (Some(sha), Some(name), Some(email), Some(message)) = (next(), next(), next(), next()) {
        let Ok(sha) = Sha::new(&sha) else { break };
        commits.push(Commit { sha, message: message.trim_end_matches('\n').to_owned(), author: Claim { name, email } });
        next();
    }
    commits
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
