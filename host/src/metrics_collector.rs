//! Turns changes of rows into metrics.

use std::sync::Arc;

use beespace_core::change_event::ChangeEvent;
use beespace_core::time::Timestamp;

use crate::app::App;
use crate::store::build::Builds as _;
use crate::store::watch::NextChange;

/// Collects metrics until the server stops.
pub async fn collect_metrics(app: Arc<App>) {
    let mut changes = app.store.watch_changes();
    loop {
        let change = tokio::select! {
            () = app.stopping.cancelled() => return,
            change = changes.next() => change,
        };
        match change {
            NextChange::Event(event) => count(&app, event),
            // Metrics may miss changes that come faster than they are counted; rows never do.
            NextChange::Lost(missed) => tracing::warn!(missed, "some changes were not counted in the metrics"),
        }
    }
}

fn count(app: &App, event: ChangeEvent) {
    let duration = |from: Option<Timestamp>, to: Option<Timestamp>| from.zip(to).map(|(from, to)| to.since(from));
    match event {
        ChangeEvent::BuildFinished { build, .. } => {
            if let Ok(build) = app.build(build) {
                let duration = duration(build.started_at, build.finished_at).unwrap_or_default();
                app.metrics.build_ended(build.event.kind(), build.status, duration);
            }
        }
        ChangeEvent::StepChanged { step, status, .. } if status.is_over() => {
            let stage = app.store.read().and_then(|read| read.stage(step.stage_id()));
            let stage = stage.ok().flatten();
            let step = stage.as_ref().and_then(|stage| stage.step(step.step));
            if let Some(duration) = step.and_then(|step| duration(step.started_at, step.finished_at)) {
                app.metrics.step_ended(duration);
            }
        }
        _ => {}
    }
}
