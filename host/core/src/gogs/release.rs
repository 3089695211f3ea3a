use serde::Deserialize;

use super::{Repository, User, null_as_default};

/// `release`: a release was published. If its tag was created on the same page, Gogs sends no `create` for the tag.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReleaseEvent {
    pub action: ReleaseAction,
    pub release: Release,
    pub repository: Repository,
    pub sender: User,
}

/// The change of the release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseAction {
    Published,
    /// An action that only newer versions of Gogs have.
    #[serde(untagged)]
    Other(String),
}

/// A release. The payload contains no commit id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Release {
    pub id: u64,
    pub tag_name: String,
    /// The branch that was entered on the page.
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
