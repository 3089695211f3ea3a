//! Cleanup of the engine: removes orphans (containers, networks and volumes whose stage is over or unknown).

use std::sync::Arc;
use std::time::Duration;

use beespace_core::time::Timestamp;

use crate::app::App;
use crate::clock::now;
use crate::store::build::Builds as _;

/// The interval of the cleanup. The first run after a stage's end leaves the stage to the task that ran it; the second one
/// removes everything within a minute.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(25);

/// Removes orphans until the server stops: those of an earlier process, and those that could not be removed when their
/// stage ended.
pub async fn clean_up_engine(app: Arc<App>) {
    // No stage of this process has ended before now.
    let mut ended_before = now();
    loop {
        if let Err(error) = remove_orphans(&app, ended_before).await {
            tracing::warn!(%error, "could not look for orphaned containers, networks and volumes in the engine");
        }
        // A stage that ends from now on is removed by the task that ran it. The next run removes what that task left behind.
        ended_before = now();
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(CLEANUP_INTERVAL) => {}
        }
    }
}

async fn remove_orphans(app: &App, ended_before: Timestamp) -> anyhow::Result<()> {
    for id in app.engine.inventory().await? {
        let stage = app.store.read()?.stage(id)?;
        // An end in the future was recorded before the clock was set back, so it lies in the past.
        let is_recent = |at: Timestamp| at >= ended_before && at <= now();
        if stage.is_some_and(|stage| stage.finished_at.is_none_or(is_recent)) {
            continue;
        }
        tracing::info!(stage = %id, "removing the orphans of a stage");
        if let Err(error) = app.engine.destroy(id).await {
            tracing::warn!(stage = %id, %error, "could not remove the orphans of a stage");
        }
    }
    Ok(())
}
