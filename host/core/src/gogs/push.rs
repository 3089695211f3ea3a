use serde::Deserialize;

use super::sha::sha_or_none;
use super::{Repository, User, null_as_default};
use crate::ids::Sha;

/// `push`: a ref points to another commit. Gogs sends one delivery per ref.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Push {
    /// `refs/heads/main`. Any ref outside `refs/tags/` is possible, because everyone with write access can push
    /// `refs/pull/9/head`. The sync of a mirror sends short names.
    #[serde(rename = "ref")]
    pub git_ref: String,
    /// `None` for a new ref. After a merge in the web interface this is the merge base, not the previous commit of the branch.
    #[serde(deserialize_with = "sha_or_none")]
    pub before: Option<Sha>,
    /// `None` for a deleted ref, for a tag of a mirror, and for the test button of an empty repository.
    #[serde(deserialize_with = "sha_or_none")]
    pub after: Option<Sha>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub compare_url: String,
    /// Newest first, five by default. A new branch lists up to ten old ancestors, and a force push lists the *removed* commits,
    /// so the first entry need not be the head.
    #[serde(default, deserialize_with = "null_as_default")]
    pub commits: Vec<Commit>,
    pub repository: Repository,
    /// After a merge in the web interface this is the owner of the head repository, who may not be involved: not an identity.
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
    /// The whole message, converted to UTF-8 by a guess if it had another encoding: not the bytes of the commit.
    #[serde(default, deserialize_with = "null_as_default")]
    pub message: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub url: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub author: CommitUser,
    #[serde(default, deserialize_with = "null_as_default")]
    pub committer: CommitUser,
    /// Paths truncated at the first space, without renames, and empty for merges; Beespace does not use these lists.
    #[serde(default, deserialize_with = "null_as_default")]
    pub added: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub removed: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub modified: Vec<String>,
    /// Time of the committer, RFC 3339; the test button sends the year 1.
    #[serde(default, deserialize_with = "null_as_default")]
    pub timestamp: String,
}

/// The author or committer as stated in the commit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct CommitUser {
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub email: String,
    /// The account with this address, if there is one. Not an identity: anyone can write any address into a commit.
    #[serde(default, deserialize_with = "null_as_default")]
    pub username: String,
}
