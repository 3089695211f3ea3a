//! The identity of the store: the instance's id, the id of the key that encrypts its secrets, the number of the store's
//! format, and the last look at the clock.

use beespace_core::clock_check::ClockCheck;
use beespace_core::time::Timestamp;

use super::tables::META;
use super::transaction::{Read, Rows as _, Write};
use super::{Store, StoreError};
use crate::encryption::KeyId;

const ID: &[u8] = b"instance";
const KEY: &[u8] = b"key";
const FORMAT_KEY: &[u8] = b"format";
const CLOCK: &[u8] = b"clock";

/// The number of the store's format. An incompatible change of a row or a key increases it. The first format had no number.
const FORMAT: u32 = 2;

impl Read {
    /// The id of the key that encrypts the store's secrets; `None` before the first start has created one.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn key_id(&self) -> Result<Option<KeyId>, StoreError> {
        self.row(META, "meta", KEY)
    }

    /// The last look at the clock; `None` before the first one.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn clock_check(&self) -> Result<Option<ClockCheck>, StoreError> {
        self.row(META, "meta", CLOCK)
    }
}

impl Write<'_> {
    /// Writes the format into a new store, and refuses a store of another format.
    pub(super) fn check_format(&self) -> Result<(), StoreError> {
        let is_new = self.count(META)? == 0;
        match self.row::<u32>(META, "meta", FORMAT_KEY)? {
            Some(FORMAT) => Ok(()),
            Some(format) if format > FORMAT => {
                Err(StoreError::Format("the store was written by a newer version; run that version or a later one"))
            }
            None if is_new => self.put(META, "meta", FORMAT_KEY, &FORMAT),
            _ => Err(StoreError::Format(
                "the store was written by an older development version; development versions do not convert data: move the data \
                 directory away, start again and enable the repositories again",
            )),
        }
    }

    fn ensure_instance_id(&self, new: uuid::Uuid) -> Result<uuid::Uuid, StoreError> {
        if let Some(id) = self.row(META, "meta", ID)? {
            return Ok(id);
        }
        self.put(META, "meta", ID, &new)?;
        Ok(new)
    }
}

impl Store {
    /// The instance's id, created at the first start. The labels of containers contain it.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn instance_id(&self) -> Result<uuid::Uuid, StoreError> {
        let new = uuid::Uuid::now_v7();
        self.write(move |write| write.ensure_instance_id(new)).await
    }

    /// Looks at the clock: compares `now` with the last look, and records it.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn check_clock(&self, now: Timestamp) -> Result<ClockCheck, StoreError> {
        self.write(move |write| {
            let check = ClockCheck::look(write.row(META, "meta", CLOCK)?, now);
            write.put(META, "meta", CLOCK, &check)?;
            Ok(check)
        })
        .await
    }

    /// Stores the id of the key that encrypts secrets.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn put_key_id(&self, id: KeyId) -> Result<(), StoreError> {
        self.write(move |write| write.put(META, "meta", KEY, &id)).await
    }
}
