use serde::Deserialize;

use super::sha::optional_sha;
use super::{Repository, User, null_as_default};
use crate::ids::Sha;

/// `create`: a new branch (a `push` follows) or a tag (nothing follows; moving one sends the same again).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Create {
    /// Short name; the full one for refs that are neither branch nor tag, which Gogs calls branches.
    #[serde(rename = "ref")]
    pub name: String,
    pub ref_type: RefType,
    /// Of tags alone, since 0.11.91; the tag object's, not the commit's, where the tag is annotated.
    #[serde(default, deserialize_with = "optional_sha")]
    pub sha: Option<Sha>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub default_branch: String,
    pub repository: Repository,
    pub sender: User,
}

/// What kind of ref.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefType {
    Branch,
    Tag,
}
