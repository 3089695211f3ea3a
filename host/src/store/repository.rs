//! Repositories and the hooks that tell of them.

use beespace_core::digest::Digest;
use beespace_core::event;
use beespace_core::ids::{RepositoryId, RepositoryName};
use beespace_core::time::Timestamp;
use beespace_core::trigger::LastSeenRef;
use serde::{Deserialize, Serialize};

use super::tables::{HOOK, Key, LAST_SEEN_REF, REPOSITORY, REPOSITORY_NAME};
use super::transaction::{Order, Read, Rows, Write};
use super::{Store, StoreError, row};
use crate::seal::Sealed;

/// A repository that was enabled here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Repository {
    pub id: RepositoryId,
    pub name: RepositoryName,
    pub default_branch: String,
    pub is_private: bool,
    pub html_url: String,
    /// None: disabled; its builds stay.
    pub hook: Option<Hook>,
    /// Pairs from before a repair, each still good until then: Gogs' queued tasks carry them.
    #[serde(default)]
    pub previous_hooks: Vec<(Hook, Timestamp)>,
    pub last_number: u64,
    pub enabled_at: Timestamp,
}

/// A hook in Gogs. There is none without a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hook {
    /// SHA-256 of the key in its URL.
    pub key: Digest,
    pub secret: Sealed,
    /// Gogs' id of the hook.
    pub forge_id: u64,
    pub created_at: Timestamp,
}

fn id_key(id: RepositoryId) -> Key {
    Key::new().u64(id.0)
}

fn name_key(name: &RepositoryName) -> Key {
    Key::new().text(&name.to_string().to_lowercase())
}

fn ref_key(id: RepositoryId, git_ref: &str) -> Key {
    id_key(id).text(git_ref)
}

fn decode_id(bytes: &[u8]) -> Option<RepositoryId> {
    bytes.try_into().ok().map(u64::from_be_bytes).map(RepositoryId)
}

/// What reading and writing transactions can both tell of repositories.
pub trait Repositories: Rows + Sized {
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn repository(&self, id: RepositoryId) -> Result<Option<Repository>, StoreError> {
        self.row(REPOSITORY, "repository", id_key(id).as_slice())
    }

    /// By the name people say; upper and lower case are one, as in Gogs. A name that it had before leads to it, too, until another one
    /// is called so: addresses that people have kept stay good.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn repository_by_name(&self, name: &RepositoryName) -> Result<Option<Repository>, StoreError> {
        let id = self.bytes(REPOSITORY_NAME, name_key(name).as_slice())?;
        id.and_then(|bytes| decode_id(&bytes)).map_or(Ok(None), |id| self.repository(id))
    }

    /// What the ref recorded last.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn last_seen(&self, id: RepositoryId, git_ref: &str) -> Result<Option<LastSeenRef>, StoreError> {
        self.row(LAST_SEEN_REF, "last_seen_ref", ref_key(id, git_ref).as_slice())
    }
}

impl Repositories for Read {}
impl Repositories for Write<'_> {}

impl Read {
    /// All, by id.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn repositories(&self) -> Result<Vec<Repository>, StoreError> {
        let mut all = Vec::new();
        self.scan(REPOSITORY, &[], None, Order::OldestFirst, &mut |_, value| {
            all.push(row::decode("repository", value)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// The repository whose hook has this key, with the secrets that are good at `now`. The same work for any key.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn hook_by_key(&self, key: Digest, now: Timestamp) -> Result<Option<(RepositoryId, Hook)>, StoreError> {
        let id = self.bytes(HOOK, &key.0)?.and_then(|bytes| decode_id(&bytes));
        // Gogs counts from 1: there is no such row, but it is looked for like any other.
        let Some(repository) = self.repository(id.unwrap_or(RepositoryId(0)))? else { return Ok(None) };
        let previous = repository.previous_hooks.into_iter().filter(|(_, until)| now < *until).map(|(hook, _)| hook);
        let hook = repository.hook.into_iter().chain(previous).find(|hook| hook.key == key);
        Ok(hook.map(|hook| (repository.id, hook)))
    }
}

impl Write<'_> {
    /// Writes the row and keeps its indexes true.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn put_repository(&self, repository: &Repository) -> Result<(), StoreError> {
        let key = id_key(repository.id);
        let old = self.repository(repository.id)?;
        if let Some(old) = &old {
            for hook in old.hook.iter().chain(old.previous_hooks.iter().map(|(hook, _)| hook)) {
                self.remove(HOOK, &hook.key.0)?;
            }
        }
        for hook in repository.hook.iter().chain(repository.previous_hooks.iter().map(|(hook, _)| hook)) {
            self.put_bytes(HOOK, &hook.key.0, key.as_slice())?;
        }
        // One that keeps its name does not take it back from another one that is called so now.
        if old.is_none_or(|old| old.name != repository.name) {
            self.put_bytes(REPOSITORY_NAME, name_key(&repository.name).as_slice(), key.as_slice())?;
        }
        self.put(REPOSITORY, "repository", key.as_slice(), repository)
    }

    /// Remembers what a delivery says about the repository: names change, the id does not.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn refresh_repository(&self, seen: &event::Repository) -> Result<(), StoreError> {
        let Some(mut repository) = self.repository(seen.id)? else { return Ok(()) };
        repository.name = seen.name.clone();
        repository.default_branch.clone_from(&seen.default_branch);
        repository.is_private = seen.is_private;
        repository.html_url.clone_from(&seen.html_url);
        self.put_repository(&repository)
    }

    /// Records where a ref stands; none: it is gone.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn record_ref(&self, id: RepositoryId, git_ref: &str, seen: Option<&LastSeenRef>) -> Result<(), StoreError> {
        let key = ref_key(id, git_ref);
        match seen {
            Some(seen) => self.put(LAST_SEEN_REF, "last_seen_ref", key.as_slice(), seen),
            None => self.remove(LAST_SEEN_REF, key.as_slice()).map(drop),
        }
    }

    /// Takes the next build number of the repository.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the repository is unknown.
    pub fn next_number(&self, id: RepositoryId) -> Result<u64, StoreError> {
        let mut repository = self.repository(id)?.ok_or(StoreError::NotFound("repository"))?;
        repository.last_number += 1;
        self.put_repository(&repository)?;
        Ok(repository.last_number)
    }
}

impl Store {
    /// Changes a repository's row, or makes it.
    ///
    /// # Errors
    /// What `change` returns; [`StoreError`] where the store cannot be written.
    pub async fn change_repository(
        &self,
        id: RepositoryId,
        change: impl Fn(Option<Repository>) -> Result<Repository, StoreError> + Send + 'static,
    ) -> Result<Repository, StoreError> {
        self.write(move |write| {
            let repository = change(write.repository(id)?)?;
            write.put_repository(&repository)?;
            Ok(repository)
        })
        .await
    }
}
