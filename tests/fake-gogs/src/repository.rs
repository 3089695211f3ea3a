//! A repository, and how Gogs shows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::user::{User, UserObject};

/// The default branch of an empty repository, until another branch is pushed first.
pub(super) const FIRST_BRANCH: &str = "master";

/// Access levels, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    None,
    Read,
    Write,
    Admin,
}

#[derive(Debug, Clone)]
pub(super) struct Repository {
    pub(super) id: u64,
    pub(super) owner: User,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) private: bool,
    /// Access of users beyond public access.
    pub(super) granted: BTreeMap<u64, Access>,
    pub(super) empty: bool,
    pub(super) default_branch: String,
    pub(super) created_at: String,
    pub(super) updated_at: String,
    pub(super) path: PathBuf,
    /// Held while a push is received, so that only this push changes the refs meanwhile.
    pub(super) receiving: Arc<tokio::sync::Mutex<()>>,
    /// The id of the repository that it was forked from.
    pub(super) parent: Option<u64>,
}

/// `permissions` in responses of the API: those of the caller.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Permissions {
    pub admin: bool,
    pub push: bool,
    pub pull: bool,
}

/// A repository as Gogs shows it (`internal/route/api/v1/types/repository.go`).
#[derive(Debug, Clone, Serialize)]
pub struct RepositoryObject {
    pub id: u64,
    pub owner: UserObject,
    pub name: String,
    pub full_name: String,
    pub description: String,
    pub private: bool,
    pub fork: bool,
    /// Null in push events even of forks, as in Gogs 0.13 and newer.
    pub parent: Option<Box<Self>>,
    pub empty: bool,
    pub mirror: bool,
    /// Size on disk in bytes.
    pub size: u64,
    pub html_url: String,
    pub ssh_url: String,
    pub clone_url: String,
    pub website: String,
    pub stars_count: u64,
    pub forks_count: u64,
    pub watchers_count: u64,
    pub open_issues_count: u64,
    pub default_branch: String,
    pub created_at: String,
    pub updated_at: String,
    /// Only in responses of the API, not in webhooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
}

impl Repository {
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.owner.name, self.name)
    }

    /// The access of `user`; `None` is an anonymous caller.
    pub(super) fn access(&self, user: Option<&User>) -> Access {
        let everybody = if self.private { Access::None } else { Access::Read };
        match user {
            Some(user) if user.is_admin || user.id == self.owner.id => Access::Admin,
            Some(user) => self.granted.get(&user.id).copied().map_or(everybody, |granted| granted.max(everybody)),
            None => everybody,
        }
    }

    /// The repository as webhooks show it.
    pub(super) fn object(&self, base: &str) -> RepositoryObject {
        let full_name = self.full_name();
        let html_url = format!("{base}/{full_name}");
        RepositoryObject {
            id: self.id,
            owner: self.owner.object(base),
            name: self.name.clone(),
            description: self.description.clone(),
            private: self.private,
            fork: self.parent.is_some(),
            parent: None,
            empty: self.empty,
            mirror: false,
            size: bytes_under(&self.path),
            ssh_url: format!("git@127.0.0.1:{full_name}.git"),
            clone_url: format!("{html_url}.git"),
            html_url,
            full_name,
            website: String::new(),
            stars_count: 0,
            forks_count: 0,
            watchers_count: 1,
            open_issues_count: 0,
            default_branch: self.default_branch.clone(),
            created_at: self.created_at.clone(),
            updated_at: self.updated_at.clone(),
            permissions: None,
        }
    }

    /// The repository as the API shows it to a user with `access`.
    pub(super) fn object_for(&self, base: &str, access: Access) -> RepositoryObject {
        let permissions =
            Permissions { admin: access >= Access::Admin, push: access >= Access::Write, pull: access >= Access::Read };
        RepositoryObject { permissions: Some(permissions), ..self.object(base) }
    }
}

/// The total size of the files. Files that disappear meanwhile do not count.
fn bytes_under(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let lengths = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    lengths.sum()
}
