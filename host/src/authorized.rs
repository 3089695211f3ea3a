//! Extractors that give a handler a repository or a build only if the caller has the right that the route requires on it.
//!
//! [`crate::access`] states the right per route, and the middleware passes it on as [`RequiredRight`]. A handler under a repository
//! has no other way to fetch: `tests/it/access.rs` refuses a lookup by name in a handler, and [`RequiredRight::was_checked`] lets the
//! middleware withhold the response of a handler that did not check the right.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use beespace_core::build::Build;
use beespace_core::ids::RepositoryName;
use serde::Deserialize;

use crate::access::{self, Right};
use crate::app::App;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::store::Read;
use crate::store::lookup::Visibility;
use crate::store::repository::Repository;

/// The right that the route of a request requires on the repository in its path.
#[derive(Debug, Clone)]
pub struct RequiredRight {
    right: Right,
    was_checked: Arc<AtomicBool>,
}

impl RequiredRight {
    #[must_use]
    pub fn new(right: Right) -> Self {
        Self { right, was_checked: Arc::default() }
    }

    fn set_checked(&self) {
        self.was_checked.store(true, Ordering::Release);
    }

    /// Whether an extractor has found that the caller has the right. All clones share the result.
    #[must_use]
    pub fn was_checked(&self) -> bool {
        self.was_checked.load(Ordering::Acquire)
    }
}

/// A repository or a build on which the caller has the right that the route requires.
#[derive(Debug, Clone)]
pub struct Authorized<T>(T);

impl<T> Authorized<T> {
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Authorized<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

#[derive(Deserialize)]
struct RepositoryPath {
    owner: String,
    name: String,
}

#[derive(Deserialize)]
struct BuildPath {
    number: String,
}

impl FromRequestParts<Arc<App>> for Authorized<Repository> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let path = path(parts).await?;
        repository(parts, app, &app.store.read()?, &path).map(Self)
    }
}

impl FromRequestParts<Arc<App>> for Authorized<Build> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let names = path(parts).await?;
        let BuildPath { number } = path(parts).await?;
        let read = app.store.read()?;
        let repository = repository(parts, app, &read, &names)?;
        let key = number.parse().map_err(|_| Problem::not_found("build"))?;
        Ok(Self(read.find_build(&repository, key)?))
    }
}

/// The name of a repository, for actions that also concern one that is not stored here. On such a repository only an admin has rights.
impl FromRequestParts<Arc<App>> for Authorized<RepositoryName> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let path = path::<RepositoryPath>(parts).await?;
        let name = RepositoryName::new(&path.owner, &path.name).map_err(|_| Problem::not_found("repository"))?;
        match repository(parts, app, &app.store.read()?, &path) {
            Err(problem) if problem.status_code() == StatusCode::NOT_FOUND && principal(parts)?.is_admin() => {
                required_right(parts)?.set_checked();
                Ok(Self(name))
            }
            Err(problem) => Err(problem),
            Ok(_) => Ok(Self(name)),
        }
    }
}

/// The repositories that lists show to the caller.
impl FromRequestParts<Arc<App>> for Visibility {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        Ok(access::visibility(principal(parts)?, app.config.server.open))
    }
}

async fn path<T: serde::de::DeserializeOwned + Send>(parts: &mut Parts) -> Result<T, Problem> {
    // A path whose segments are not UTF-8 names nothing here.
    let Path(path) = Path::<T>::from_request_parts(parts, &()).await.map_err(|_| Problem::not_found("page"))?;
    Ok(path)
}

/// The repository that the path names, once the caller's right on it is checked. A caller without any right cannot learn whether the
/// repository exists.
fn repository(parts: &Parts, app: &App, read: &Read, path: &RepositoryPath) -> Result<Repository, Problem> {
    let required = required_right(parts)?;
    let repository = read.find_repository(&path.owner, &path.name)?;
    match access::right_on(principal(parts)?, repository.id, app.config.server.open) {
        Some(right) if right >= required.right => {
            required.set_checked();
            Ok(repository)
        }
        Some(_) => {
            let detail = "You may not change this repository.";
            Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).help("Ask an administrator of the repository."))
        }
        None => Err(Problem::not_found("repository")),
    }
}

fn required_right(parts: &Parts) -> Result<&RequiredRight, Problem> {
    let required = parts.extensions.get::<RequiredRight>();
    required.ok_or_else(|| Problem::internal(&"a handler requested a repository on a route that requires no right on it"))
}

fn principal(parts: &Parts) -> Result<&Principal, Problem> {
    parts.extensions.get::<Principal>().ok_or_else(|| Problem::internal(&"a request reached a handler without authentication"))
}
