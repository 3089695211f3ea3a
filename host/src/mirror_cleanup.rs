//! Maintenance of the mirrors: git's garbage collection, and cleanup of mirrors that are no longer needed.

use std::time::Duration;

use anyhow::Result;
use beespace_core::ids::RepositoryId;
use beespace_core::time::Timestamp;

use crate::app::App;
use crate::forge::ForgeError;
use crate::source::{Collection, Mirror};
use crate::store::repository::Repositories as _;

/// A mirror is kept for this long after its last fetch, even if its repository is disabled here or gone in Gogs.
const KEPT_UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Goes through all mirrors. A mirror that a build uses is left to the next pass.
///
/// # Errors
/// The store's, or the disk's if the mirrors cannot be listed.
pub async fn pass(app: &App, now: Timestamp) -> Result<()> {
    for repository in app.mirrors.existing().await? {
        if app.stopping.is_cancelled() {
            break;
        }
        let mirror = app.mirrors.of(repository);
        // A failure with one mirror must not keep the others from their upkeep.
        let kept = match is_needed(app, repository, &mirror, now).await {
            Ok(true) => collect(app, repository, &mirror, now).await,
            Ok(false) => remove(repository, &mirror).await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(%repository, error = format!("{error:#}"), "the upkeep of a mirror failed");
        }
    }
    Ok(())
}

/// Whether the mirror may still be used: its repository is enabled and exists in Gogs, it was fetched recently, or a build is
/// not over.
async fn is_needed(app: &App, repository: RepositoryId, mirror: &Mirror, now: Timestamp) -> Result<bool> {
    let (known, has_unfinished_builds) = {
        let read = app.store.read()?;
        (read.repository(repository)?, read.has_unfinished_builds(repository)?)
    };
    let was_fetched_recently = mirror.last_fetched_at().is_some_and(|at| now.since(at) < KEPT_UNUSED);
    if has_unfinished_builds || was_fetched_recently {
        return Ok(true);
    }
    let Some(known) = known.filter(|known| known.hook.is_some()) else { return Ok(false) };
    Ok(match app.forge.repository(&known.name).await {
        Ok(found) => found.id == known.id.0,
        Err(ForgeError::NotFound(_)) => false,
        // Gogs cannot answer now, so nothing is known.
        Err(_) => true,
    })
}

async fn collect(app: &App, repository: RepositoryId, mirror: &Mirror, now: Timestamp) -> Result<()> {
    // A stop of the server ends the collection; git completes it another time.
    let Some(collection) = app.stopping.run_until_cancelled(mirror.collect_garbage(now)).await else { return Ok(()) };
    if collection? == Collection::Repacked {
        tracing::info!(%repository, "collected the garbage of a mirror");
    }
    Ok(())
}

async fn remove(repository: RepositoryId, mirror: &Mirror) -> Result<()> {
    if mirror.remove().await? {
        tracing::info!(%repository, "removed the mirror of a repository that is disabled or gone");
    }
    Ok(())
}
