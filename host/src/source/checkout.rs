//! The working tree of a stage, on its way from the mirror into the workspace.

use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beespace_core::git_ref::{self, BRANCHES};
use beespace_core::ids::Sha;
use tempfile::TempDir;
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep};
use url::Url;

use super::git::Call;
use super::{Mirror, Scratch, SourceError};

/// Enough for a large working tree on a slow disk.
pub(super) const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How long a git that was killed may still write to its directory.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);
const REMOVAL_RETRY: Duration = Duration::from_millis(50);

/// Git compares only the times of content changes and the sizes. The workspace has copies of the files, with other inodes, owners
/// and times of status changes than the index names; without these settings every file would count as changed.
const STAT_SETTINGS: &str = "[core]\n\ttrustctime = false\n\tcheckstat = minimal\n";

/// A request for a checkout.
#[derive(Debug, Clone, Copy)]
pub struct CheckoutRequest<'a> {
    /// A commit that is pinned in the mirror.
    pub sha: &'a Sha,
    /// The short name of the branch that is checked out; none for a detached HEAD.
    pub branch: Option<&'a str>,
    /// The short name of a tag of the commit that the checkout has, so that `git describe` finds it.
    pub tag: Option<&'a str>,
    /// The short name of the default branch. Its commit is in the history, too, as `origin/{default_branch}`.
    pub default_branch: &'a str,
    /// The commit that the branch pointed to before. It is in the history, too, so it is pinned as well.
    pub before: Option<&'a Sha>,
    /// The depth of the history in commits; none for the full history with all tags.
    pub depth: Option<NonZeroU32>,
    /// The URL of the remote `origin`, without credentials.
    pub origin: &'a Url,
}

/// A directory with a working tree and its `.git`. Dropping it removes the directory on threads for blocking work, because a
/// large tree takes seconds.
#[derive(Debug)]
pub struct Checkout {
    /// Always present until the drop.
    directory: Option<TempDir>,
}

impl Checkout {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.as_ref().map_or(Path::new(""), TempDir::path)
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let Some(directory) = self.directory.take() else { return };
        // Without a runtime, nothing else runs on this thread.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(remove(directory.keep()));
    }
}

/// Removes a directory. After a cancel, git is killed while it writes, and may create files for a moment longer.
async fn remove(path: PathBuf) {
    let give_up = Instant::now() + REMOVAL_TIMEOUT;
    loop {
        match tokio::fs::remove_dir_all(&path).await {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && Instant::now() < give_up => sleep(REMOVAL_RETRY).await,
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(checkout = %path.display(), %error, "could not remove a checkout; the next start removes it");
                return;
            }
            _ => return,
        }
    }
}

impl Mirror {
    /// Creates the working tree in a new directory of `scratch`. Its objects are copies: a container could write into the
    /// mirror through a hard link.
    ///
    /// # Errors
    /// [`SourceError::OverLimit`] or [`SourceError::OutOfMemory`] for a commit that is too large, [`SourceError::NoRoom`] if
    /// the disk has no room for it, [`SourceError::DiskFull`] if the disk became full, [`SourceError::Killed`],
    /// [`SourceError::TimedOut`], or an internal failure.
    pub async fn checkout(&self, request: CheckoutRequest<'_>, scratch: &Scratch) -> Result<Checkout, SourceError> {
        let size = self.tree_size(request.sha).await?;
        size.check(request.sha, &self.limits)?;
        scratch.create().await?;
        scratch.check_room(&size)?;
        let internal = |error: std::io::Error| SourceError::internal(format!("cannot create a scratch directory: {error}"));
        let directory = tempfile::Builder::new().prefix("checkout-").tempdir_in(&scratch.directory).map_err(internal)?;
        let checkout = Checkout { directory: Some(directory) };
        let filled = tokio::select! {
            filled = self.fill(request, checkout.path()) => filled,
            full = scratch.until_full() => Err(full),
        };
        match filled {
            Ok(()) => Ok(checkout),
            Err(error) if error.is_refusal() => Err(error),
            // Git does not always report why it could not write. The checkout still occupies its space now.
            Err(error) => Err(scratch.is_full().unwrap_or(error)),
        }
    }

    /// Fills the empty directory `tree`.
    async fn fill(&self, request: CheckoutRequest<'_>, tree: &Path) -> Result<(), SourceError> {
        let branch = request.branch.filter(|name| git_ref::is_well_formed(&format!("{BRANCHES}{name}")));
        let initial_branch = format!("--initial-branch={}", branch.unwrap_or("build"));
        self.git.run_checked(tree, Call::new(["init", "--quiet", "--template=", &initial_branch])).await?;
        self.copy_history(CheckoutRequest { branch, ..request }, tree).await?;
        if branch.is_none() {
            let detach = Call::new(["update-ref", "--no-deref", "HEAD", request.sha.as_str()]);
            self.git.run_checked(tree, detach).await?;
        }
        // HEAD already is the commit, so it is not named (and git 2.39 does not accept `--end-of-options` here).
        self.git.run_checked(tree, Call::new(["reset", "--quiet", "--hard"]).timeout(CHECKOUT_TIMEOUT)).await?;
        let config = OpenOptions::new().append(true).open(tree.join(".git/config")).await;
        let sections = format!("{STAT_SETTINGS}{}", remote_section(request.origin));
        let written = async { config?.write_all(sections.as_bytes()).await };
        written.await.map_err(|error| SourceError::internal(format!("cannot write the checkout's configuration: {error}")))
    }
}

/// The section that `git remote add origin` would write. The URL is quoted, because `#` begins a comment; a URL contains
/// neither quotes nor backslashes.
fn remote_section(origin: &Url) -> String {
    format!("[remote \"origin\"]\n\turl = \"{origin}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_removed_by_a_thread_for_blocking_work() {
        let scratch = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_time().build().unwrap();
        runtime.block_on(async {
            let (release, wait) = std::sync::mpsc::channel::<()>();
            let blocked = tokio::task::spawn_blocking(move || wait.recv());
            let directory = tempfile::tempdir_in(scratch.path()).unwrap();
            let path = directory.path().to_owned();
            std::fs::create_dir_all(path.join("a/b")).unwrap();
            drop(Checkout { directory: Some(directory) });
            tokio::task::yield_now().await;
            assert!(path.exists(), "the only thread for blocking work is busy");
            release.send(()).unwrap();
            blocked.await.unwrap().unwrap();
            while path.exists() {
                tokio::task::yield_now().await;
            }
        });
    }
}
