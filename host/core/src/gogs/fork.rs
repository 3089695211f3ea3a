use serde::Deserialize;

use super::{Repository, User};

/// `fork`: somebody forked the repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fork {
    /// The new one.
    pub forkee: Repository,
    /// The one that was forked.
    pub repository: Repository,
    pub sender: User,
}
