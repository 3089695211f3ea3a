//! A clone in which tests commit and from which they push over HTTP.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::auth::INTERNAL_HEADER;
use super::git;

/// The time of the first commit. Each further commit is a second later, so that commit ids are reproducible.
const FIRST_COMMIT_AT: u64 = 1_767_225_600;

/// A clone of one repository with the credentials of the administrator. Injected faults do not affect its pushes.
#[derive(Debug)]
pub struct WorkingCopy {
    path: PathBuf,
    home: PathBuf,
    commits: u64,
}

impl WorkingCopy {
    /// Creates an empty repository at `path` whose remote `origin` is `url`, which contains the credentials.
    pub(super) async fn open(path: PathBuf, home: PathBuf, url: &str, hand: &str) -> anyhow::Result<Self> {
        git::output(git::command(&home).args(["init", "--quiet", "--template=", "--initial-branch", "nothing-yet"]).arg(&path))
            .await?;
        let copy = Self { path, home, commits: 0 };
        copy.git(&["remote", "add", "origin", url]).await?;
        copy.git(&["config", "http.extraHeader", &format!("{INTERNAL_HEADER}: {hand}")]).await?;
        Ok(copy)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs git in the directory and returns its output without the last newline.
    ///
    /// # Errors
    /// git fails; the error contains its output.
    pub async fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        git::line(self.command().args(arguments)).await
    }

    fn command(&self) -> Command {
        let mut command = git::command(&self.home);
        let date = format!("{} +0000", FIRST_COMMIT_AT + self.commits);
        command.current_dir(&self.path);
        for (variable, value) in [("NAME", "Ada Lovelace"), ("EMAIL", "ada@example.com"), ("DATE", &date)] {
            command.env(format!("GIT_AUTHOR_{variable}"), value).env(format!("GIT_COMMITTER_{variable}"), value);
        }
        command
    }

    /// Checks out `branch` as it is on the remote. A new branch starts at the remote's default branch, or empty.
    ///
    /// # Errors
    /// git fails.
    pub async fn checkout(&mut self, branch: &str) -> anyhow::Result<()> {
        self.git(&["fetch", "--quiet", "--prune", "origin", "+refs/heads/*:refs/remotes/origin/*"]).await?;
        let remote = format!("refs/remotes/origin/{branch}");
        if self.git(&["rev-parse", "--verify", "--quiet", &remote]).await.is_ok() {
            self.git(&["checkout", "--quiet", "--force", "--no-track", "-B", branch, &remote]).await?;
        } else if self.git(&["remote", "set-head", "origin", "--auto"]).await.is_ok() {
            self.git(&["checkout", "--quiet", "--force", "--no-track", "-B", branch, "refs/remotes/origin/HEAD"]).await?;
        } else {
            self.git(&["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]).await?;
        }
        Ok(())
    }

    /// Writes files and creates their folders.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, files: &[(&str, &str)]) -> anyhow::Result<()> {
        for (name, content) in files {
            let path = self.path.join(name);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&path, content)?;
        }
        Ok(())
    }

    /// Pushes refspecs with force.
    ///
    /// # Errors
    /// git fails.
    pub async fn push(&self, refspecs: &[&str]) -> anyhow::Result<()> {
        git::output(self.command().args(["push", "--quiet", "--force", "origin"]).args(refspecs)).await.map(drop)
    }

    /// Writes the files and commits all changes, even if there are none. Returns the id of the commit.
    ///
    /// # Errors
    /// A file cannot be written, or git fails.
    pub async fn commit(&mut self, files: &[(&str, &str)], message: &str) -> anyhow::Result<String> {
        self.write(files)?;
        self.git(&["add", "--all"]).await?;
        self.git(&["commit", "--quiet", "--allow-empty", "--no-verify", "--message", message]).await?;
        self.commits += 1;
        self.git(&["rev-parse", "HEAD"]).await
    }
}
