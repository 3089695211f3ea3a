//! Browser sessions. Only a hash of the token is stored, so an attacker who reads the store cannot sign in.

use beespace_core::digest::Digest;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tables::SESSION;
use super::transaction::{Order, Read, Rows};
use super::{Store, StoreError, row};

/// A signed-in browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The kind of the identity that this session authenticates, as text: a kind that this version does not know is refused.
    pub principal_kind: String,
    /// The id of that identity.
    pub principal_id: String,
    /// The fingerprint of the admin token with which the session began. The session ends when the token is replaced.
    #[serde(default)]
    pub token_fingerprint: Option<Digest>,
    pub created_at: Timestamp,
    pub last_seen_at: Timestamp,
}

impl Read {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn session(&self, token: Digest) -> Result<Option<Session>, StoreError> {
        self.row(SESSION, "session", &token.0)
    }
}

impl Store {
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn put_session(&self, token: Digest, session: Session) -> Result<(), StoreError> {
        self.write(move |write| write.put(SESSION, "session", &token.0, &session)).await
    }

    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn remove_session(&self, token: Digest) -> Result<(), StoreError> {
        self.write(move |write| write.remove(SESSION, &token.0).map(drop)).await
    }

    /// Removes sessions last used before `idle` or created before `oldest`.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn expire_sessions(&self, idle: Timestamp, oldest: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            let mut old = Vec::new();
            write.scan(SESSION, &[], None, Order::OldestFirst, &mut |key, value| {
                let session: Session = row::decode("session", value)?;
                if session.last_seen_at < idle || session.created_at < oldest {
                    old.push(key.to_vec());
                }
                Ok(true)
            })?;
            old.iter().try_for_each(|key| write.remove(SESSION, key).map(drop))
        })
        .await
    }
}
