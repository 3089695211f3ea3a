//! The commit of a build.

use serde::{Deserialize, Serialize};

use crate::event::Claim;
use crate::ids::Sha;

/// The commit as git describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub sha: Sha,
    /// The message, at most [`MAX_MESSAGE_CHARS`](crate::event::MAX_MESSAGE_CHARS) of it; bytes that are not UTF-8 are replaced.
    pub message: String,
    pub author: Claim,
    pub base: Base,
}

/// The commit that the changes of a build are compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// The branch's commit before the push; for a new branch, the merge base with the default branch at that time; for a pull
    /// request, the merge base with its target.
    Commit(Sha),
    /// There is no base. The text gives the reason as the end of a sentence: `the branch is new, and it is the default branch`.
    Unknown(String),
}
