//! The token's user and their permissions.

use beespace_core::gogs::{Issue, Repository, User};
use beespace_core::ids::RepositoryName;

use super::client::Purpose;
use super::{Forge, ForgeError};

impl Forge {
    /// An issue or a pull request: the only source of the labels that it has now.
    ///
    /// # Errors
    /// [`ForgeError`].
    pub async fn issue(&self, name: &RepositoryName, number: u64) -> Result<Issue, ForgeError> {
        let subject = format!("issue {number} of {name}");
        let purpose = Purpose { action: format!("read {subject}"), subject };
        self.get(&["repos", name.owner(), name.name(), "issues", &number.to_string()], purpose).await
    }

    /// The token's user.
    ///
    /// # Errors
    /// [`ForgeError`].
    pub async fn user(&self) -> Result<User, ForgeError> {
        let purpose = Purpose { subject: "user of the token".to_owned(), action: "get the token's user".to_owned() };
        self.get(&["user"], purpose).await
    }

    /// A repository, with the permissions of the token's user. Only this endpoint of Gogs returns the real permissions.
    ///
    /// # Errors
    /// [`ForgeError::NotFound`] if it does not exist or is hidden; [`ForgeError::Unauthorized`] if the token is no longer valid;
    /// otherwise any [`ForgeError`].
    pub async fn repository(&self, name: &RepositoryName) -> Result<Repository, ForgeError> {
        let purpose = Purpose { subject: format!("repository {name}"), action: format!("read {name}") };
        let found: Result<Repository, ForgeError> = self.get(&["repos", name.owner(), name.name()], purpose).await;
        let is_admin = |found: &Repository| found.permissions.is_some_and(|permissions| permissions.admin);
        // Gogs treats an invalid token here as an anonymous request: private repositories are hidden and all permissions are
        // false. Only the request for the user reveals that the token is invalid.
        if matches!(&found, Ok(found) if !is_admin(found)) || matches!(&found, Err(ForgeError::NotFound(_))) {
            self.user().await?;
        }
        found
    }
}
