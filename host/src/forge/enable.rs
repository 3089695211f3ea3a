//! How a repository begins and ceases to build here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beespace_core::gogs;
use beespace_core::ids::{RepositoryId, RepositoryName};
use beespace_core::reason::Reason;
use beespace_core::time::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zeroize::Zeroizing;

use super::{Forge, ForgeError};
use crate::seal::{self, SealError};
use crate::store::repository::{Hook, Repositories as _, Repository};
use crate::store::{Store, StoreError};
use crate::webhook::{PATH_PREFIX, key_digest, secret_aad};

/// How long a pair stays good after a repair: Gogs' queued deliveries carry it.
const OLD_KEY_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes hooks, here and in Gogs.
#[derive(Debug, Clone)]
pub struct Enabler {
    pub forge: Forge,
    pub store: Store,
    pub seal: seal::Key,
    /// Where Gogs reaches this server.
    pub hook_base: Url,
    /// Shared by all clones.
    pub locks: HookLocks,
}

/// One change at a time to the hooks of a repository: each removes what it did not make, so two at once would remove each
/// other's.
#[derive(Debug, Clone, Default)]
pub struct HookLocks(Arc<Mutex<HashMap<RepositoryId, Arc<tokio::sync::Mutex<()>>>>>);

impl HookLocks {
    async fn lock(&self, id: RepositoryId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default());
        turn.lock_owned().await
    }
}

/// Why a repository was not enabled, repaired or disabled.
#[derive(Debug, thiserror::Error)]
pub enum EnableError {
    #[error(transparent)]
    Forge(#[from] ForgeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Gogs lets administrators of a repository alone see and make its hooks.
    #[error("the token's user is no administrator of {0}")]
    NotAdmin(RepositoryName),
    /// Gogs did not take the hook away; here it is good for nothing any more.
    #[error("{name} builds here no more, but its hook may be left in Gogs: {cause}")]
    HookNotRemoved { name: RepositoryName, cause: ForgeError },
    /// Nothing to repair or disable.
    #[error("{0} is not enabled")]
    NotEnabled(RepositoryName),
    /// Gogs let `..` through as a name until 0.14.3.
    #[error(transparent)]
    Name(#[from] beespace_core::ids::InvalidRepositoryName),
}

impl EnableError {
    /// For people: what happened and what to do.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Forge(error) => error.reason(),
            Self::Store(error) => {
                Reason::new("store-trouble", error.to_string()).help("`/readyz?verbose` tells how the store does")
            }
            Self::Seal(error) => Reason::new("seal-trouble", error.to_string()),
            Self::NotAdmin(_) => Reason::new("token-rights", self.to_string())
                .help("add the user in Gogs as a collaborator with the right `admin`"),
            Self::HookNotRemoved { name, .. } => Reason::new("hook-left", self.to_string())
                .help(format!("`beespace repo disable {name}` once more, when Gogs gives in, removes it")),
            Self::NotEnabled(name) => {
                Reason::new("not-enabled", self.to_string()).help(format!("`beespace repo enable {name}` enables it"))
            }
            Self::Name(_) => Reason::new("repository-name", self.to_string()),
        }
    }
}

/// A key and a secret that nobody has seen yet.
struct NewHook {
    url: Url,
    secret: SecretString,
    hook: Hook,
}

impl Enabler {
    /// Makes a repository build here: a hook in Gogs, and the row that knows its secret. One that is enabled and whose hook stands
    /// in Gogs as it should is left as it is.
    ///
    /// # Errors
    /// [`EnableError`]; nothing is half done that a second call would not mend.
    pub async fn enable(&self, name: &RepositoryName, now: Timestamp) -> Result<Repository, EnableError> {
        let told = self.forge.repository(name).await?;
        self.require_admin(&told, name)?;
        let _turn = self.locks.lock(RepositoryId(told.id)).await;
        let known = self.store.read()?.repository(RepositoryId(told.id))?;
        if let Some(known) = known.filter(|known| known.hook.is_some())
            && self.is_hook_intact(&known, name).await?
        {
            let name = repository_name(&told)?;
            return Ok(self.update_row(known.id, move |known| Ok(Repository { name: name.clone(), ..known })).await?);
        }
        self.replace_hook(&told, now).await
    }

    /// Makes a new key and a new secret, and removes every other hook that points here. Every pair before it stays good for a day.
    ///
    /// # Errors
    /// [`EnableError::NotEnabled`] where there is nothing to repair; others as they come.
    pub async fn repair(&self, name: &RepositoryName, now: Timestamp) -> Result<Repository, EnableError> {
        let told = self.forge.repository(name).await?;
        self.require_admin(&told, name)?;
        let _turn = self.locks.lock(RepositoryId(told.id)).await;
        let known = self.store.read()?.repository(RepositoryId(told.id))?;
        known.filter(|known| known.hook.is_some()).ok_or_else(|| EnableError::NotEnabled(name.clone()))?;
        self.replace_hook(&told, now).await
    }

    /// Removes the hooks in Gogs and forgets their secrets. Builds stay. Where Gogs does not answer, or has no such repository any
    /// more, the repository is disabled here all the same; doing it again removes what was left in Gogs.
    ///
    /// # Errors
    /// [`EnableError::NotEnabled`] where it never was; [`EnableError::HookNotRemoved`] where hooks may be left in Gogs.
    pub async fn disable(&self, name: &RepositoryName) -> Result<Repository, EnableError> {
        let known = self.store.read()?.repository_by_name(name)?;
        let id = known.ok_or_else(|| EnableError::NotEnabled(name.clone()))?.id;
        let _turn = self.locks.lock(id).await;
        let known = self.store.read()?.repository(id)?;
        let forge_id = known.and_then(|known| known.hook).map(|hook| hook.forge_id);
        let disabled = self.update_row(id, |known| Ok(Repository { hook: None, previous_hooks: Vec::new(), ..known })).await?;
        let left = |cause| EnableError::HookNotRemoved { name: name.clone(), cause };
        self.remove_other_hooks(name, forge_id, None).await.map_err(left)?;
        Ok(disabled)
    }

    /// In the repository's turn. The row first: a delivery may come before Gogs has answered, and the row must know its secret by then.
    async fn replace_hook(&self, told: &gogs::Repository, now: Timestamp) -> Result<Repository, EnableError> {
        let name = repository_name(told)?;
        let id = RepositoryId(told.id);
        let NewHook { url, secret, hook } = self.generate_hook(id, now)?;
        let before = self.store.read()?.repository(id)?;
        let fresh = new_repository(told, name.clone(), now);
        let (key, begun) = (hook.key, before.clone());
        let row = move |known: Option<Repository>| {
            let known = known.unwrap_or_else(|| fresh.clone());
            let mut previous_hooks = known.previous_hooks.clone();
            previous_hooks.retain(|(_, until)| now < *until);
            previous_hooks.extend(known.hook.clone().map(|old| (old, now + OLD_KEY_GRACE)));
            Ok(Repository { hook: Some(hook.clone()), previous_hooks, name: fresh.name.clone(), ..known })
        };
        self.store.change_repository(id, row).await?;
        let made = match self.forge.create_hook(&name, &url, &secret).await {
            Ok(made) => made,
            Err(error) => {
                let undone = move |known| {
                    let (hook, previous_hooks) =
                        begun.clone().map(|begun| (begun.hook, begun.previous_hooks)).unwrap_or_default();
                    Ok(Repository { hook, previous_hooks, ..known })
                };
                self.update_row(id, undone).await?;
                return Err(error.into());
            }
        };
        let stored = self.update_row(id, move |known| {
            let hook = known.hook.clone().map(|hook| if hook.key == key { Hook { forge_id: made.id, ..hook } } else { hook });
            Ok(Repository { hook, ..known })
        });
        let stored = stored.await?;
        let old = before.and_then(|before| before.hook).map(|hook| hook.forge_id);
        self.remove_other_hooks(&name, old, Some(made.id)).await?;
        Ok(stored)
    }

    async fn update_row(
        &self,
        id: RepositoryId,
        change: impl Fn(Repository) -> Result<Repository, StoreError> + Send + 'static,
    ) -> Result<Repository, StoreError> {
        self.store.change_repository(id, move |known| change(known.ok_or(StoreError::NotFound("repository"))?)).await
    }

    fn require_admin(&self, told: &gogs::Repository, name: &RepositoryName) -> Result<(), EnableError> {
        let is_admin = told.permissions.is_some_and(|permissions| permissions.admin);
        if is_admin { Ok(()) } else { Err(EnableError::NotAdmin(name.clone())) }
    }

    /// Whether the hook that the row knows stands in Gogs and fires for everything.
    async fn is_hook_intact(&self, known: &Repository, name: &RepositoryName) -> Result<bool, ForgeError> {
        let Some(row) = &known.hook else { return Ok(false) };
        let hooks = self.forge.hooks(name).await?;
        Ok(hooks
            .iter()
            .any(|hook| hook.id == row.forge_id && hook.fires_for_all_events() && self.has_current_key(&hook.config.url, row)))
    }

    /// Whether a hook's address is this server's, and its key the one that the row knows.
    #[must_use]
    pub fn has_current_key(&self, url: &str, row: &Hook) -> bool {
        url.strip_prefix(self.hook_url("").as_str()).is_some_and(|key| key_digest(key) == row.key)
    }

    /// Whether a hook's address is one of this server's.
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

fn repository_name(told: &gogs::Repository) -> Result<RepositoryName, EnableError> {
    let owner = told.owner.as_ref().map_or("", |owner| owner.username.as_str());
    Ok(RepositoryName::new(owner, &told.name)?)
}

fn new_repository(told: &gogs::Repository, name: RepositoryName, now: Timestamp) -> Repository {
    Repository {
        id: RepositoryId(told.id),
        name,
        default_branch: told.default_branch.clone(),
        is_private: told.private,
        html_url: told.html_url.clone(),
        hook: None,
        previous_hooks: Vec::new(),
        last_number: 0,
        enabled_at: now,
    }
}

fn random_hex<const BYTES: usize>() -> Result<SecretString, SealError> {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| SealError::NoRandom(error.to_string()))?;
    Ok(hex::encode(*bytes).into())
}
