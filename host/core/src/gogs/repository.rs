use serde::Deserialize;

use super::{User, null_as_default};

/// A repository as payloads and the API describe it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Repository {
    /// 0 stands for a head repository of a pull request that is gone.
    pub id: u64,
    /// None only where the repository is gone.
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
    /// Still true in the payload of the very first push since 0.13.
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
    /// Where Gogs believes to be reached. Shown, never fetched: the mirror fetches from the configured address.
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
    /// Of whoever asks, in answers of the API. Payloads have it on `parent` only, and there it says nothing.
    #[serde(default)]
    pub permissions: Option<Permissions>,
}

/// What the asking user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Permissions {
    #[serde(default)]
    pub admin: bool,
    #[serde(default)]
    pub push: bool,
    #[serde(default)]
    pub pull: bool,
}
