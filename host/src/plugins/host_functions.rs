//! The resources that the host functions give to notifiers: the secrets of plugins and a small key-value store.

use std::sync::Arc;
use std::time::Duration;

use beespace_core::time::Timestamp;
use beespace_wasm::{BoxFuture, KvEntry, KvError, KvPut, KvStore, SecretSource, SecretValue};

use crate::clock::now;
use crate::encryption::Key;
use crate::store::kv::{PutOutcome, Values as _};
use crate::store::secret::{SecretScope, Secrets as _};
use crate::store::{Store, StoreError};

/// Maximum number of keys in one page of a listing.
const MAX_PAGE_KEYS: usize = 256;

/// The secrets of plugins. A secret is decrypted when a call needs it.
pub(super) struct PluginSecrets {
    pub(super) store: Store,
    pub(super) key: Arc<Key>,
    /// The hosts for which placeholders are replaced by values: all hosts that the binding may reach.
    pub(super) hosts: Vec<String>,
}

impl SecretSource for PluginSecrets {
    fn secret(&self, name: &str) -> Result<Option<SecretValue>, String> {
        let scope = SecretScope::Plugins;
        let row = self.store.read().and_then(|read| read.secret(scope, name)).map_err(|error| error.to_string())?;
        let Some(row) = row else { return Ok(None) };
        let value = self.key.open(&scope.associated_data(name), &row.value).map_err(|error| error.to_string())?;
        Ok(Some(SecretValue { value, hosts: self.hosts.clone() }))
    }
}

/// The key-value pairs in the store, with one namespace per binding.
pub(super) struct StoredValues {
    pub(super) store: Store,
}

/// The prefix of all namespaces. Only notifiers have key-value pairs, and their names are unique.
const KIND: &str = "notifier";

fn unavailable(error: StoreError) -> KvError {
    KvError::Unavailable(error.to_string())
}

impl KvStore for StoredValues {
    fn get<'a>(&'a self, namespace: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<KvEntry>, KvError>> {
        Box::pin(async move {
            let entry = self.store.read().and_then(|read| read.kv(KIND, namespace, key, now())).map_err(unavailable)?;
            Ok(entry.map(|entry| KvEntry { value: entry.value, revision: entry.revision }))
        })
    }

    fn put<'a>(&'a self, namespace: &'a str, key: &'a str, put: KvPut) -> BoxFuture<'a, Result<Option<u64>, KvError>> {
        Box::pin(async move {
            let at: Timestamp = now();
            let entry = (put.value, put.ttl_ms.map(|ttl| at + Duration::from_millis(ttl)));
            let stored = self.store.kv_put(KIND.to_owned(), namespace.to_owned(), key.to_owned(), entry, put.expected, at).await;
            match stored.map_err(unavailable)? {
                PutOutcome::Stored(revision) => Ok(Some(revision)),
                PutOutcome::Conflict => Ok(None),
                PutOutcome::QuotaExceeded => Err(KvError::QuotaExceeded),
            }
        })
    }

    fn delete<'a>(&'a self, namespace: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), KvError>> {
        Box::pin(
            async move { self.store.kv_delete(KIND.to_owned(), namespace.to_owned(), key.to_owned()).await.map_err(unavailable) },
        )
    }

    fn list_keys<'a>(
        &'a self,
        namespace: &'a str,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<String>, KvError>> {
        Box::pin(async move {
            self.store
                .read()
                .and_then(|read| read.kv_keys(KIND, namespace, prefix, after, now(), MAX_PAGE_KEYS))
                .map_err(unavailable)
        })
    }
}
