//! The key-value store of notifiers.

use super::BoxFuture;

/// One stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    pub value: Vec<u8>,
    /// The revision: 1 after the first write, increased by every write.
    pub revision: u64,
}

/// Why an operation of the key-value store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    #[error("the key-value quota of the binding is exhausted")]
    QuotaExceeded,
    /// An internal error. The text is passed to the plugin.
    #[error("{0}")]
    Unavailable(String),
}

/// A key-value store. Each binding has its own `namespace`. A key has 1 to 256 bytes, a value at most 64 KiB.
pub trait KvStore: Send + Sync {
    /// Returns the value if it exists and has not expired.
    fn get<'a>(&'a self, namespace: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<KvEntry>, KvError>>;

    /// Stores a value durably, if the condition in [`KvPut::expected`] holds. Returns the new revision, or `None` if it does not.
    fn put<'a>(&'a self, namespace: &'a str, key: &'a str, put: KvPut) -> BoxFuture<'a, Result<Option<u64>, KvError>>;

    /// Deletes a value. A missing value is not an error.
    fn delete<'a>(&'a self, namespace: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), KvError>>;

    /// Lists at most 256 keys with this prefix that come after `after`, sorted.
    fn list_keys<'a>(
        &'a self,
        namespace: &'a str,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<String>, KvError>>;
}

/// A value to store, with a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvPut {
    pub value: Vec<u8>,
    /// The condition. `None`: unconditional; 0: the key must not exist; n: the key must have revision n.
    pub expected: Option<u64>,
    /// Time to live in milliseconds. `None`: unlimited.
    pub ttl_ms: Option<u64>,
}
