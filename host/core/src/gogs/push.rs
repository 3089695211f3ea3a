use serde::Deserialize;

use super::sha::sha_or_none;
use super::{Repository, User, null_as_default};
use crate::ids::Sha;

/// `push`: a ref points to another commit. One delivery a ref.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Push {
    /// `refs/heads/main`. Any ref outside `refs/tags/` may stand here, for any writer can push `refs/pull/9/head`. A mirror's sync
    /// sends short names.
    #[serde(rename = "ref")]
    pub git_ref: String,
    /// None for a new ref. After a merge in the web interface this is the merge base, not where the branch stood.
    #[serde(deserialize_with = "sha_or_none")]
    pub before: Option<Sha>,
    /// None for a deleted ref, for a mirror's tag, and for the test button of an empty repository.
    #[serde(deserialize_with = "sha_or_none")]
    pub after: Option<Sha>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub compare_url: String,
    /// Newest first, cut to five by default, with up to ten old ancestors for a new branch, and with the *removed* commits after a
    /// force push: never look at the first one for the head.
    #[serde(default, deserialize_with = "null_as_default")]
    pub commits: Vec<Commit>,
    pub repository: Repository,
    /// After a merge in the web interface the owner of the head repository, who need not have done anything: no identity.
    #[serde(default)]
    pub pusher: Option<User>,
    pub sender: User,
}

/// A commit as Gogs lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Commit {
    /// Zeros for the fake commit of the test button.
    #[serde(deserialize_with = "sha_or_none")]
    pub id: Option<Sha>,
    /// Whole, but guessed into UTF-8 where it was something else: not the commit's bytes.
    #[serde(default, deserialize_with = "null_as_default")]
    pub message: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub url: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub author: CommitUser,
    #[serde(default, deserialize_with = "null_as_default")]
    pub committer: CommitUser,
    /// Cut at the first space, renames missing, empty for merges: never used.
    #[serde(default, deserialize_with = "null_as_default")]
    pub added: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub removed: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub modified: Vec<String>,
    /// The committer's, RFC 3339; year 1 from the test button.
    #[serde(default, deserialize_with = "null_as_default")]
    pub timestamp: String,
}

/// Who a commit says wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct CommitUser {
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub email: String,
    /// The account with this address, where there is one. Anyone can write any address into a commit.
    #[serde(default, deserialize_with = "null_as_default")]
    pub username: String,
}
