//! The users and owners of the fake Gogs.

use serde::Serialize;

/// A user, or an organisation, which cannot sign in.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) email: String,
    /// 40 lower-case hex digits, as in Gogs. An organisation has none.
    pub(super) token: Option<String>,
    /// A site administrator has owner rights in every repository.
    pub(super) is_admin: bool,
}

/// A user as Gogs shows it (`internal/route/api/v1/types/user.go`).
#[derive(Debug, Clone, Serialize)]
pub struct UserObject {
    pub id: u64,
    pub username: String,
    pub login: String,
    pub full_name: String,
    pub email: String,
    pub avatar_url: String,
}

impl User {
    pub(super) fn object(&self, base: &str) -> UserObject {
        UserObject {
            id: self.id,
            username: self.name.clone(),
            login: self.name.clone(),
            full_name: String::new(),
            email: self.email.clone(),
            avatar_url: format!("{base}/avatars/{}", self.id),
        }
    }
}
