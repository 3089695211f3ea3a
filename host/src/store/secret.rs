//! The secrets of the instance, of repositories and of plugins, encrypted. A value is decrypted only for a step or a plugin that
//! names the secret.
//!
//! A value that is replaced or removed is kept for a while: a container that began with it may still print it, and its log must
//! mask it after a restart, too.

use std::time::Duration;

use beespace_core::ids::RepositoryId;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tables::{Key, META, SECRET};
use super::transaction::{Order, Read, Rows, Write};
use super::{Store, StoreError, row};
use crate::encryption::Sealed;

/// The owner of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretScope {
    Instance,
    Repository(RepositoryId),
    /// The plugins of the instance. No pipeline can open these secrets.
    Plugins,
}

impl SecretScope {
    fn key(self) -> Key {
        self.append_to(Key::new())
    }

    fn append_to(self, key: Key) -> Key {
        match self {
            Self::Instance => key.byte(0),
            Self::Repository(id) => key.byte(1).u64(id.0),
            Self::Plugins => key.byte(2),
        }
    }

    /// The associated data of the encryption. It binds the value to its owner and name, so rows cannot be swapped.
    #[must_use]
    pub fn associated_data(self, name: &str) -> String {
        match self {
            Self::Instance => format!("secret/instance/{name}"),
            Self::Repository(id) => format!("secret/repository/{id}/{name}"),
            Self::Plugins => format!("secret/plugins/{name}"),
        }
    }
}

/// A stored secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secret {
    pub scope: SecretScope,
    pub name: String,
    pub value: Sealed,
    pub changed_at: Timestamp,
    /// When it was moved here from the secrets of the instance; `None` if it was set here.
    #[serde(default)]
    pub moved_at: Option<Timestamp>,
}

/// An earlier value of a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplacedSecret {
    pub value: Sealed,
    pub replaced_at: Timestamp,
}

/// The key of the replaced values of a secret; the time of the replacement follows.
fn replaced_key(scope: SecretScope, name: &str) -> Key {
    scope.append_to(replaced_prefix()).text(name)
}

/// Differs from the first byte of every [`SecretScope::key`].
fn replaced_prefix() -> Key {
    Key::new().byte(128)
}

/// Marks a store whose plugins' secrets have a scope of their own.
const PLUGIN_SECRETS_MOVED: &[u8] = b"plugin_secrets_moved";

/// Reading secrets, in both kinds of transaction.
pub trait Secrets: Rows + Sized {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn secret(&self, scope: SecretScope, name: &str) -> Result<Option<Secret>, StoreError> {
        self.row(SECRET, "secret", scope.key().text(name).as_slice())
    }

    /// Whether the secrets of plugins have been moved to their own scope.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn plugin_secrets_moved(&self) -> Result<bool, StoreError> {
        Ok(self.row::<bool>(META, "meta", PLUGIN_SECRETS_MOVED)?.is_some())
    }
}

impl Secrets for Read {}
impl Secrets for Write<'_> {}

impl Read {
    /// The secrets of a scope, by name.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn secrets(&self, scope: SecretScope) -> Result<Vec<Secret>, StoreError> {
        let mut secrets = Vec::new();
        self.scan(SECRET, scope.key().as_slice(), None, Order::OldestFirst, &mut |_, value| {
            secrets.push(row::decode("secret", value)?);
            Ok(true)
        })?;
        Ok(secrets)
    }

    /// The values of a secret that were replaced or removed at `since` or later.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn replaced_secrets(&self, scope: SecretScope, name: &str, since: Timestamp) -> Result<Vec<ReplacedSecret>, StoreError> {
        let mut replaced: Vec<ReplacedSecret> = Vec::new();
        self.scan(SECRET, replaced_key(scope, name).as_slice(), None, Order::OldestFirst, &mut |_, value| {
            replaced.push(row::decode("secret", value)?);
            Ok(true)
        })?;
        replaced.retain(|one| one.replaced_at >= since);
        Ok(replaced)
    }
}

impl Write<'_> {
    /// Sets or replaces a secret; an earlier value is kept for [`Store::forget_replaced_secrets`].
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub fn put_secret(&self, secret: &Secret) -> Result<(), StoreError> {
        self.keep_replaced(secret.scope, &secret.name, secret.changed_at)?;
        self.put(SECRET, "secret", secret.scope.key().text(&secret.name).as_slice(), secret)
    }

    /// Moves instance secrets to the scope of plugins: each is the secret as it is stored there. Marks the store, so that this
    /// happens once.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub fn move_secrets_to_plugins(&self, moved: &[Secret], at: Timestamp) -> Result<(), StoreError> {
        for secret in moved {
            self.put_secret(secret)?;
            self.delete_secret(SecretScope::Instance, &secret.name, at)?;
        }
        self.put(META, "meta", PLUGIN_SECRETS_MOVED, &true)
    }

    fn delete_secret(&self, scope: SecretScope, name: &str, at: Timestamp) -> Result<bool, StoreError> {
        self.keep_replaced(scope, name, at)?;
        self.remove(SECRET, scope.key().text(name).as_slice())
    }

    fn keep_replaced(&self, scope: SecretScope, name: &str, at: Timestamp) -> Result<(), StoreError> {
        let Some(old) = self.secret(scope, name)? else { return Ok(()) };
        let replaced = ReplacedSecret { value: old.value, replaced_at: at };
        self.put(SECRET, "secret", replaced_key(scope, name).u64(at.0).as_slice(), &replaced)
    }

    fn remove_replaced(&self, before: Timestamp) -> Result<(), StoreError> {
        let mut expired = Vec::new();
        self.scan(SECRET, replaced_prefix().as_slice(), None, Order::OldestFirst, &mut |key, value| {
            if row::decode::<ReplacedSecret>("secret", value)?.replaced_at < before {
                expired.push(key.to_vec());
            }
            Ok(true)
        })?;
        expired.iter().try_for_each(|key| self.remove(SECRET, key).map(drop))
    }
}

impl Store {
    /// Sets or replaces a secret.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn set_secret(&self, secret: Secret) -> Result<(), StoreError> {
        self.write(move |write| write.put_secret(&secret)).await
    }

    /// Removes a secret. Returns whether it existed.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn remove_secret(&self, scope: SecretScope, name: String, at: Timestamp) -> Result<bool, StoreError> {
        self.write(move |write| write.delete_secret(scope, &name, at)).await
    }

    /// Removes values that were replaced or removed more than `kept` before `now`.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn forget_replaced_secrets(&self, kept: Duration, now: Timestamp) -> Result<(), StoreError> {
        let before = Timestamp(now.0.saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)));
        self.write(move |write| write.remove_replaced(before)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::Key as SealKey;

    fn secret(key: &SealKey, scope: SecretScope, value: &str, at: u64) -> Secret {
        let sealed = key.seal(&scope.associated_data("token"), value.as_bytes()).unwrap();
        Secret { scope, name: "token".to_owned(), value: sealed, changed_at: Timestamp(at), moved_at: None }
    }

    fn values(key: &SealKey, replaced: &[ReplacedSecret]) -> Vec<String> {
        let open = |one: &ReplacedSecret| key.open(&SecretScope::Instance.associated_data("token"), &one.value).unwrap();
        replaced.iter().map(|one| String::from_utf8(open(one).to_vec()).unwrap()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn replaced_and_removed_values_are_kept_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let key = SealKey::load_or_create(&folder.path().join("key"), None).unwrap();
        for (value, at) in [("first", 1), ("second", 10)] {
            store.set_secret(secret(&key, SecretScope::Instance, value, at)).await.unwrap();
        }
        assert!(store.remove_secret(SecretScope::Instance, "token".to_owned(), Timestamp(20)).await.unwrap());
        let replaced = |since| store.read().unwrap().replaced_secrets(SecretScope::Instance, "token", Timestamp(since)).unwrap();
        assert_eq!(values(&key, &replaced(10)), ["first", "second"], "a stage that began at 10 may have had either");
        assert_eq!(values(&key, &replaced(11)), ["second"]);
        assert!(store.read().unwrap().secrets(SecretScope::Instance).unwrap().is_empty(), "they are not secrets of the scope");
        store.forget_replaced_secrets(Duration::from_millis(5), Timestamp(20)).await.unwrap();
        assert_eq!(values(&key, &replaced(0)), ["second"]);
    }
}
