use serde::Deserialize;

use super::{Repository, User};

/// `fork`: the repository was forked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fork {
    /// The new repository.
    pub forkee: Repository,
    /// The repository that was forked.
    pub repository: Repository,
    pub sender: User,
}
