//! The key-value storage of plugins: separate for each plugin and binding, with compare-and-swap, expiry and a quota.

use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tables::{KV, Key};
use super::transaction::{Order, Read, Rows, Write};
use super::{Store, StoreError, row};

/// The maximum size of all keys and values of one binding, in bytes.
pub const QUOTA_BYTES: usize = 1 << 20;
/// The maximum number of keys of one binding.
pub const QUOTA_KEYS: usize = 1_000;

/// A plugin's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvRow {
    pub value: Vec<u8>,
    /// Starts at 1 and increases with every change.
    pub revision: u64,
    pub expires_at: Option<Timestamp>,
}

impl KvRow {
    /// Whether the entry has not expired.
    fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

/// The outcome of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    Stored(u64),
    /// The entry's revision is not the expected one.
    Conflict,
    QuotaExceeded,
}

fn prefix(plugin: &str, binding: &str) -> Key {
    Key::new().text(plugin).text(binding)
}

/// Reading values of plugins, in both kinds of transaction.
pub trait Values: Rows + Sized {
    /// The entry of `key`, unless it has expired.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn kv(&self, plugin: &str, binding: &str, key: &str, now: Timestamp) -> Result<Option<KvRow>, StoreError> {
        let entry: Option<KvRow> = self.row(KV, "kv", prefix(plugin, binding).text(key).as_slice())?;
        Ok(entry.filter(|entry| entry.is_live(now)))
    }
}

impl Values for Read {}
impl Values for Write<'_> {}

impl Read {
    /// At most `limit` keys that start with `start` and come after `after`, sorted.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn kv_keys(
        &self,
        plugin: &str,
        binding: &str,
        start: &str,
        after: Option<&str>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let own = prefix(plugin, binding);
        let from = own.clone().bytes(start.as_bytes());
        let after = after.map(|key| own.clone().text(key));
        let mut keys = Vec::new();
        self.scan(KV, from.as_slice(), after.as_ref().map(Key::as_slice), Order::OldestFirst, &mut |key, value| {
            let entry: KvRow = row::decode("kv", value)?;
            if entry.is_live(now) {
                let name = key.get(own.as_slice().len()..key.len() - 1).unwrap_or_default();
                keys.push(String::from_utf8_lossy(name).into_owned());
            }
            Ok(keys.len() < limit)
        })?;
        Ok(keys)
    }
}

impl Write<'_> {
    /// Removes expired entries, so that they do not count against the quota.
    fn kv_expire(&self, plugin: &str, binding: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut expired = Vec::new();
        self.scan(KV, prefix(plugin, binding).as_slice(), None, Order::OldestFirst, &mut |key, value| {
            let entry: KvRow = row::decode("kv", value)?;
            if !entry.is_live(now) {
                expired.push(key.to_vec());
            }
            Ok(true)
        })?;
        expired.iter().try_for_each(|key| self.remove(KV, key).map(drop))
    }

    fn kv_usage(&self, plugin: &str, binding: &str, except: &[u8]) -> Result<(usize, usize), StoreError> {
        let (mut keys, mut bytes) = (0, 0);
        self.scan(KV, prefix(plugin, binding).as_slice(), None, Order::OldestFirst, &mut |key, value| {
            if key != except {
                keys += 1;
                bytes += key.len() + value.len();
            }
            Ok(true)
        })?;
        Ok((keys, bytes))
    }
}

impl Store {
    /// Sets a value. `expected` is the revision that the entry must have: `None` for any, 0 for an entry that does not exist.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn kv_put(
        &self,
        plugin: String,
        binding: String,
        key: String,
        entry: (Vec<u8>, Option<Timestamp>),
        expected: Option<u64>,
        now: Timestamp,
    ) -> Result<PutOutcome, StoreError> {
        self.write(move |write| {
            let current = write.kv(&plugin, &binding, &key, now)?.map_or(0, |entry| entry.revision);
            if expected.is_some_and(|expected| expected != current) {
                return Ok(PutOutcome::Conflict);
            }
            let entry_key = prefix(&plugin, &binding).text(&key);
            write.kv_expire(&plugin, &binding, now)?;
            let (keys, bytes) = write.kv_usage(&plugin, &binding, entry_key.as_slice())?;
            let (value, expires_at) = entry.clone();
            if keys + 1 > QUOTA_KEYS || bytes + entry_key.as_slice().len() + value.len() > QUOTA_BYTES {
                return Ok(PutOutcome::QuotaExceeded);
            }
            let revision = current + 1;
            write.put(KV, "kv", entry_key.as_slice(), &KvRow { value, revision, expires_at })?;
            Ok(PutOutcome::Stored(revision))
        })
        .await
    }

    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn kv_delete(&self, plugin: String, binding: String, key: String) -> Result<(), StoreError> {
        self.write(move |write| write.remove(KV, prefix(&plugin, &binding).text(&key).as_slice()).map(drop)).await
    }
}
