//! Secrets of the instance and of repositories, sealed: their values are opened for a step that names them and for nothing else.

use beespace_core::ids::RepositoryId;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tables::{Key, SEALED};
use super::transaction::{Order, Read, Rows, Write};
use super::{Store, StoreError, row};
use crate::seal::Sealed;

/// Whose secret it is.
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

    /// What a secret's seal is bound to, so that rows cannot be swapped.
    #[must_use]
    pub fn associated_data(self, name: &str) -> String {
        match self {
            Self::Instance => format!("secret/instance/{name}"),
            Self::Repository(id) => format!("secret/repository/{id}/{name}"),
        }
    }
}

/// A secret as it lies in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secret {
    pub scope: SecretScope,
    pub name: String,
    pub value: Sealed,
    pub changed_at: Timestamp,
}

/// What both kinds of transaction can tell of secrets.
pub trait Secrets: Rows + Sized {
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn secret(&self, scope: SecretScope, name: &str) -> Result<Option<Secret>, StoreError> {
        self.row(SEALED, "sealed", scope.key().text(name).as_slice())
    }
}

impl Secrets for Read {}
impl Secrets for Write<'_> {}

impl Read {
    /// Secrets of a scope, by name.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn secrets(&self, scope: SecretScope) -> Result<Vec<Secret>, StoreError> {
        let mut secrets = Vec::new();
        self.scan(SEALED, scope.key().as_slice(), None, Order::OldestFirst, &mut |_, value| {
            secrets.push(row::decode("sealed", value)?);
            Ok(true)
        })?;
        Ok(secrets)
    }
}

impl Store {
    /// Sets a secret, or replaces it.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn set_secret(&self, secret: Secret) -> Result<(), StoreError> {
        self.write(move |write| write.put(SEALED, "sealed", secret.scope.key().text(&secret.name).as_slice(), &secret)).await
    }

    /// Says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn remove_secret(&self, scope: SecretScope, name: String) -> Result<bool, StoreError> {
        self.write(move |write| write.remove(SEALED, scope.key().text(&name).as_slice())).await
    }
}
