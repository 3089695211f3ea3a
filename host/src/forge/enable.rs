//! Enabling, repairing and disabling a repository: its webhook in Gogs and its row here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beespace_core::gogs;
use beespace_core::ids::{RepositoryId, RepositoryName};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::time::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zeroize::Zeroizing;

use super::{Forge, ForgeError};
use crate::encryption::{self, SealError};
use crate::store::repository::{Hook, Repositories as _, Repository};
use crate::store::{Store, StoreError};
use crate::webhook_secret::{PATH_PREFIX, key_digest, secret_aad};

/// How long the previous key and secret stay valid after a repair: queued deliveries of Gogs still use them.
const OLD_KEY_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// Creates and removes webhooks, in Gogs and in the store.
#[derive(Debug, Clone)]
pub struct Enabler {
    pub forge: Forge,
    pub store: Store,
    pub seal: encryption::Key,
    /// The base URL at which Gogs reaches this server.
    pub hook_base: Url,
    /// Shared by all clones.
    pub locks: HookLocks,
}

/// A lock per repository for changes of its webhooks. Each change removes the webhooks that it did not create, so two changes at
/// once would remove each other's.
#[derive(Debug, Clone, Default)]
pub struct HookLocks(Arc<Mutex<HashMap<RepositoryId, Arc<tokio::sync::Mutex<()>>>>>);

impl HookLocks {
    async fn lock(&self, id: RepositoryId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default());
        lock.lock_owned().await
    }
}

/// Why a repository could not be enabled, repaired or disabled.
#[derive(Debug, thiserror::Error)]
pub enum EnableError {
    #[error(transparent)]
    Forge(#[from] ForgeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    /// In Gogs only an administrator of a repository can list and create its webhooks.
    #[error("the token's user is not an administrator of {0}")]
    NotAdmin(RepositoryName),
    /// The webhook could not be deleted in Gogs. Its deliveries are already refused here.
    #[error("{name} is disabled, but its webhook may still exist in Gogs: {cause}")]
    HookNotRemoved { name: RepositoryName, cause: ForgeError },
    /// There is nothing to repair or disable.
    #[error("{0} is not enabled")]
    NotEnabled(RepositoryName),
    /// Gogs accepted the name `..` until 0.14.3.
    #[error(transparent)]
    Name(#[from] beespace_core::ids::InvalidRepositoryName),
}

impl EnableError {
    /// The error with its remedy, for people.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Forge(error) => error.reason(),
            Self::Store(error) => Reason::new(ReasonCode::StoreUnavailable, error.to_string())
                .help("`/readyz?verbose` reports the state of the store"),
            Self::Seal(error) => Reason::new(ReasonCode::EncryptionFailed, error.to_string()),
            Self::NotAdmin(_) => Reason::new(ReasonCode::TokenRights, self.to_string())
                .help("in Gogs, make the user a collaborator with the permission `admin`"),
            Self::HookNotRemoved { name, .. } => Reason::new(ReasonCode::WebhookNotRemoved, self.to_string())
                .help(format!("run `beespace repo disable {name}` again when Gogs is reachable")),
            Self::NotEnabled(name) => {
                Reason::new(ReasonCode::RepositoryNotEnabled, self.to_string()).help(format!("run `beespace repo enable {name}`"))
            }
            Self::Name(_) => Reason::new(ReasonCode::InvalidRepositoryName, self.to_string()),
        }
    }
}

/// A new webhook that Gogs does not have yet: its URL with the key, its secret, and its row.
struct NewHook {
    url: Url,
    secret: SecretString,
    hook: Hook,
}

impl Enabler {
    /// Enables a repository: creates its webhook in Gogs, and stores the webhook's key and secret. A repository that is enabled
    /// and whose webhook in Gogs is intact stays as it is.
    ///
    /// # Errors
    /// [`EnableError`]. A second call completes the work of a failed one.
    pub async fn enable(&self, name: &RepositoryName, now: Timestamp) -> Result<Repository, EnableError> {
        let found = self.forge.repository(name).await?;
        self.require_admin(&found, name)?;
        let _lock = self.locks.lock(RepositoryId(found.id)).await;
        let known = self.store.read()?.repository(RepositoryId(found.id))?;
        if let Some(known) = known.filter(|known| known.hook.is_some())
            && self.is_hook_intact(&known, name).await?
        {
            let present = new_repository(&found, repository_name(&found)?, now);
            return Ok(self.update_row(known.id, move |known| Ok(with_facts_of(known, &present))).await?);
        }
        self.replace_hook(&found, now).await
    }

    /// Replaces the webhook by one with a new key and a new secret, and deletes every other webhook that points to this server.
    /// Previous keys and secrets stay valid for a day.
    ///
    /// # Errors
    /// [`EnableError::NotEnabled`] if there is nothing to repair; otherwise any [`EnableError`].
    pub async fn repair(&self, name: &RepositoryName, now: Timestamp) -> Result<Repository, EnableError> {
        let found = self.forge.repository(name).await?;
        self.require_admin(&found, name)?;
        let _lock = self.locks.lock(RepositoryId(found.id)).await;
        let known = self.store.read()?.repository(RepositoryId(found.id))?;
        known.filter(|known| known.hook.is_some()).ok_or_else(|| EnableError::NotEnabled(name.clone()))?;
        self.replace_hook(&found, now).await
    }

    /// Disables a repository: deletes its webhooks in Gogs and their secrets here. Its builds stay. If Gogs does not respond, or
    /// no longer has the repository, the repository is disabled here anyway; a second call deletes what is left in Gogs.
    ///
    /// # Errors
    /// [`EnableError::NotEnabled`] if it never was enabled; [`EnableError::HookNotRemoved`] if webhooks may still exist in Gogs.
    pub async fn disable(&self, name: &RepositoryName) -> Result<Repository, EnableError> {
        let known = self.store.read()?.repository_by_name(name)?;
        let id = known.ok_or_else(|| EnableError::NotEnabled(name.clone()))?.id;
        let _lock = self.locks.lock(id).await;
        let known = self.store.read()?.repository(id)?.ok_or_else(|| EnableError::NotEnabled(name.clone()))?;
        let disabled = self.update_row(id, |known| Ok(Repository { hook: None, previous_hooks: Vec::new(), ..known })).await?;
        // The repository is found by its former names, too, and its name may belong to another repository by now, whose webhooks
        // are not ours to remove.
        let (name, forge_id) = (known.name, known.hook.map(|hook| hook.forge_id));
        let not_removed = |cause| EnableError::HookNotRemoved { name: name.clone(), cause };
        if self.forge.repository(&name).await.map_err(not_removed)?.id == id.0 {
            self.remove_other_hooks(&name, forge_id, None).await.map_err(not_removed)?;
        }
        Ok(disabled)
    }

    /// Replaces the webhook; the caller holds the repository's lock. The row is written first, because a delivery may arrive
    /// before Gogs has responded, and its secret must be stored by then.
    async fn replace_hook(&self, found: &gogs::Repository, now: Timestamp) -> Result<Repository, EnableError> {
        let name = repository_name(found)?;
        let id = RepositoryId(found.id);
        let NewHook { url, secret, hook } = self.generate_hook(id, now)?;
        let before = self.store.read()?.repository(id)?;
        let fresh = new_repository(found, name.clone(), now);
        let (key, previous) = (hook.key, before.clone());
        let row = move |known: Option<Repository>| {
            let known = known.unwrap_or_else(|| fresh.clone());
            let mut previous_hooks = known.previous_hooks.clone();
            previous_hooks.retain(|(_, until)| now < *until);
            previous_hooks.extend(known.hook.clone().map(|old| (old, now + OLD_KEY_GRACE)));
            Ok(Repository { hook: Some(hook.clone()), previous_hooks, ..with_facts_of(known, &fresh) })
        };
        self.store.change_repository(id, row).await?;

        // Create the webhook in Gogs; if that fails, restore the row.
        let created = match self.forge.create_hook(&name, &url, &secret).await {
            Ok(created) => created,
            Err(error) => {
                let restored = move |known| {
                    let (hook, previous_hooks) =
                        previous.clone().map(|previous| (previous.hook, previous.previous_hooks)).unwrap_or_default();
                    Ok(Repository { hook, previous_hooks, ..known })
                };
                self.update_row(id, restored).await?;
                return Err(error.into());
            }
        };

        // Store the id that Gogs gave the webhook, unless another webhook has replaced it meanwhile.
        let stored = self.update_row(id, move |known| {
            let hook = known.hook.clone().map(|hook| if hook.key == key { Hook { forge_id: created.id, ..hook } } else { hook });
            Ok(Repository { hook, ..known })
        });
        let stored = stored.await?;

        let old = before.and_then(|before| before.hook).map(|hook| hook.forge_id);
        self.remove_other_hooks(&name, old, Some(created.id)).await?;
        Ok(stored)
    }

    async fn update_row(
        &self,
        id: RepositoryId,
        change: impl Fn(Repository) -> Result<Repository, StoreError> + Send + 'static,
    ) -> Result<Repository, StoreError> {
        self.store.change_repository(id, move |known| change(known.ok_or(StoreError::NotFound("repository"))?)).await
    }

    fn require_admin(&self, found: &gogs::Repository, name: &RepositoryName) -> Result<(), EnableError> {
        let is_admin = found.permissions.is_some_and(|permissions| permissions.admin);
        if is_admin { Ok(()) } else { Err(EnableError::NotAdmin(name.clone())) }
    }

    /// Whether the webhook of the row exists in Gogs, has the current key and fires for every event.
    async fn is_hook_intact(&self, known: &Repository, name: &RepositoryName) -> Result<bool, ForgeError> {
        let Some(row) = &known.hook else { return Ok(false) };
        let hooks = self.forge.hooks(name).await?;
        Ok(hooks
            .iter()
            .any(|hook| hook.id == row.forge_id && hook.fires_for_all_events() && self.has_current_key(&hook.config.url, row)))
    }

    /// Whether a webhook's URL points to this server and has the key of the row.
    #[must_use]
    pub fn has_current_key(&self, url: &str, row: &Hook) -> bool {
        url.strip_prefix(self.hook_url("").as_str()).is_some_and(|key| key_digest(key) == row.key)
    }

    /// Whether a webhook's URL points to this server.
    #[must_use]
    pub fn points_to_this_server(&self, url: &str) -> bool {
        url.starts_with(self.hook_url("").as_str())
    }

    async fn remove_other_hooks(&self, name: &RepositoryName, old: Option<u64>, keep: Option<u64>) -> Result<(), ForgeError> {
        for hook in self.forge.hooks(name).await? {
            if Some(hook.id) != keep && (Some(hook.id) == old || self.points_to_this_server(&hook.config.url)) {
                self.forge.delete_hook(name, hook.id).await?;
            }
        }
        Ok(())
    }

    fn hook_url(&self, key: &str) -> Url {
        let mut url = self.hook_base.clone();
        let path = format!("{}{PATH_PREFIX}{key}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    fn generate_hook(&self, repository: RepositoryId, now: Timestamp) -> Result<NewHook, SealError> {
        let key = random_hex::<16>()?;
        let secret = random_hex::<32>()?;
        let digest = key_digest(key.expose_secret());
        let sealed = self.seal.seal(&secret_aad(repository, digest), secret.expose_secret().as_bytes())?;
        let hook = Hook { key: digest, secret: sealed, forge_id: 0, created_at: now };
        Ok(NewHook { url: self.hook_url(key.expose_secret()), secret, hook })
    }
}

fn repository_name(found: &gogs::Repository) -> Result<RepositoryName, EnableError> {
    let owner = found.owner.as_ref().map_or("", |owner| owner.username.as_str());
    Ok(RepositoryName::new(owner, &found.name)?)
}

fn new_repository(found: &gogs::Repository, name: RepositoryName, now: Timestamp) -> Repository {
    Repository {
        id: RepositoryId(found.id),
        name,
        default_branch: found.default_branch.clone(),
        is_private: found.private,
        html_url: found.html_url.clone(),
        hook: None,
        previous_hooks: Vec::new(),
        last_number: 0,
        enabled_at: now,
    }
}

/// The row with what Gogs reports about the repository now. Its name, its default branch and its visibility may have changed.
fn with_facts_of(known: Repository, present: &Repository) -> Repository {
    Repository {
        name: present.name.clone(),
        default_branch: present.default_branch.clone(),
        is_private: present.is_private,
        html_url: present.html_url.clone(),
        ..known
    }
}

fn random_hex<const BYTES: usize>() -> Result<SecretString, SealError> {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| SealError::NoRandom(error.to_string()))?;
    Ok(hex::encode(*bytes).into())
}
