use serde::Deserialize;

use super::null_as_default;

/// A person or an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    pub id: u64,
    /// The login name. Gogs also sends it as `login`.
    pub username: String,
    /// Sanitized for HTML by Gogs (`Acme & Söhne <x>` arrives as `Acme &amp; Söhne `), so escaping it again shows `&amp;`.
    /// Neither an identity nor the text that the person entered.
    #[serde(default, deserialize_with = "null_as_default")]
    pub full_name: String,
    /// The primary email address; empty for organisations.
    #[serde(default, deserialize_with = "null_as_default")]
    pub email: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub avatar_url: String,
}
