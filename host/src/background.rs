//! Everything that a server does besides responding to requests: the workers of the queues, and the periodic tasks beside them.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::app::App;
use crate::{engine_cleanup, metrics_collector, notify, prewarm, queues, retention, start_check};

/// Starts all of it; the tasks end when the server stops.
pub fn start(app: &Arc<App>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    queues::start(app, &mut tasks);
    tasks.spawn(metrics_collector::collect_metrics(Arc::clone(app)));
    tasks.spawn(engine_cleanup::clean_up_engine(Arc::clone(app)));
    tasks.spawn(prewarm::keep_prewarmed(Arc::clone(app)));
    tasks.spawn(notify::propagate_suspension(Arc::clone(app)));
    tasks.spawn(retention::serve(Arc::clone(app)));
    tasks.spawn(start_check::report(Arc::clone(app)));
    tasks
}
