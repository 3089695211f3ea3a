//! Keeps networks prewarmed in the engine, so that the next stages open without delay.

use std::sync::Arc;
use std::time::Duration;

use beespace_core::change_event::ChangeEvent;

use crate::app::App;

/// The interval of the maintenance when no stage ends.
const INTERVAL: Duration = Duration::from_secs(25);

/// Replaces used networks after each stage. A server that stops removes them all.
pub async fn keep_prewarmed(app: Arc<App>) {
    let stages = usize::from(app.config.engine.prewarmed_networks);
    let mut changes = app.store.watch_changes();
    let is_stage_end = |event: &ChangeEvent| matches!(event, ChangeEvent::StageChanged { status, .. } if status.is_over());
    loop {
        maintain(&app, stages).await;
        tokio::select! {
            () = app.stopping.cancelled() => return maintain(&app, 0).await,
            () = changes.next_matching(is_stage_end) => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn maintain(app: &App, stages: usize) {
    if let Err(error) = app.engine.maintain(stages).await {
        tracing::warn!(%error, "could not maintain the engine's prewarmed networks");
    }
}
