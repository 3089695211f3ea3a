//! Whether a name in Gogs belongs to the repository that it is taken for.
//!
//! Gogs shows the secret of a webhook to the administrators of its repository, so they can sign a payload with any name; and the
//! repository behind a name may be deleted, renamed or replaced at any time, without an event. The token reads repositories that
//! their own administrators cannot read. So a new name is stored, and anything is fetched, only after Gogs itself has named the
//! id behind the name. The same response brings the visibility and the default branch, which no payload can widen.

use beespace_core::event::{Repository, SourceRepository};
use beespace_core::gogs::GogsEvent;
use beespace_core::ids::{RepositoryId, RepositoryName};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::trigger::{self, claimed_repository};
use beespace_core::verify::Verified;
use url::Url;

use crate::app::App;
use crate::clock::now;
use crate::forge::ForgeError;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::store::delivery::Delivery;
use crate::store::repository::Repositories as _;
use crate::worker::{MAX_WAIT, WorkError};

/// What is known about the repository of a delivery.
#[derive(Debug)]
pub enum Identity {
    /// The repository of the webhook, as Gogs described it last.
    Confirmed(Repository),
    /// The payload has a name that does not belong to the webhook's repository.
    Refused(Reason),
}

/// The repository of a delivery. A payload with the stored name needs no request; another name has to be confirmed by Gogs, and
/// is then stored.
///
/// # Errors
/// [`WorkError::Wait`] while Gogs cannot confirm a new name; the store's.
pub async fn of_delivery(app: &App, delivery: &Delivery, event: Option<&Verified<GogsEvent>>) -> Result<Identity, WorkError> {
    let known = stored(app, delivery.repository)?;
    let Some(claim) = event.and_then(|event| claimed_repository(event, known.id)) else { return Ok(Identity::Confirmed(known)) };
    let name = match trigger::repository_of(claim) {
        Ok(claim) => claim.name,
        Err(error) => return Ok(Identity::Refused(Reason::new(ReasonCode::InvalidRepositoryName, error.to_string()))),
    };
    let confirmed = if name == known.name {
        // A repository that has become private is hidden at once. Only Gogs itself can make it public again.
        Repository { is_private: known.is_private || claim.private, ..known.clone() }
    } else {
        match ask(app, known.id, &name).await {
            Ok(found) => found,
            Err(error) if error.is_final() || now().since(delivery.received_at) > MAX_WAIT => {
                return Ok(Identity::Refused(error.reason(&name, known.id)));
            }
            Err(error) => {
                tracing::warn!(repository = %known.id, %name, error = %error.reason(&name, known.id), "a name waits for Gogs");
                return Err(WorkError::wait_since(delivery.received_at, now()));
            }
        }
    };
    store_if_changed(app, &known, &confirmed).await?;
    Ok(Identity::Confirmed(confirmed))
}

/// The repository as the server knows it.
///
/// # Errors
/// The store's.
pub fn stored(app: &App, id: RepositoryId) -> Result<Repository, StoreError> {
    let row = app.store.read()?.repository(id)?.ok_or(StoreError::NotFound("repository"))?;
    Ok(row.described())
}

/// The clone URL of a repository, if its stored name still belongs to it. Stores what Gogs reports.
///
/// # Errors
/// [`SourceError::OtherRepository`] if the name belongs to another repository; a retryable error if Gogs cannot confirm the name.
pub async fn confirmed_origin(app: &App, id: RepositoryId) -> Result<Url, SourceError> {
    let broken = |error: StoreError| SourceError::Internal(error.to_string());
    let known = stored(app, id).map_err(broken)?;
    let found = ask(app, id, &known.name).await.map_err(|error| error.of_fetch(&known.name, id))?;
    store_if_changed(app, &known, &found).await.map_err(broken)?;
    Ok(app.forge.clone_url(&found.name))
}

/// The clone URL of the repository that a pull request comes from, if the server can read it and Gogs says that it is a fork of
/// `base`. The payload only claims that: nothing of another repository may get into a build.
///
/// # Errors
/// A retryable error if Gogs does not answer.
pub async fn fork_origin(app: &App, base: &Repository, source: &SourceRepository) -> Result<Option<Url>, SourceError> {
    let found = match app.forge.repository(&source.name).await {
        Ok(found) => found,
        Err(ForgeError::NotFound(_) | ForgeError::Forbidden(_)) => return Ok(None),
        Err(error) => return Err(Unconfirmed::Forge(error).of_fetch(&source.name, source.id)),
    };
    let is_fork = found.id == source.id.0 && found.parent.as_ref().is_some_and(|parent| parent.id == base.id.0);
    // The server's token may read private forks that nobody of the target repository can read.
    Ok((is_fork && !found.private).then(|| app.forge.clone_url(&source.name)))
}

/// Why Gogs did not confirm a name.
#[derive(Debug)]
enum Unconfirmed {
    /// The name belongs to this repository.
    Other(RepositoryId),
    Forge(ForgeError),
    /// Gogs reports a name that could leave its directory.
    Name(String),
}

/// Asks Gogs for the repository with this name, which has to have the id.
async fn ask(app: &App, id: RepositoryId, name: &RepositoryName) -> Result<Repository, Unconfirmed> {
    let found = app.forge.repository(name).await.map_err(Unconfirmed::Forge)?;
    if found.id != id.0 {
        return Err(Unconfirmed::Other(RepositoryId(found.id)));
    }
    trigger::repository_of(&found).map_err(|error| Unconfirmed::Name(error.to_string()))
}

impl Unconfirmed {
    /// Whether Gogs has answered. Otherwise a later attempt may succeed.
    fn is_final(&self) -> bool {
        matches!(self, Self::Other(_) | Self::Name(_) | Self::Forge(ForgeError::NotFound(_)))
    }

    /// Why the delivery with this name is ignored.
    fn reason(&self, name: &RepositoryName, id: RepositoryId) -> Reason {
        let text = format!("the payload names {name}, and the webhook belongs to repository {id}");
        match self {
            Self::Other(other) => {
                Reason::new(ReasonCode::OtherRepository, format!("{text}; in Gogs {name} is repository {other}"))
                    .help("if nobody has renamed the repository, somebody who knows the webhook's secret forged the delivery")
            }
            Self::Forge(ForgeError::NotFound(_)) => {
                Reason::new(ReasonCode::OtherRepository, format!("{text}; Gogs does not find {name}"))
                    .help("if the repository has been renamed again, push again")
            }
            Self::Forge(error) => {
                let cause = error.reason();
                Reason { message: format!("{text}; Gogs has not confirmed the name: {}", cause.message), ..cause }
            }
            Self::Name(error) => Reason::new(ReasonCode::InvalidRepositoryName, error.clone()),
        }
    }

    /// Why nothing is fetched from this name.
    fn of_fetch(self, name: &RepositoryName, id: RepositoryId) -> SourceError {
        match self {
            Self::Other(found) => SourceError::OtherRepository { name: name.to_string(), expected: id, found },
            Self::Forge(ForgeError::Unreachable { cause, .. }) => SourceError::ForgeUnreachable(cause),
            Self::Forge(ForgeError::Unauthorized) => SourceError::TokenRejected(String::new()),
            Self::Forge(ForgeError::Forbidden(_)) => SourceError::FetchForbidden(String::new()),
            Self::Forge(ForgeError::NotFound(_)) => SourceError::RepositoryGone(format!("no repository {name}")),
            Self::Forge(error) => SourceError::ForgeUnreachable(error.to_string()),
            Self::Name(error) => SourceError::Internal(error),
        }
    }
}

async fn store_if_changed(app: &App, known: &Repository, present: &Repository) -> Result<(), StoreError> {
    if known == present {
        return Ok(());
    }
    tracing::info!(repository = %present.id, name = %present.name, is_private = present.is_private, "repository changed in Gogs");
    app.store.describe_repository(present.clone()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch_error(error: ForgeError) -> SourceError {
        Unconfirmed::Forge(error).of_fetch(&RepositoryName::new("ada", "hive").unwrap(), RepositoryId(4))
    }

    #[test]
    fn a_name_that_gogs_does_not_confirm_is_never_fetched_and_is_asked_for_again() {
        let url = "http://gogs/".to_owned();
        for error in [
            ForgeError::Unreachable { url: url.clone(), cause: "refused".to_owned() },
            ForgeError::Unauthorized,
            ForgeError::Forbidden("read ada/hive".to_owned()),
            ForgeError::NotFound("repository ada/hive".to_owned()),
            ForgeError::Refused { what: "read ada/hive".to_owned(), status: 418, message: String::new() },
            ForgeError::Redirected,
            ForgeError::UnexpectedResponse { url, cause: "a page".to_owned() },
        ] {
            let text = error.to_string();
            let error = fetch_error(error);
            assert!(error.is_retryable() && !error.is_refusal(), "{text}: {error}");
        }
        assert!(matches!(fetch_error(ForgeError::Unauthorized), SourceError::TokenRejected(_)));
        assert!(matches!(fetch_error(ForgeError::NotFound(String::new())), SourceError::RepositoryGone(_)));
    }

    #[test]
    fn another_repository_under_the_name_ends_the_build_with_both_ids() {
        let error = Unconfirmed::Other(RepositoryId(9)).of_fetch(&RepositoryName::new("ada", "hive").unwrap(), RepositoryId(4));
        assert!(error.is_refusal() && !error.is_retryable());
        let text = error.reason().to_string();
        assert!(text.contains("repository 9") && text.contains("repository 4"), "{text}");
    }
}
