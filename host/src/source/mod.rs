//! One bare mirror per repository, and everything that is known about a commit.
//!
//! | file | does |
//! |---|---|
//! | [`git`] | runs git: the limits of a call, and its timeout |
//! | [`limits`] | the limits of what a commit may cost |
//! | [`tree_size`] | counts the files and bytes of a commit before git works on them |
//! | [`fetch`] | fetches from the forge |
//! | [`pinned_commits`] | finds the commit of a build, and keeps it as long as the build |
//! | [`mirror_dir`] | the folder of a mirror: locks that are left over, garbage collection, removal |
//! | [`objects`] | reads files of a commit from its objects: without a checkout, without following symbolic links |
//! | [`diff`] | the changes of a push: its base, changed paths and commits |
//! | [`checkout`] | a working tree for a stage |
//! | [`checkout_dir`] | the directory of checkouts, and the space that stays free on its disk |
//! | [`merge`] | merges a pull request into its target |
//! | [`history`] | the history of a checkout: its commits, refs and tags |
//! | [`submodules_and_lfs`] | the parts of a commit that a checkout leaves out |
//! | [`commit`] | resolves the commit of a build |
//! | [`pipeline_file`] | reads the pipeline files of a commit |
//! | [`change_set`] | the change of a build, for conditions and plugins |
//! | [`plugin_files`] | the files of a commit, for step types |
//! | [`error`] | errors, and whether a retry helps |
//!
//! Names and contents of a repository are untrusted: a commit is named by its object name, a ref by its full name, both after
//! `--end-of-options`. Nothing in a repository is opened by path, executed, or read as configuration.

mod change_set;
mod checkout;
mod checkout_dir;
mod commit;
mod diff;
mod error;
mod fetch;
mod git;
mod history;
mod limits;
mod merge;
mod mirror_dir;
mod objects;
mod pinned_commits;
mod pipeline_file;
mod plugin_files;
mod submodules_and_lfs;
mod tree_size;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use beespace_core::ids::RepositoryId;
use tokio::sync::{Notify, OwnedRwLockReadGuard, RwLock};

pub use change_set::ChangeSet;
pub use checkout::{Checkout, CheckoutRequest};
pub use checkout_dir::Scratch;
pub use commit::{FetchAttempt, FetchedCommit, Resolution, resolve};
pub use diff::PushRange;
pub use error::SourceError;
pub use fetch::{FetchLimits, ForgeCredentials};
pub use git::PROGRAM as GIT;
pub use limits::SourceLimits;
pub use merge::MergeOutcome;
pub use mirror_dir::Collection;
pub use objects::{EntryKind, FileContent, Tree, TreeEntry};
pub use pinned_commits::Lookup;
pub use pipeline_file::{PipelineSource, missing_file_help, read_pipeline_files, read_pipeline_files_at};
pub use plugin_files::CommitFiles;
pub use submodules_and_lfs::LeftOut;
pub use tree_size::TreeSize;

use fetch::FetchHistory;
use git::Git;
use tree_size::SizeCache;

/// All mirrors of an instance. Clones share their state.
#[derive(Debug, Clone)]
pub struct Mirrors {
    root: PathBuf,
    git: Git,
    limits: SourceLimits,
    sizes: SizeCache,
    fetch_limits: FetchLimits,
    states: Arc<Mutex<HashMap<RepositoryId, Arc<MirrorState>>>>,
}

impl Mirrors {
    /// `root`: the folder of the mirrors, `mirrors/` in the data directory. `home`: a folder of our own as git's home
    /// directory, so that no personal configuration applies. `ca_file`: certificates to trust in addition to those of the
    /// system.
    #[must_use]
    pub fn new(root: PathBuf, home: PathBuf, ca_file: Option<PathBuf>) -> Self {
        let limits = SourceLimits::default();
        Self {
            root: absolute(root),
            git: Git::new(home, ca_file, limits.git_memory),
            limits,
            sizes: SizeCache::default(),
            fetch_limits: FetchLimits::default(),
            states: Arc::default(),
        }
    }

    /// Sets the limits of what a commit may cost.
    #[must_use]
    pub fn with_limits(mut self, limits: SourceLimits) -> Self {
        self.git.memory = limits.git_memory;
        self.limits = limits;
        self
    }

    /// Sets the limits of the first fetch of each mirror.
    #[must_use]
    pub fn with_fetch_limits(self, fetch_limits: FetchLimits) -> Self {
        Self { fetch_limits, ..self }
    }

    /// The mirror of a repository. Its folder is created by the first fetch.
    #[must_use]
    pub fn of(&self, repository: RepositoryId) -> Mirror {
        // A panic cannot leave the map half changed, so a poisoned lock is usable.
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let state = Arc::clone(states.entry(repository).or_default());
        let (directory, sizes) = (self.root.join(format!("{repository}.git")), self.sizes.clone());
        Mirror { directory, git: self.git.clone(), limits: self.limits, sizes, fetch_limits: self.fetch_limits, state }
    }
}

/// The bare mirror of one repository: `mirrors/{id}.git`. A rename of the repository does not change the id.
#[derive(Debug, Clone)]
pub struct Mirror {
    directory: PathBuf,
    git: Git,
    limits: SourceLimits,
    sizes: SizeCache,
    fetch_limits: FetchLimits,
    state: Arc<MirrorState>,
}

/// The state that the users of one mirror share.
#[derive(Debug, Default)]
struct MirrorState {
    /// Held by one fetch at a time.
    fetches: tokio::sync::Mutex<FetchHistory>,
    /// The number of fetches begun.
    fetches_begun: AtomicU64,
    /// Held by one fetch of a pull request at a time.
    pull_fetches: tokio::sync::Mutex<()>,
    last_failure: Mutex<Option<SourceError>>,
    /// Read while a build is prepared, because its commit is not pinned yet; written while garbage is collected. A stage that
    /// runs needs neither: its commit is pinned.
    in_use: Arc<RwLock<()>>,
    /// Notified when a build waits for the end of a garbage collection.
    is_wanted: Notify,
}

impl Mirror {
    /// Keeps the objects of the mirror until the guard is dropped. A garbage collection that is running is aborted.
    async fn hold(&self) -> OwnedRwLockReadGuard<()> {
        if let Ok(guard) = Arc::clone(&self.state.in_use).try_read_owned() {
            return guard;
        }
        self.state.is_wanted.notify_waiters();
        Arc::clone(&self.state.in_use).read_owned().await
    }

    fn last_failure(&self) -> MutexGuard<'_, Option<SourceError>> {
        // A panic cannot leave the value half changed, so a poisoned lock is usable.
        self.state.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Git runs in other directories than this process.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
