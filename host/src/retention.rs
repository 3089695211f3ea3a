//! Removes builds after the configured retention time, with their logs, decisions, notices and deliveries.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use beespace_core::ids::{BuildId, DeliveryId};
use beespace_core::time::Timestamp;

use crate::app::App;
use crate::clock::now;

/// The interval between two passes.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// Repeats the pass until the server stops, if the configuration has a retention time.
pub async fn serve(app: Arc<App>) {
    let Some(kept) = app.config.retention.builds else { return };
    loop {
        let before = Timestamp(now().0.saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)));
        match pass(&app, before).await {
            Ok((0, 0)) => {}
            Ok((builds, deliveries)) => tracing::info!(builds, deliveries, "removed expired builds and deliveries"),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "could not remove expired builds or deliveries"),
        }
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Removes the builds that ended, and the deliveries that arrived, before `before`; returns how many of each. A stop of the
/// server ends the pass between two batches, and the next pass continues.
///
/// # Errors
/// The store's, or the disk's if a log cannot be removed: the build of that log stays, and the next pass tries again.
pub async fn pass(app: &App, before: Timestamp) -> Result<(usize, usize)> {
    Ok((remove_builds(app, before).await?, remove_deliveries(app, before).await?))
}

async fn remove_builds(app: &App, before: Timestamp) -> Result<usize> {
    let (mut removed, mut after) = (0, None::<BuildId>);
    while !app.stopping.is_cancelled() {
        let batch = app.store.read()?.expired_builds(after, before)?;
        // Logs first: the next pass finds a build without a log, but nothing would find a log without a build.
        for id in &batch.removable {
            app.logs.remove(*id).await?;
        }
        removed += batch.removable.len();
        if !batch.removable.is_empty() {
            app.store.purge_builds(batch.removable).await?;
        }
        let Some(next) = batch.next else { break };
        after = Some(next);
    }
    Ok(removed)
}

async fn remove_deliveries(app: &App, before: Timestamp) -> Result<usize> {
    let (mut removed, mut after) = (0, None::<DeliveryId>);
    while !app.stopping.is_cancelled() {
        let batch = app.store.read()?.expired_deliveries(after, before)?;
        removed += batch.removable.len();
        if !batch.removable.is_empty() {
            app.store.purge_deliveries(batch.removable).await?;
        }
        let Some(next) = batch.next else { break };
        after = Some(next);
    }
    Ok(removed)
}
