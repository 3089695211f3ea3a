//! A working tree of its own for a stage: on its way from the mirror into a workspace.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use beespace_core::git_ref::{self, BRANCHES};
use beespace_core::ids::Sha;
use tempfile::TempDir;
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::git::{Call, Reach};
use super::{Mirror, SourceError};

/// A large working tree on a slow disk.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// What to check out.
#[derive(Debug, Clone, Copy)]
pub struct CheckoutRequest<'a> {
    /// Pinned before.
    pub sha: &'a Sha,
    /// The branch that the working tree stands on; a short name.
    pub branch: &'a str,
    /// Commits of history; none for all of it.
    pub depth: Option<NonZeroU32>,
    /// What `origin` shall be. It has no credentials in it.
    pub origin: &'a Url,
}

/// A directory with a working tree and its `.git`. It is removed when this is dropped.
#[derive(Debug)]
pub struct Checkout {
    directory: TempDir,
}

impl Checkout {
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Mirror {
    /// Makes the working tree in a new directory under `scratch`. It has objects of its own: a hard link into the mirror would let
    /// a container write there.
    ///
    /// # Errors
    /// [`SourceError::TimedOut`], or trouble with the disk or the mirror.
    pub async fn checkout(&self, request: CheckoutRequest<'_>, scratch: &Path) -> Result<Checkout, SourceError> {
        let trouble = |error: std::io::Error| SourceError::trouble(format!("no scratch directory: {error}"));
        tokio::fs::create_dir_all(scratch).await.map_err(trouble)?;
        let directory = tempfile::Builder::new().prefix("checkout-").tempdir_in(scratch).map_err(trouble)?;
        let checkout = Checkout { directory };
        let full = format!("{BRANCHES}{}", request.branch);
        let branch = if git_ref::is_well_formed(&full) { request.branch } else { "build" };
        let tree = checkout.path();
        let initial_branch = format!("--initial-branch={branch}");
        self.git.run_checked(tree, Call::new(["init", "--quiet", "--template=", &initial_branch])).await?;
        self.copy_history(request, branch, tree).await?;
        // HEAD is the commit already, so none is named (and git 2.39 takes no `--end-of-options` here).
        self.git.run_checked(tree, Call::new(["reset", "--quiet", "--hard"]).timeout(CHECKOUT_TIMEOUT)).await?;
        let config = OpenOptions::new().append(true).open(tree.join(".git/config")).await;
        let written = async { config?.write_all(remote_section(request.origin).as_bytes()).await };
        written.await.map_err(|error| SourceError::trouble(format!("the checkout's remote cannot be written: {error}")))?;
        Ok(checkout)
    }

    async fn copy_history(&self, request: CheckoutRequest<'_>, branch: &str, tree: &Path) -> Result<(), SourceError> {
        let mirror = Url::from_file_path(&self.directory)
            .map_err(|()| SourceError::Trouble("the data directory is no absolute path".to_owned()))?;
        let sha = request.sha;
        let mut arguments: Vec<String> =
            ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--update-head-ok"]
                .map(str::to_owned)
                .into();
        arguments.extend(request.depth.map(|depth| format!("--depth={depth}")));
        arguments.extend(["--end-of-options".to_owned(), mirror.to_string()]);
        arguments.extend([format!("+{sha}:{BRANCHES}{branch}"), format!("+{sha}:refs/remotes/origin/{branch}")]);
        self.git.run_checked(tree, Call::new(arguments).reach(Reach::Disk).timeout(CHECKOUT_TIMEOUT)).await.map(drop)
    }
}

/// What `git remote add origin` writes. In quotes, because `#` begins a comment; an address has neither quotes nor backslashes of its own.
fn remote_section(origin: &Url) -> String {
    format!("[remote \"origin\"]\n\turl = \"{origin}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n")
}
