//! One bare mirror per repository, and everything that is known about a commit.
//!
//! | file | does |
//! |---|---|
//! | [`git`] | runs git: the limits of a call, and its timeout |
//! | [`fetch`] | fetches from the forge, and pins the commit of a build |
//! | [`objects`] | reads files of a commit from its objects: without a checkout, without following symbolic links |
//! | [`diff`] | the changes of a push: its base, changed paths and commits |
//! | [`checkout`] | a working tree for a stage |
//! | [`commit`] | resolves the commit of a build |
//! | [`pipeline_file`] | reads the pipeline file of a commit |
//! | [`change_set`] | the change of a build, for conditions and plugins |
//! | [`plugin_files`] | the files of a commit, for step types |
//! | [`error`] | errors, and whether a retry helps |
//!
//! Names and contents of a repository are untrusted: a commit is named by its object name, a ref by its full name, both after
//! `--end-of-options`. Nothing in a repository is opened by path, executed, or read as configuration.

mod change_set;
mod checkout;
mod commit;
mod diff;
mod error;
mod fetch;
mod git;
mod objects;
mod pipeline_file;
mod plugin_files;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use beespace_core::ids::RepositoryId;

pub use change_set::ChangeSet;
pub use checkout::{Checkout, CheckoutRequest};
pub use commit::{FetchedCommit, Resolution, resolve};
pub use diff::PushRange;
pub use error::SourceError;
pub use fetch::{ForgeCredentials, Pin};
pub use git::PROGRAM as GIT;
pub use objects::{EntryKind, FileContent, Tree, TreeEntry};
pub use pipeline_file::{PIPELINE_FILE, PipelineSource, has_pipeline_folder, read_pipeline_file};
pub use plugin_files::CommitFiles;

use git::Git;

/// All mirrors of an instance. Clones share their locks.
#[derive(Debug, Clone)]
pub struct Mirrors {
    root: PathBuf,
    git: Git,
    locks: Arc<Mutex<HashMap<RepositoryId, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Mirrors {
    /// `root`: the folder of the mirrors, `mirrors/` in the data directory. `home`: a folder of our own as git's home
    /// directory, so that no personal configuration applies. `ca_file`: certificates to trust in addition to those of the
    /// system.
    #[must_use]
    pub fn new(root: PathBuf, home: PathBuf, ca_file: Option<PathBuf>) -> Self {
        Self { root: absolute(root), git: Git::new(home, ca_file), locks: Arc::default() }
    }

    /// The mirror of a repository. Its folder is created by the first fetch.
    #[must_use]
    pub fn of(&self, repository: RepositoryId) -> Mirror {
        // A panic cannot leave the map half changed, so a poisoned lock is usable.
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = Arc::clone(locks.entry(repository).or_default());
        Mirror { directory: self.root.join(format!("{repository}.git")), git: self.git.clone(), lock }
    }
}

/// The bare mirror of one repository: `mirrors/{id}.git`. A rename of the repository does not change the id.
#[derive(Debug, Clone)]
pub struct Mirror {
    directory: PathBuf,
    git: Git,
    /// Held while the mirror is changed. Readers do not need it: a pinned commit is never removed.
    lock: Arc<tokio::sync::Mutex<()>>,
}

/// Git runs in other directories than this process.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
