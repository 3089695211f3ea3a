//! Lookup by the names that people use, and lists limited to what a caller may see.

use beespace_core::build::Build;
use beespace_core::ids::{BuildId, RepositoryId, RepositoryName};

use super::StoreError;
use super::build::{BuildFilter, Builds as _};
use super::repository::{Repositories as _, Repository};
use super::transaction::Read;
use crate::urls::BuildKey;

/// The repositories that a list may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    All,
    Only(Vec<RepositoryId>),
}

impl Visibility {
    /// Whether a list may show this repository and its builds.
    #[must_use]
    pub fn includes(&self, repository: RepositoryId) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(&repository),
        }
    }
}

impl Read {
    /// The repository with this name; case does not matter.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; others if the store cannot be read.
    pub fn find_repository(&self, owner: &str, name: &str) -> Result<Repository, StoreError> {
        let name = RepositoryName::new(owner, name).map_err(|_| StoreError::NotFound("repository"))?;
        self.repository_by_name(&name)?.ok_or(StoreError::NotFound("repository"))
    }

    /// The build of this repository with this number or id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; others if the store cannot be read.
    pub fn find_build(&self, repository: &Repository, key: BuildKey) -> Result<Build, StoreError> {
        let found = match key {
            BuildKey::Number(number) => self.build_by_number(repository.id, number)?,
            BuildKey::Id(id) => self.build(id)?.filter(|build| build.event.repository.id == repository.id),
        };
        found.ok_or(StoreError::NotFound("build"))
    }

    /// The repository with this name, if it is visible.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also if the repository is not visible; others if the store cannot be read.
    pub fn visible_repository(&self, visibility: &Visibility, name: &RepositoryName) -> Result<Repository, StoreError> {
        let found = self.repository_by_name(name)?.filter(|repository| visibility.includes(repository.id));
        found.ok_or(StoreError::NotFound("repository"))
    }

    /// The visible repositories, by id.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn visible_repositories(&self, visibility: &Visibility) -> Result<Vec<Repository>, StoreError> {
        let mut repositories = self.repositories()?;
        repositories.retain(|repository| visibility.includes(repository.id));
        Ok(repositories)
    }

    /// The newest builds of the visible repositories, newest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn visible_builds(&self, visibility: &Visibility, filter: BuildFilter, limit: usize) -> Result<Vec<Build>, StoreError> {
        let repositories = match (visibility, filter.repository) {
            (_, Some(repository)) if !visibility.includes(repository) => return Ok(Vec::new()),
            (Visibility::All, _) | (_, Some(_)) => return self.builds(filter, limit),
            (Visibility::Only(repositories), None) => repositories,
        };
        let mut ids: Vec<BuildId> = Vec::new();
        for repository in repositories {
            ids.extend(self.build_ids(BuildFilter { repository: Some(*repository), ..filter }, limit)?);
        }
        // A build id begins with its time, so the newest builds have the greatest ids.
        ids.sort_unstable_by(|one, other| other.cmp(one));
        ids.truncate(limit);
        self.builds_of_ids(&ids)
    }
}
