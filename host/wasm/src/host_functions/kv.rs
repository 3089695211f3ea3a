//! `beespace:plugin/kv`: a small durable memory, apart for each binding.

use std::sync::Arc;

use crate::bindings::notifier::beespace::plugin::kv;
use crate::host_functions::BoxFuture;
use crate::state::State;

/// Bytes of a key.
pub(crate) const MAX_KEY: usize = 256;
/// Bytes of a value.
pub(crate) const MAX_VALUE: usize = 64 << 10;
/// Keys of one page of a listing.
pub(crate) const MAX_PAGE_KEYS: usize = 256;

/// One stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    pub value: Vec<u8>,
    /// From 1; moves with every write.
    pub revision: u64,
}

/// Why the memory did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    #[error("the binding's quota is used up")]
    QuotaExceeded,
    /// Our own trouble; the text goes to the plugin.
    #[error("{0}")]
    Unavailable(String),
}

/// Where the values are kept. `namespace` is the binding's own; a key has 1 to 256 bytes, a value at most 64 KiB.
pub trait KvStore: Send + Sync {
    /// The value, where there is one that has not expired.
    fn get<'a>(&'a self, namespace: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<KvEntry>, KvError>>;

    /// Stores durably. `expected`: none = whatever is there, 0 = nothing may be there, n = this revision must be there. `Ok(None)`
    /// is a lost race, `Ok(Some(revision))` the new revision.
    fn put<'a>(&'a self, namespace: &'a str, key: &'a str, put: KvPut) -> BoxFuture<'a, Result<Option<u64>, KvError>>;

    /// Removes it; that it was not there is fine.
    fn delete<'a>(&'a self, namespace: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), KvError>>;

    /// Sorted keys with this prefix after `after`, at most 256.
    fn list_keys<'a>(
        &'a self,
        namespace: &'a str,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<String>, KvError>>;
}

/// What to store, and on which condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvPut {
    pub value: Vec<u8>,
    pub expected: Option<u64>,
    /// Milliseconds; none: for ever.
    pub ttl_ms: Option<u64>,
}

impl From<KvError> for kv::KvError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::QuotaExceeded => Self::QuotaExceeded,
            KvError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl State {
    /// Owned, because a future must not borrow the whole state.
    fn kv(&self) -> Result<(Arc<str>, Arc<dyn KvStore>), kv::KvError> {
        self.capabilities.kv.clone().ok_or(kv::KvError::Denied)
    }
}

fn check_key(key: &str) -> Result<&str, kv::KvError> {
    match key.len() {
        1..=MAX_KEY => Ok(key),
        0 => Err(kv::KvError::Other("a key has at least one byte".to_owned())),
        _ => Err(kv::KvError::TooLarge),
    }
}

impl kv::Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<kv::Entry>, kv::KvError>> {
        let kv = self.kv();
        Ok(async {
            let (namespace, store) = kv?;
            let entry = store.get(&namespace, check_key(&key)?).await?;
            Ok(entry.map(|entry| kv::Entry { value: entry.value, revision: entry.revision }))
        }
        .await)
    }

    async fn put(
        &mut self,
        key: String,
        value: Vec<u8>,
        expected: Option<u64>,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<Option<u64>, kv::KvError>> {
        let kv = self.kv();
        Ok(async {
            let (namespace, store) = kv?;
            if value.len() > MAX_VALUE {
                return Err(kv::KvError::TooLarge);
            }
            Ok(store.put(&namespace, check_key(&key)?, KvPut { value, expected, ttl_ms }).await?)
        }
        .await)
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), kv::KvError>> {
        let kv = self.kv();
        Ok(async {
            let (namespace, store) = kv?;
            Ok(store.delete(&namespace, check_key(&key)?).await?)
        }
        .await)
    }

    async fn list_keys(&mut self, prefix: String, after: Option<String>) -> wasmtime::Result<Result<Vec<String>, kv::KvError>> {
        let kv = self.kv();
        Ok(async {
            let (namespace, store) = kv?;
            let mut keys = store.list_keys(&namespace, &prefix, after.as_deref()).await?;
            keys.truncate(MAX_PAGE_KEYS);
            Ok(keys)
        }
        .await)
    }
}
