use serde::Deserialize;

use super::{Repository, User, null_as_default};

/// `release`: one was published. Where its tag was made on the same page, no `create` tells of the tag.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReleaseEvent {
    pub action: ReleaseAction,
    pub release: Release,
    pub repository: Repository,
    pub sender: User,
}

/// What happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseAction {
    Published,
    /// One that a newer Gogs has.
    #[serde(untagged)]
    Other(String),
}

/// A release. Gogs tells no commit of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Release {
    pub id: u64,
    pub tag_name: String,
    /// The branch that was typed on the page.
    #[serde(default, deserialize_with = "null_as_default")]
    pub target_commitish: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub body: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub draft: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub prerelease: bool,
    #[serde(default)]
    pub author: Option<User>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub created_at: String,
}
