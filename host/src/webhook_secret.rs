//! The key and the secret of a webhook: its URL, and the names under which the store and the encryption know them.
//!
//! The key is the last segment of the webhook's URL, and only Gogs has it: the store knows its digest. The secret signs
//! deliveries (HMAC-SHA256) and is stored encrypted.

use beespace_core::digest::Digest;
use beespace_core::ids::RepositoryId;

/// The route of deliveries, as the router spells it.
pub const ROUTE: &str = "/-/hook/{key}";
/// The path of a webhook's URL, without its key.
pub const PATH_PREFIX: &str = "/-/hook/";

/// The digest by which the store finds the webhook with this key.
#[must_use]
pub fn key_digest(key: &str) -> Digest {
    Digest::of(key)
}

/// The associated data (AAD) that binds an encrypted secret to its repository and its key.
#[must_use]
pub fn secret_aad(repository: RepositoryId, key: Digest) -> String {
    format!("hook/{repository}/{}", key.hex())
}
