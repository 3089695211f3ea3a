//! Commits as Gogs reports them, with all its inaccuracies.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::git;
use super::user::User;

/// An object id that stands for "none": before a ref's creation, after its deletion.
pub(super) const ZERO: &str = "0000000000000000000000000000000000000000";

/// Go's zero time, which Gogs shows if it did not set a time.
pub(super) const YEAR_ONE: &str = "0001-01-01T00:00:00Z";

/// A commit as payloads and branches show it (`PayloadCommit`).
#[derive(Debug, Clone, Serialize)]
pub(super) struct CommitObject {
    pub(super) id: String,
    pub(super) message: String,
    pub(super) url: String,
    pub(super) author: Signature,
    pub(super) committer: Signature,
    pub(super) added: Option<Vec<String>>,
    pub(super) removed: Option<Vec<String>>,
    pub(super) modified: Option<Vec<String>>,
    pub(super) timestamp: String,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Signature {
    pub(super) name: String,
    pub(super) email: String,
    /// Empty if no user has this e-mail address.
    pub(super) username: String,
}

/// Reads commits of one repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) home: &'a Path,
    pub(super) repository: &'a Path,
    /// URL of the repository's page; the pages of commits are below it.
    pub(super) html_url: &'a str,
    pub(super) users: &'a [User],
}

/// A commit with its author date. The API and the webhooks show different dates.
#[derive(Debug)]
pub(super) struct Dated {
    pub(super) commit: CommitObject,
    pub(super) authored: String,
}

impl Reader<'_> {
    /// At most `limit` commits of `range`, newest first, without the files they touch.
    pub(super) async fn log(&self, range: &str, limit: usize) -> anyhow::Result<Vec<Dated>> {
        let mut log = git::command(self.home);
        log.arg("-C").arg(self.repository);
        log.args(["log", "-z", "--format=%H%x01%an%x01%ae%x01%cn%x01%ce%x01%aI%x01%cI%x01%B"]);
        log.arg(format!("--max-count={limit}")).args(["--end-of-options", range, "--"]);
        let records = git::output(&mut log).await?;
        records.split(|byte| *byte == 0).filter(|record| !record.is_empty()).map(|record| self.read(record)).collect()
    }

    /// As [`Reader::log`], with the files.
    pub(super) async fn log_with_files(&self, range: &str, limit: usize) -> anyhow::Result<Vec<CommitObject>> {
        let mut commits = Vec::new();
        for Dated { mut commit, .. } in self.log(range, limit).await? {
            self.add_files(&mut commit).await?;
            commits.push(commit);
        }
        Ok(commits)
    }

    fn read(&self, record: &[u8]) -> anyhow::Result<Dated> {
        let mut fields = record.splitn(8, |byte| *byte == 1).map(text);
        let mut next = || fields.next().context("git log printed fewer fields than asked for");
        let id = next()?;
        let author = self.signature(next()?, next()?);
        let committer = self.signature(next()?, next()?);
        let authored = go_time(&next()?);
        let timestamp = go_time(&next()?);
        let url = format!("{}/commit/{id}", self.html_url);
        let message = next()?;
        let commit = CommitObject { id, message, url, author, committer, added: None, removed: None, modified: None, timestamp };
        Ok(Dated { commit, authored })
    }

    fn signature(&self, name: String, email: String) -> Signature {
        let user = self.users.iter().find(|user| user.email == email);
        Signature { username: user.map(|user| user.name.clone()).unwrap_or_default(), name, email }
    }

    /// Gogs splits `git show --name-status` at white space: a name ends at its first space. Renames, copies and what a merge
    /// lists (`MM`) are dropped, and an empty list is null.
    async fn add_files(&self, commit: &mut CommitObject) -> anyhow::Result<()> {
        let mut show = git::command(self.home);
        show.arg("-C").arg(self.repository);
        show.args(["-c", "core.quotepath=false", "show", "--name-status", "--format=", &commit.id, "--"]);
        let listing = git::output(&mut show).await?;
        for line in text(&listing).lines() {
            let mut fields = line.split_whitespace();
            let (Some(status), Some(name)) = (fields.next(), fields.next()) else { continue };
            let list = match status {
                "A" => &mut commit.added,
                "D" => &mut commit.removed,
                "M" => &mut commit.modified,
                _ => continue,
            };
            list.get_or_insert_default().push(name.to_owned());
        }
        Ok(())
    }
}

/// Gogs interprets bytes that are not UTF-8 as Latin-1.
fn text(bytes: &[u8]) -> String {
    str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned)
}

/// Go writes UTC as `Z`; git writes `+00:00`.
fn go_time(git: &str) -> String {
    git.strip_suffix("+00:00").map_or_else(|| git.to_owned(), |time| format!("{time}Z"))
}
