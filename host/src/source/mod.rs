//! One bare mirror per repository, and every question about a commit.
//!
//! | file | answers |
//! |---|---|
//! | [`git`] | how git is called: what it may read, do and say, and for how long |
//! | [`fetch`] | gets what the forge has, and pins the commit of a build |
//! | [`read`] | files of a commit, from its objects: no checkout, no symbolic link followed |
//! | [`changed_pointers`] | which paths a push changed |
//! | [`checkout`] | a working tree of its own for a stage |
//! | [`error`] | what went wrong, and whether waiting helps |
//!
//! Names and contents are a stranger's: a commit is named by its object name alone, a ref by its full name, both after
//! `--end-of-options`; nothing of a repository is ever opened by path, run, or read as configuration.

mod checkout;
mod diff;
mod error;
mod fetch;
mod git;
mod objects;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use beespace_core::ids::RepositoryId;

pub use checkout::{Checkout, CheckoutRequest};
pub use diff::PushRange;
pub use error::SourceError;
pub use fetch::{ForgeCredentials, Pin};
pub use git::PROGRAM as GIT;
pub use objects::{EntryKind, FileContent, Tree, TreeEntry};

use git::Git;

/// All mirrors of an instance. Clones share their locks.
#[derive(Debug, Clone)]
pub struct Mirrors {
    root: PathBuf,
    git: Git,
    locks: Arc<Mutex<HashMap<RepositoryId, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Mirrors {
    /// `root`: where mirrors lie, `mirrors/` under the data directory. `home`: a directory of our own that git takes for its user's
    /// home, so that nothing of a person's configuration counts. `ca_file`: certificates to trust beside those of the system.
    #[must_use]
    pub fn new(root: PathBuf, home: PathBuf, ca_file: Option<PathBuf>) -> Self {
        Self { root: absolute(root), git: Git::new(home, ca_file), locks: Arc::default() }
    }

    /// The mirror of a repository. Nothing is made before its first fetch.
    #[must_use]
    pub fn of(&self, repository: RepositoryId) -> Mirror {
        // A lock that was poisoned guards a map that is whole at any time.
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = Arc::clone(locks.entry(repository).or_default());
        Mirror { directory: self.root.join(format!("{repository}.git")), git: self.git.clone(), lock }
    }
}

/// The bare mirror of one repository: `mirrors/{id}.git`. The id stays when the repository is renamed.
#[derive(Debug, Clone)]
pub struct Mirror {
    directory: PathBuf,
    git: Git,
    /// Held while the mirror is changed. Readers need it not: a pinned commit does not go away.
    lock: Arc<tokio::sync::Mutex<()>>,
}

/// Git is called in other directories than ours.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
