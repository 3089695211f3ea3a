//! Keeps networks prewarmed in the engine, so that the next stages open without delay.

use std::sync::Arc;
use std::time::Duration;

use beespace_core::change_event::ChangeEvent;

use crate::app::App;
use crate::engine::EngineError;

/// The interval of the maintenance when no stage ends.
const INTERVAL: Duration = Duration::from_secs(25);

/// Replaces used networks after each stage. A server that stops removes them all.
pub async fn keep_prewarmed(app: Arc<App>) {
    let mut changes = app.store.watch_changes();
    let is_stage_end = |event: &ChangeEvent| matches!(event, ChangeEvent::StageChanged { status, .. } if status.is_over());
    while !app.stopping.is_cancelled() {
        // The shutdown also removes a network whose creation is interrupted here.
        if let Some(maintained) = app.stopping.run_until_cancelled(app.engine.maintain()).await {
            report(maintained);
        }
        tokio::select! {
            () = app.stopping.cancelled() => {}
            () = changes.next_matching(is_stage_end) => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
    report(app.engine.shutdown().await);
}

fn report(result: Result<(), EngineError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "could not maintain the engine's prewarmed networks");
    }
}
