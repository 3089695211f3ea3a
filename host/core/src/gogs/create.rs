use serde::Deserialize;

use super::sha::optional_sha;
use super::{Repository, User, null_as_default};
use crate::ids::Sha;

/// `create`: a new branch (a `push` follows) or a new tag (no `push` follows; moving a tag sends `create` again).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Create {
    /// Short name. For refs that are neither branches nor tags, which Gogs reports as branches, it is the full name.
    #[serde(rename = "ref")]
    pub name: String,
    pub ref_type: RefType,
    /// Only for tags, since 0.11.91. For an annotated tag this is the id of the tag object, not of the commit.
    #[serde(default, deserialize_with = "optional_sha")]
    pub sha: Option<Sha>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub default_branch: String,
    pub repository: Repository,
    pub sender: User,
}

/// The kind of a ref.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefType {
    Branch,
    Tag,
}
