//! The working tree of a stage, on its way from the mirror into the workspace.

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

/// Enough for a large working tree on a slow disk.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// A request for a checkout.
#[derive(Debug, Clone, Copy)]
pub struct CheckoutRequest<'a> {
    /// A commit that is pinned in the mirror.
    pub sha: &'a Sha,
    /// The branch that is checked out; a short name.
    pub branch: &'a str,
    /// The depth of the history in commits; none for the full history.
    pub depth: Option<NonZeroU32>,
    /// The URL of the remote `origin`, without credentials.
    pub origin: &'a Url,
}

/// A directory with a working tree and its `.git`. Dropping it removes the directory.
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
    /// Creates the working tree in a new directory under `scratch`. Its objects are copies: a container could write into
    /// the mirror through a hard link.
    ///
    /// # Errors
    /// [`SourceError::TimedOut`], [`SourceError::DiskFull`], or an internal failure.
    pub async fn checkout(&self, request: CheckoutRequest<'_>, scratch: &Path) -> Result<Checkout, SourceError> {
        let internal = |error: std::io::Error| SourceError::internal(format!("cannot create a scratch directory: {error}"));
        tokio::fs::create_dir_all(scratch).await.map_err(internal)?;
        let directory = tempfile::Builder::new().prefix("checkout-").tempdir_in(scratch).map_err(internal)?;
        let checkout = Checkout { directory };
        let full = format!("{BRANCHES}{}", request.branch);
        let branch = if git_ref::is_well_formed(&full) { request.branch } else { "build" };
        let tree = checkout.path();
        let initial_branch = format!("--initial-branch={branch}");
        self.git.run_checked(tree, Call::new(["init", "--quiet", "--template=", &initial_branch])).await?;
        self.copy_history(request, branch, tree).await?;
        // HEAD already is the commit, so it is not named (and git 2.39 does not accept `--end-of-options` here).
        self.git.run_checked(tree, Call::new(["reset", "--quiet", "--hard"]).timeout(CHECKOUT_TIMEOUT)).await?;
        let config = OpenOptions::new().append(true).open(tree.join(".git/config")).await;
        let written = async { config?.write_all(remote_section(request.origin).as_bytes()).await };
        written.await.map_err(|error| SourceError::internal(format!("cannot write the checkout's remote: {error}")))?;
        Ok(checkout)
    }

    async fn copy_history(&self, request: CheckoutRequest<'_>, branch: &str, tree: &Path) -> Result<(), SourceError> {
        let mirror = Url::from_file_path(&self.directory)
            .map_err(|()| SourceError::Internal("the data directory is not an absolute path".to_owned()))?;
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

/// The section that `git remote add origin` would write. The URL is quoted, because `#` begins a comment; a URL contains
/// neither quotes nor backslashes.
fn remote_section(origin: &Url) -> String {
    format!("[remote \"origin\"]\n\turl = \"{origin}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n")
}
