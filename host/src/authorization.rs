//! Repositories and builds on which the caller has the right that the route requires.
//!
//! [`crate::access`] states the right per route. The middleware calls [`authorize`] before a handler under a repository runs, so
//! a handler of a caller without the right never begins. The extractors of this module then return the repository or one of its
//! builds; `tests/it/access.rs` refuses a lookup by name in a handler.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use beespace_core::build::Build;
use beespace_core::ids::RepositoryName;
use serde::Deserialize;

use crate::access::{self, Right};
use crate::app::App;
use crate::http_problem::Problem;
use crate::principal::Principal;
use crate::store::lookup::Visibility;
use crate::store::repository::{Repositories as _, Repository};

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

/// The repository in the path of a request, on which the caller has the required right. Only [`authorize`] creates it.
#[derive(Debug, Clone)]
struct CheckedRepository {
    name: RepositoryName,
    /// `None` if this server does not know the repository; only an admin gets this far then.
    stored: Option<Repository>,
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

/// Checks that the caller has a right on the repository that the path names, for the extractors of this module. A caller without
/// any right cannot learn whether the repository exists.
///
/// # Errors
/// [`Problem`] if the caller does not have the right, or if the store cannot be read.
pub async fn authorize(app: &App, parts: &mut Parts, principal: &Principal, right: Right) -> Result<(), Problem> {
    let path = path::<RepositoryPath>(parts).await?;
    let unknown = || unknown_repository(principal, &path);
    let name = RepositoryName::new(&path.owner, &path.name).map_err(|_| unknown())?;
    let stored = app.store.read()?.repository_by_name(&name)?;
    let held = match &stored {
        Some(repository) => access::right_on(principal, repository, app.config.server.open),
        None => principal.is_admin().then_some(Right::Admin),
    };
    match held {
        Some(held) if held >= right => {
            parts.extensions.insert(CheckedRepository { name, stored });
            Ok(())
        }
        Some(_) => {
            let detail = format!("you may not change {name}");
            Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).help("ask an administrator of the repository"))
        }
        None => Err(unknown()),
    }
}

/// The repository does not exist, or the caller may not know it.
fn unknown_repository(principal: &Principal, path: &RepositoryPath) -> Problem {
    let problem = Problem::not_found("repository", format_args!("{}/{}", path.owner, path.name));
    if principal.is_anonymous() { problem.help("if the repository is private, sign in to see it") } else { problem }
}

impl FromRequestParts<Arc<App>> for Authorized<Repository> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        let CheckedRepository { name, stored } = checked(parts)?;
        stored.clone().map(Self).ok_or_else(|| Problem::not_found("repository", name))
    }
}

impl FromRequestParts<Arc<App>> for Authorized<Build> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let BuildPath { number } = path(parts).await?;
        let repository = Authorized::<Repository>::from_request_parts(parts, app).await?;
        let name = format!("{} {number}", repository.name);
        let key = number.parse().map_err(|_| Problem::not_found("build", &name))?;
        let found = app.store.read()?.find_build(&repository, key);
        found.map(Self).map_err(|error| Problem::of(error, name))
    }
}

/// The name of a repository, for actions that also concern one that is not stored here. On such a repository only an admin has
/// rights.
impl FromRequestParts<Arc<App>> for Authorized<RepositoryName> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        Ok(Self(checked(parts)?.name.clone()))
    }
}

/// The repositories that lists show to the caller.
impl FromRequestParts<Arc<App>> for Visibility {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let principal = parts.extensions.get::<Principal>();
        let principal = principal.ok_or_else(|| Problem::internal(&"a request reached a handler without authentication"))?;
        Ok(access::visibility(principal, app.config.server.open))
    }
}

async fn path<T: serde::de::DeserializeOwned + Send>(parts: &mut Parts) -> Result<T, Problem> {
    // A path whose segments are not UTF-8 names nothing here.
    let found = Path::<T>::from_request_parts(parts, &()).await;
    found.map(|Path(path)| path).map_err(|_| Problem::not_found("page", parts.uri.path()))
}

fn checked(parts: &Parts) -> Result<&CheckedRepository, Problem> {
    let checked = parts.extensions.get::<CheckedRepository>();
    checked.ok_or_else(|| Problem::internal(&"a handler requested a repository on a route that requires no right on it"))
}
