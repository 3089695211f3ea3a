//! Lets go of builds that have been kept long enough, with their logs, decisions, notices and deliveries.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use beespace_core::ids::{BuildId, DeliveryId};
use beespace_core::time::Timestamp;

use crate::app::App;
use crate::clock::now;

/// Between two passes.
const AGAIN: Duration = Duration::from_secs(3_600);

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
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Removes what ended, and what came, before `before`; says how many builds and deliveries that were. A stop of the server ends it between
/// two pieces, and the next pass goes on.
///
/// # Errors
/// The store's, or the disk's where a log cannot be removed: its build stays, and the next pass tries again.
pub async fn pass(app: &App, before: Timestamp) -> Result<(usize, usize)> {
    Ok((builds(app, before).await?, deliveries(app, before).await?))
}

async fn builds(app: &App, before: Timestamp) -> Result<usize> {
    let (mut removed, mut after) = (0, None::<BuildId>);
    while !app.stopping.is_cancelled() {
        let piece = app.store.read()?.old_builds(after, before)?;
        // Logs first: a build whose log is gone is found again by the next pass, a log whose build is gone by nobody.
        for id in &piece.leaving {
            app.logs.remove(*id).await?;
        }
        removed += piece.leaving.len();
        if !piece.leaving.is_empty() {
            app.store.forget_builds(piece.leaving).await?;
        }
        let Some(next) = piece.next else { break };
        after = Some(next);
    }
    Ok(removed)
}

async fn deliveries(app: &App, before: Timestamp) -> Result<usize> {
    let (mut removed, mut after) = (0, None::<DeliveryId>);
    while !app.stopping.is_cancelled() {
        let piece = app.store.read()?.old_deliveries(after, before)?;
        removed += piece.leaving.len();
        if !piece.leaving.is_empty() {
            app.store.forget_deliveries(piece.leaving).await?;
        }
        let Some(next) = piece.next else { break };
        after = Some(next);
    }
    Ok(removed)
}
