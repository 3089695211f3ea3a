//! What the instance is: its id, and which key seals what is secret in the store.

use super::tables::META;
use super::transaction::{Read, Rows as _, Write};
use super::{Store, StoreError};
use crate::seal::KeyId;

const ID: &[u8] = b"instance";
const KEY: &[u8] = b"key";

impl Read {
    /// The key that the store is sealed with; none before the first start has made one.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn key_id(&self) -> Result<Option<KeyId>, StoreError> {
        self.row(META, "meta", KEY)
    }
}

impl Write<'_> {
    fn instance_id(&self) -> Result<uuid::Uuid, StoreError> {
        if let Some(id) = self.row(META, "meta", ID)? {
            return Ok(id);
        }
        let id = uuid::Uuid::now_v7();
        self.put(META, "meta", ID, &id)?;
        Ok(id)
    }
}

impl Store {
    /// The instance's id, made at first start: labels of containers carry it.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn instance_id(&self) -> Result<uuid::Uuid, StoreError> {
        self.write(|write| write.instance_id()).await
    }

    /// Remembers which key seals what is secret here.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn put_key_id(&self, id: KeyId) -> Result<(), StoreError> {
        self.write(move |write| write.put(META, "meta", KEY, &id)).await
    }
}
