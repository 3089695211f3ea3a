//! The secrets of the instance and of repositories, encrypted. A value is decrypted only for a step that names the secret.

use beespace_core::ids::RepositoryId;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tables::{Key, SECRET};
use super::transaction::{Order, Read, Rows, Write};
use super::{Store, StoreError, row};
use crate::seal::Sealed;

/// The owner of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretScope {
    Instance,
    Repository(RepositoryId),
}

impl SecretScope {
    fn key(self) -> Key {
        match self {
            Self::Instance => Key::new().byte(0),
            Self::Repository(id) => Key::new().byte(1).u64(id.0),
        }
    }

    /// The associated data of the encryption. It binds the value to its owner and name, so rows cannot be swapped.
    #[must_use]
    pub fn associated_data(self, name: &str) -> String {
        match self {
            Self::Instance => format!("secret/instance/{name}"),
            Self::Repository(id) => format!("secret/repository/{id}/{name}"),
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
}

/// Reading secrets, in both kinds of transaction.
pub trait Secrets: Rows + Sized {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn secret(&self, scope: SecretScope, name: &str) -> Result<Option<Secret>, StoreError> {
        self.row(SECRET, "secret", scope.key().text(name).as_slice())
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
}

impl Store {
    /// Sets or replaces a secret.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn set_secret(&self, secret: Secret) -> Result<(), StoreError> {
        self.write(move |write| write.put(SECRET, "secret", secret.scope.key().text(&secret.name).as_slice(), &secret)).await
    }

    /// Removes a secret. Returns whether it existed.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn remove_secret(&self, scope: SecretScope, name: String) -> Result<bool, StoreError> {
        self.write(move |write| write.remove(SECRET, scope.key().text(&name).as_slice())).await
    }
}
