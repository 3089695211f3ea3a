use serde::Deserialize;

use super::{RefType, Repository, User, null_as_default};

/// `delete`: a branch or a tag was deleted. Gogs sends no `push` for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Delete {
    /// Short name, as in [`super::Create`].
    #[serde(rename = "ref")]
    pub name: String,
    pub ref_type: RefType,
    /// Always `user`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub pusher_type: String,
    pub repository: Repository,
    pub sender: User,
}

impl Delete {
    /// Full name of the deleted ref.
    #[must_use]
    pub fn git_ref(&self) -> String {
        match self.ref_type {
            RefType::Branch if self.name.starts_with("refs/") => self.name.clone(),
            RefType::Branch => format!("refs/heads/{}", self.name),
            RefType::Tag => format!("refs/tags/{}", self.name),
        }
    }
}
