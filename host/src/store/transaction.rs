//! Read and write transactions. The modules of the store add their methods to [`Read`] and [`Write`], so one transaction can
//! span several of them.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use beespace_core::change_event::ChangeEvent;
use redb::{ReadableDatabase as _, ReadableTableMetadata as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tables::{ALL, Table};
use super::{Queue, StoreError, row};

pub(super) fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// A count of operations since the store was opened. It measures the cost of a request independently of the machine's load.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A read transaction: one consistent view.
pub struct Read {
    transaction: redb::ReadTransaction,
    rows_read: Counter,
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Read")
    }
}

/// A write transaction. It is durable when [`Store::write`](super::Store::write) returns.
pub struct Write<'t> {
    transaction: &'t redb::WriteTransaction,
    rows_read: Counter,
    pub(super) events: RefCell<Vec<ChangeEvent>>,
    pub(super) woken: Cell<[bool; Queue::COUNT]>,
    /// The size of the values written so far, in bytes.
    pub(super) bytes: Cell<usize>,
    /// Whether there is anything to commit.
    pub(super) has_changed: Cell<bool>,
    /// The notifier bindings that receive notices.
    pub(super) notifiers: Arc<Vec<String>>,
}

impl std::fmt::Debug for Write<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Write")
    }
}

/// The direction of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    NewestFirst,
}

/// Receives a key and its value. Returns whether the scan continues.
pub type RowVisitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError>;

/// The operations of both kinds of transaction.
pub trait Rows {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError`] if the file or the row cannot be read.
    fn bytes(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The number of rows of a table. It is stored with the table, so no row is read.
    ///
    /// # Errors
    /// As [`Rows::bytes`].
    fn count(&self, table: Table) -> Result<u64, StoreError>;

    /// Passes the rows whose key starts with `prefix`, in `order` and beginning after the key `after`, to `visit` until it
    /// returns `false`.
    ///
    /// # Errors
    /// As [`Rows::bytes`].
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: RowVisitor<'_>,
    ) -> Result<(), StoreError>;

    /// The decoded row of `key`.
    ///
    /// # Errors
    /// As [`Rows::bytes`].
    fn row<T: DeserializeOwned>(&self, table: Table, name: &'static str, key: &[u8]) -> Result<Option<T>, StoreError>
    where
        Self: Sized,
    {
        self.bytes(table, key)?.map(|bytes| row::decode(name, &bytes)).transpose()
    }

    /// At most `limit` keys that start with `prefix`.
    ///
    /// # Errors
    /// As [`Rows::bytes`].
    fn keys(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError>
    where
        Self: Sized,
    {
        let mut keys = Vec::new();
        if limit > 0 {
            self.scan(table, prefix, after, order, &mut |key, _| {
                keys.push(key.to_vec());
                Ok(keys.len() < limit)
            })?;
        }
        Ok(keys)
    }
}

/// The smallest key greater than all keys that start with `prefix`. `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn get(
    table: &impl redb::ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
    rows_read: &Counter,
) -> Result<Option<Vec<u8>>, StoreError> {
    rows_read.add_one();
    Ok(table.get(key).map_err(unavailable)?.map(|value| value.value().to_vec()))
}

/// The rows of a scan: those whose key starts with `prefix`, in `order` and beginning after the key `after`.
struct KeyRange<'k> {
    prefix: &'k [u8],
    after: Option<&'k [u8]>,
    order: Order,
}

fn scan_table(
    table: &impl redb::ReadableTable<&'static [u8], &'static [u8]>,
    keys: KeyRange<'_>,
    rows_read: &Counter,
    visit: RowVisitor<'_>,
) -> Result<(), StoreError> {
    use std::ops::Bound;
    let KeyRange { prefix, after, order } = keys;
    let end = after_prefix(prefix);
    let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let range: (Bound<&[u8]>, Bound<&[u8]>) = match (order, after) {
        (Order::OldestFirst, Some(after)) => (Bound::Excluded(after), upper),
        (Order::NewestFirst, Some(after)) => (Bound::Included(prefix), Bound::Excluded(after)),
        (_, None) => (Bound::Included(prefix), upper),
    };
    let mut range = table.range::<&[u8]>(range).map_err(unavailable)?;
    loop {
        let entry = match order {
            Order::OldestFirst => range.next(),
            Order::NewestFirst => range.next_back(),
        };
        let Some(entry) = entry else { return Ok(()) };
        rows_read.add_one();
        let (key, value) = entry.map_err(unavailable)?;
        if !visit(key.value(), value.value())? {
            return Ok(());
        }
    }
}

impl Read {
    pub(super) fn begin(database: &redb::Database, rows_read: &Counter) -> Result<Self, StoreError> {
        let transaction = database.begin_read().map_err(unavailable)?;
        Ok(Self { transaction, rows_read: rows_read.clone() })
    }

    fn table(&self, table: Table) -> Result<redb::ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        self.transaction.open_table(table).map_err(unavailable)
    }
}

impl Rows for Read {
    fn bytes(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&self.table(table)?, key, &self.rows_read)
    }

    fn count(&self, table: Table) -> Result<u64, StoreError> {
        self.table(table)?.len().map_err(unavailable)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: RowVisitor<'_>,
    ) -> Result<(), StoreError> {
        scan_table(&self.table(table)?, KeyRange { prefix, after, order }, &self.rows_read, visit)
    }
}

impl Rows for Write<'_> {
    fn bytes(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&self.table(table)?, key, &self.rows_read)
    }

    fn count(&self, table: Table) -> Result<u64, StoreError> {
        self.table(table)?.len().map_err(unavailable)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: RowVisitor<'_>,
    ) -> Result<(), StoreError> {
        scan_table(&self.table(table)?, KeyRange { prefix, after, order }, &self.rows_read, visit)
    }
}

impl<'t> Write<'t> {
    pub(super) fn new(transaction: &'t redb::WriteTransaction, rows_read: &Counter, notifiers: Arc<Vec<String>>) -> Self {
        Self {
            transaction,
            rows_read: rows_read.clone(),
            events: RefCell::default(),
            woken: Cell::default(),
            bytes: Cell::default(),
            has_changed: Cell::default(),
            notifiers,
        }
    }

    fn table(&self, table: Table) -> Result<redb::Table<'t, &'static [u8], &'static [u8]>, StoreError> {
        self.transaction.open_table(table).map_err(unavailable)
    }

    pub(super) fn create_tables(&self) -> Result<(), StoreError> {
        self.has_changed.set(true);
        ALL.iter().try_for_each(|table| self.table(*table).map(drop))
    }

    pub(super) fn put_bytes(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.bytes.set(self.bytes.get().saturating_add(value.len()));
        self.has_changed.set(true);
        self.table(table)?.insert(key, value).map_err(unavailable)?;
        Ok(())
    }

    pub(super) fn put<T: Serialize>(&self, table: Table, name: &'static str, key: &[u8], value: &T) -> Result<(), StoreError> {
        self.put_bytes(table, key, &row::encode(name, value)?)
    }

    /// Returns whether the row existed.
    pub(super) fn remove(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        let was_there = self.table(table)?.remove(key).map_err(unavailable)?.is_some();
        self.has_changed.set(self.has_changed.get() || was_there);
        Ok(was_there)
    }

    /// Sends the event to subscribers after the commit.
    pub(super) fn announce(&self, event: ChangeEvent) {
        self.events.borrow_mut().push(event);
    }

    /// Wakes the worker of `queue` after the commit.
    pub(super) fn wake(&self, queue: Queue) {
        let mut woken = self.woken.get();
        if let Some(flag) = woken.get_mut(queue as usize) {
            *flag = true;
        }
        self.woken.set(woken);
    }
}
