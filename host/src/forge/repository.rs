//! Who the token is, what it may do where.

use beespace_core::gogs::{Repository, User};
use beespace_core::ids::RepositoryName;

use super::client::Purpose;
use super::{Forge, ForgeError};

impl Forge {
    /// Whose token it is.
    ///
    /// # Errors
    /// [`ForgeError`].
    pub async fn user(&self) -> Result<User, ForgeError> {
        let purpose = Purpose { subject: "user of the token".to_owned(), action: "ask who it is".to_owned() };
        self.get(&["user"], purpose).await
    }

    /// A repository, with the permissions of the token's user: the one place where Gogs tells them truly.
    ///
    /// # Errors
    /// [`ForgeError::NotFound`] where it does not exist or is hidden; [`ForgeError::Unauthorized`] where the token is dead; others as
    /// they come.
    pub async fn repository(&self, name: &RepositoryName) -> Result<Repository, ForgeError> {
        let purpose = Purpose { subject: format!("repository {name}"), action: format!("see {name}") };
        let told: Result<Repository, ForgeError> = self.get(&["repos", name.owner(), name.name()], purpose).await;
        let is_admin = |told: &Repository| told.permissions.is_some_and(|permissions| permissions.admin);
        // Gogs takes whoever shows a dead token for a stranger here: it hides what is private and permits nothing else. Who it is tells
        // the one from the other.
        if matches!(&told, Ok(told) if !is_admin(told)) || matches!(&told, Err(ForgeError::NotFound(_))) {
            self.user().await?;
        }
        told
    }
}
