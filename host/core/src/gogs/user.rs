use serde::Deserialize;

use super::null_as_default;

/// A person or an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    pub id: u64,
    /// The login name. Gogs sends it as `login` too.
    pub username: String,
    /// Sanitised for HTML by Gogs (`Acme & Söhne <x>` arrives as `Acme &amp; Söhne `): escaping it once more shows `&amp;`. No
    /// identity, and not the text the person wrote.
    #[serde(default, deserialize_with = "null_as_default")]
    pub full_name: String,
    /// The primary address, a real one; empty for organisations.
    #[serde(default, deserialize_with = "null_as_default")]
    pub email: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub avatar_url: String,
}
