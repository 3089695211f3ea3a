//! Repositories, their webhooks, and the last recorded commit of each ref.

use beespace_core::build::Build;
use beespace_core::digest::Digest;
use beespace_core::event::{self, EventKind};
use beespace_core::ids::{RepositoryId, RepositoryName};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::time::Timestamp;
use beespace_core::trigger::LastSeenRef;
use serde::{Deserialize, Serialize};

use super::tables::{HOOK, Key, LAST_SEEN_REF, REPOSITORY, REPOSITORY_NAME};
use super::transaction::{Order, Read, Rows, Write};
use super::{Store, StoreError, row};
use crate::encryption::Sealed;

/// A repository that is or was enabled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Repository {
    pub id: RepositoryId,
    pub name: RepositoryName,
    pub default_branch: String,
    pub is_private: bool,
    pub html_url: String,
    /// `None` if the repository is disabled. Its builds are kept.
    pub hook: Option<Hook>,
    /// Webhooks that a repair has replaced, each with the time until which it is accepted: deliveries queued in Gogs still use
    /// them.
    pub previous_hooks: Vec<(Hook, Timestamp)>,
    pub last_number: u64,
    pub enabled_at: Timestamp,
}

/// A webhook in Gogs. Every webhook has a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hook {
    /// SHA-256 of the key in the webhook's URL.
    pub key: Digest,
    pub secret: Sealed,
    /// The id of the webhook in Gogs.
    pub forge_id: u64,
    pub created_at: Timestamp,
}

impl Repository {
    /// The row without the server's own state: as Gogs described the repository last.
    #[must_use]
    pub fn described(self) -> event::Repository {
        let Self { id, name, default_branch, is_private, html_url, .. } = self;
        event::Repository { id, name, default_branch, is_private, html_url }
    }
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

/// Reading repositories, in both kinds of transaction.
pub trait Repositories: Rows + Sized {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn repository(&self, id: RepositoryId) -> Result<Option<Repository>, StoreError> {
        self.row(REPOSITORY, "repository", id_key(id).as_slice())
    }

    /// Finds a repository by name, without regard to case, as Gogs does. A former name still finds the repository until another
    /// repository takes the name, so bookmarks keep working.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn repository_by_name(&self, name: &RepositoryName) -> Result<Option<Repository>, StoreError> {
        let id = self.bytes(REPOSITORY_NAME, name_key(name).as_slice())?;
        id.and_then(|bytes| decode_id(&bytes)).map_or(Ok(None), |id| self.repository(id))
    }

    /// The last recorded commit of a ref.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn last_seen(&self, id: RepositoryId, git_ref: &str) -> Result<Option<LastSeenRef>, StoreError> {
        self.row(LAST_SEEN_REF, "last_seen_ref", ref_key(id, git_ref).as_slice())
    }

    /// Why the build of a tag has nothing to do: the tag is already built at its commit. Gogs reports one tag as created and as a
    /// release, and which comes first is unknown. A delete of the tag removes the record.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn repeated_tag(&self, build: &Build) -> Result<Option<Reason>, StoreError> {
        let (EventKind::Tag, None, Some(head)) = (build.event.kind(), build.restart_of, &build.head) else { return Ok(None) };
        let git_ref = build.event.git_ref();
        let seen = self.last_seen(build.event.repository.id, &git_ref)?;
        if seen != Some(LastSeenRef::of_tag(head.sha.clone())) {
            return Ok(None);
        }
        let reason = Reason::new(ReasonCode::DuplicateTag, format!("{git_ref} is already built at {}", head.sha.short()));
        Ok(Some(reason.help("to build it again, use `beespace build restart`")))
    }
}

impl Write<'_> {
    /// Whether more than one repository is enabled. Reads no more rows than needed.
    pub(super) fn has_several_repositories(&self) -> Result<bool, StoreError> {
        let mut enabled = 0;
        self.scan(REPOSITORY, &[], None, Order::OldestFirst, &mut |_, value| {
            let repository: Repository = row::decode("repository", value)?;
            enabled += usize::from(repository.hook.is_some());
            Ok(enabled < 2)
        })?;
        Ok(enabled > 1)
    }
}

impl Repositories for Read {}
impl Repositories for Write<'_> {}

impl Read {
    /// All repositories, by id.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn repositories(&self) -> Result<Vec<Repository>, StoreError> {
        let mut all = Vec::new();
        self.scan(REPOSITORY, &[], None, Order::OldestFirst, &mut |_, value| {
            all.push(row::decode("repository", value)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// Whether more than one repository is enabled. Reads rows only until it finds the second one.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn several_repositories_enabled(&self) -> Result<bool, StoreError> {
        // A repository may have several keys, so the count of keys is only an upper bound.
        if self.count(HOOK)? < 2 {
            return Ok(false);
        }
        let mut enabled = 0;
        self.scan(REPOSITORY, &[], None, Order::OldestFirst, &mut |_, value| {
            enabled += usize::from(row::decode::<Repository>("repository", value)?.hook.is_some());
            Ok(enabled < 2)
        })?;
        Ok(enabled > 1)
    }

    /// The repository and webhook with this key, if the webhook is accepted at `now`. Does the same work for unknown keys, so the
    /// response time does not reveal whether a key exists.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn hook_by_key(&self, key: Digest, now: Timestamp) -> Result<Option<(RepositoryId, Hook)>, StoreError> {
        let id = self.bytes(HOOK, &key.0)?.and_then(|bytes| decode_id(&bytes));
        // Ids in Gogs start at 1, so this row never exists. Looking it up keeps the work constant.
        let Some(repository) = self.repository(id.unwrap_or(RepositoryId(0)))? else { return Ok(None) };
        let previous = repository.previous_hooks.into_iter().filter(|(_, until)| now < *until).map(|(hook, _)| hook);
        let hook = repository.hook.into_iter().chain(previous).find(|hook| hook.key == key);
        Ok(hook.map(|hook| (repository.id, hook)))
    }
}

impl Write<'_> {
    /// Writes the row and updates its indexes.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
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
        // A repository whose name has not changed must not take the name back from another repository that now has it.
        if old.is_none_or(|old| old.name != repository.name) {
            self.put_bytes(REPOSITORY_NAME, name_key(&repository.name).as_slice(), key.as_slice())?;
        }
        self.put(REPOSITORY, "repository", key.as_slice(), repository)
    }

    /// Records the commit of a ref; `None` removes the record of a deleted ref.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub fn record_ref(&self, id: RepositoryId, git_ref: &str, seen: Option<&LastSeenRef>) -> Result<(), StoreError> {
        let key = ref_key(id, git_ref);
        match seen {
            Some(seen) => self.put(LAST_SEEN_REF, "last_seen_ref", key.as_slice(), seen),
            None => self.remove(LAST_SEEN_REF, key.as_slice()).map(drop),
        }
    }

    /// Assigns the next build number of the repository.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the repository is unknown.
    pub fn next_number(&self, id: RepositoryId) -> Result<u64, StoreError> {
        let mut repository = self.repository(id)?.ok_or(StoreError::NotFound("repository"))?;
        repository.last_number += 1;
        self.put_repository(&repository)?;
        Ok(repository.last_number)
    }
}

impl Store {
    /// Stores what Gogs reports about a repository. Names change; the id does not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the repository is unknown; [`StoreError`] if the store cannot be written.
    pub async fn describe_repository(&self, present: event::Repository) -> Result<(), StoreError> {
        let id = present.id;
        let change = move |row: Option<Repository>| {
            let row = row.ok_or(StoreError::NotFound("repository"))?;
            let event::Repository { id: _, name, default_branch, is_private, html_url } = present.clone();
            Ok(Repository { name, default_branch, is_private, html_url, ..row })
        };
        self.change_repository(id, change).await.map(drop)
    }

    /// Changes or creates a repository's row.
    ///
    /// # Errors
    /// The error of `change`; [`StoreError`] if the store cannot be written.
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
