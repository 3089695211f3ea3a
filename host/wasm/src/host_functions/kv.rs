//! `beespace:plugin/kv`: a small durable key-value store, separate for each binding.

use std::sync::Arc;

use crate::bindings::notifier::beespace::plugin::kv;
use crate::ports::kv::{KvError, KvPut, KvStore};
use crate::state::State;

/// Maximum size of a key in bytes.
pub(crate) const MAX_KEY: usize = 256;
/// Maximum size of a value in bytes.
pub(crate) const MAX_VALUE: usize = 64 << 10;
/// Maximum number of keys in one page of a listing.
pub(crate) const MAX_PAGE_KEYS: usize = 256;

impl From<KvError> for kv::KvError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::QuotaExceeded => Self::QuotaExceeded,
            KvError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl State {
    /// Returns owned values, because a future must not borrow the whole state.
    fn kv(&self) -> Result<(Arc<str>, Arc<dyn KvStore>), kv::KvError> {
        self.resources.kv.clone().ok_or(kv::KvError::Denied)
    }
}

fn check_key(key: &str) -> Result<&str, kv::KvError> {
    match key.len() {
        1..=MAX_KEY => Ok(key),
        0 => Err(kv::KvError::Other("a key must have at least one byte".to_owned())),
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
