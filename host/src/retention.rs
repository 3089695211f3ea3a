//! Lets go of builds that have been kept long enough, with their logs, decisions, notices and deliveries.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use beespace_core::ids::{BuildId, DeliveryId};
use beespace_core::time::Timestamp;

use crate::app::App;
use crate::clock::now;

/// Between two passes.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// Passes again and again until the server stops, where the configuration says how long builds are kept.
pub async fn serve(app: Arc<App>) {
    let Some(kept) = app.config.retention.builds else { return };
    loop {
        let before = Timestamp(now().0.saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)));
        match pass(&app, before).await {
            Ok((0, 0)) => {}
            Ok((builds, deliveries)) => tracing::info!(builds, deliveries, "kept long enough, and removed"),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "what has been kept long enough could not be removed"),
        }
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Removes what ended, and what came, before `before`; says how many builds and deliveries that were. A stop of the server ends it between
/// two pieces, and the next pass goes on.
///
/// # Errors
/// The store's, or the disk's where a log cannot be removed: its build stays, and the next pass tries again.
pub async fn pass(app: &App, before: Timestamp) -> Result<(usize, usize)> {
    Ok((remove_builds(app, before).await?, remove_deliveries(app, before).await?))
}

async fn remove_builds(app: &App, before: Timestamp) -> Result<usize> {
    let (mut removed, mut after) = (0, None::<BuildId>);
    while !app.stopping.is_cancelled() {
        let piece = app.store.read()?.expired_builds(after, before)?;
        // Logs first: a build whose log is gone is found again by the next pass, a log whose build is gone by nobody.
        for id in &piece.removable {
            app.logs.remove(*id).await?;
        }
        removed += piece.removable.len();
        if !piece.removable.is_empty() {
            app.store.purge_builds(piece.removable).await?;
        }
        let Some(next) = piece.next else { break };
        after = Some(next);
    }
    Ok(removed)
}

async fn remove_deliveries(app: &App, before: Timestamp) -> Result<usize> {
    let (mut removed, mut after) = (0, None::<DeliveryId>);
    while !app.stopping.is_cancelled() {
        let piece = app.store.read()?.expired_deliveries(after, before)?;
        removed += piece.removable.len();
        if !piece.removable.is_empty() {
            app.store.purge_deliveries(piece.removable).await?;
        }
        let Some(next) = piece.next else { break };
        after = Some(next);
    }
    Ok(removed)
}
