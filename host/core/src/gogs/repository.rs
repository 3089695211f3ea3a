use serde::Deserialize;

use super::{User, null_as_default};

/// A repository in payloads and API responses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Repository {
    /// 0 for the deleted head repository of a pull request.
    pub id: u64,
    /// `None` only if the repository was deleted.
    #[serde(default)]
    pub owner: Option<User>,
    pub name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub full_name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub description: String,
    pub private: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub fork: bool,
    /// `null` in push, create and delete payloads since 0.13, even of forks.
    #[serde(default)]
    pub parent: Option<Box<Self>>,
    /// Since 0.13 still `true` in the payload of the first push.
    #[serde(default, deserialize_with = "null_as_default")]
    pub empty: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub mirror: bool,
    /// Bytes.
    #[serde(default, deserialize_with = "null_as_default")]
    pub size: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub html_url: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub ssh_url: String,
    /// Clone address in the view of Gogs. It is shown, but never fetched: the mirror fetches from the configured address.
    #[serde(default, deserialize_with = "null_as_default")]
    pub clone_url: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub website: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub stars_count: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub forks_count: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub watchers_count: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub open_issues_count: i64,
    /// Short name; empty while there is no commit.
    #[serde(default, deserialize_with = "null_as_default")]
    pub default_branch: String,
    /// RFC 3339 with the server's offset.
    #[serde(default, deserialize_with = "null_as_default")]
    pub created_at: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub updated_at: String,
    /// Permissions of the requesting user in API responses. Payloads contain it only in `parent`, where it has no meaning.
    #[serde(default)]
    pub permissions: Option<Permissions>,
}

/// Permissions of the requesting user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Permissions {
    #[serde(default)]
    pub admin: bool,
    #[serde(default)]
    pub push: bool,
    #[serde(default)]
    pub pull: bool,
}
