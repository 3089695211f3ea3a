//! Lookup by the names that people use, and lists limited to what a caller may see.

use std::collections::BinaryHeap;

use beespace_core::build::Build;
use beespace_core::ids::{BuildId, RepositoryId, RepositoryName};

use super::StoreError;
use super::build::{BuildFilter, Builds as _};
use super::repository::{Repositories as _, Repository};
use super::status_filter::StatusFilter;
use super::transaction::Read;
use crate::urls::BuildKey;

/// The repositories that a list may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    All,
    /// Those that are public in Gogs.
    Public,
    Only(Vec<RepositoryId>),
}

/// A list of builds.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildList {
    /// `None` for the builds of all repositories.
    pub repository: Option<RepositoryId>,
    pub statuses: StatusFilter,
    /// The last id of the previous page.
    pub after: Option<BuildId>,
}

impl Visibility {
    /// Whether a list may show this repository and its builds.
    #[must_use]
    pub fn includes(&self, repository: &Repository) -> bool {
        match self {
            Self::All => true,
            Self::Public => !repository.is_private,
            Self::Only(ids) => ids.contains(&repository.id),
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
        let found = self.repository_by_name(name)?.filter(|repository| visibility.includes(repository));
        found.ok_or(StoreError::NotFound("repository"))
    }

    /// The visible repositories, by id.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn visible_repositories(&self, visibility: &Visibility) -> Result<Vec<Repository>, StoreError> {
        let mut repositories = self.repositories()?;
        repositories.retain(|repository| visibility.includes(repository));
        Ok(repositories)
    }

    /// The builds of a list that are visible, newest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn visible_builds(&self, visibility: &Visibility, list: BuildList, limit: usize) -> Result<Vec<Build>, StoreError> {
        let repositories = match (visibility, list.repository) {
            (Visibility::All, repository) => vec![repository],
            (_, wanted) => {
                let visible = self.visible_repositories(visibility)?;
                visible.iter().map(|it| it.id).filter(|id| wanted.is_none_or(|wanted| wanted == *id)).map(Some).collect()
            }
        };
        let statuses = list.statuses.statuses();
        let filters = repositories.iter().flat_map(|repository| {
            statuses.iter().map(|status| BuildFilter { repository: *repository, status: *status, after: list.after })
        });
        self.builds_of_ids(&self.newest_build_ids(&filters.collect::<Vec<_>>(), limit)?)
    }

    /// Ids of the builds that one of the filters includes, newest first. Several filters cost one row each, and one per result.
    fn newest_build_ids(&self, filters: &[BuildFilter], limit: usize) -> Result<Vec<BuildId>, StoreError> {
        if let [filter] = filters {
            return self.build_ids(*filter, limit);
        }
        // A build id begins with its time, so the newest build has the greatest id.
        let mut newest = BinaryHeap::new();
        for (index, filter) in filters.iter().enumerate() {
            newest.extend(self.build_ids(*filter, 1)?.first().map(|id| (*id, index)));
        }
        let mut ids = Vec::new();
        while ids.len() < limit
            && let Some((id, index)) = newest.pop()
        {
            ids.push(id);
            if let Some(filter) = filters.get(index) {
                let next = self.build_ids(BuildFilter { after: Some(id), ..*filter }, 1)?;
                newest.extend(next.first().map(|id| (*id, index)));
            }
        }
        Ok(ids)
    }

    /// The builds of the same repository with the previous and with the next number, unless they were removed.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn adjacent_builds(&self, build: &Build) -> Result<[Option<Build>; 2], StoreError> {
        let Some(number) = build.number else { return Ok([None, None]) };
        let numbered = |number| self.build_by_number(build.event.repository.id, number);
        Ok([numbered(number.saturating_sub(1))?, numbered(number.saturating_add(1))?])
    }
}
