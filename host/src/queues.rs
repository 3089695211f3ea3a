//! The five queues: how the rows of each are processed, and how a row ends as a dead letter.

use std::sync::Arc;

use beespace_core::ids::{BuildId, DeliveryId, StageId};
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::trigger::LastSeenRef;
use tokio::task::JoinSet;

use crate::app::App;
use crate::clock::now;
use crate::store::build::stage_id_of_key;
use crate::store::delivery::DeliveryAction;
use crate::store::notice::OrderingKey;
use crate::store::schedule::ScheduleId;
use crate::store::{Queue, Read, StoreError};
use crate::worker::{Consumer, WorkError, Worker};
use crate::{flow, notify, plugins, run};

/// Deliveries that are processed at once, one of each repository: their order matters, and one of a renamed repository may wait
/// for Gogs.
const DELIVERIES_AT_ONCE: usize = 4;

/// Builds that are prepared at once. They mostly wait for Gogs and git.
const PREPARED_AT_ONCE: usize = 8;

/// How many of them may belong to one repository, so that a large or slow repository does not delay the others.
const PREPARED_PER_REPOSITORY: usize = 2;

/// Schedules whose builds are created at once. Each is one write of the store.
const SCHEDULES_AT_ONCE: usize = 4;

/// The number of rows that a worker works on at once.
#[derive(Debug, Clone, Copy)]
struct Parallelism {
    total: usize,
    /// Of one fairness key.
    per_key: usize,
}

impl Parallelism {
    /// One fairness key may use all places.
    fn shared(total: usize) -> Self {
        Self { total, per_key: total }
    }
}

/// Starts the worker of each queue in `tasks`; the workers end when the server stops.
pub fn start(app: &Arc<App>, tasks: &mut JoinSet<()>) {
    let capacity = usize::from(app.config.engine.capacity.get());
    let send_slots = plugins::send_slots(app.plugins.notifiers.len());
    let receiving = Parallelism { total: DELIVERIES_AT_ONCE, per_key: 1 };
    spawn(app, tasks, Queue::Delivery, receiving, DeliveryConsumer(Arc::clone(app)));
    let preparing = Parallelism { total: PREPARED_AT_ONCE, per_key: PREPARED_PER_REPOSITORY };
    spawn(app, tasks, Queue::Prepare, preparing, PrepareConsumer(Arc::clone(app)));
    spawn(app, tasks, Queue::Run, Parallelism::shared(capacity), RunConsumer(Arc::clone(app)));
    let sending = Parallelism { total: send_slots, per_key: plugins::SLOTS_PER_NOTIFIER };
    spawn(app, tasks, Queue::Notice, sending, NoticeConsumer(Arc::clone(app)));
    spawn(app, tasks, Queue::Schedule, Parallelism::shared(SCHEDULES_AT_ONCE), ScheduleConsumer(Arc::clone(app)));
}

/// Starts one worker.
fn spawn<C: Consumer>(app: &App, tasks: &mut JoinSet<()>, queue: Queue, parallelism: Parallelism, consumer: C) {
    let heartbeat = app.heartbeats.of(queue);
    heartbeat.beat(now());
    let (store, consumer) = (app.store.clone(), Arc::new(consumer));
    let Parallelism { total: parallel, per_key: parallel_per_key } = parallelism;
    let worker = Worker { store, queue, parallel, parallel_per_key, consumer, heartbeat, now };
    tasks.spawn(worker.serve(app.stopping.clone()));
}

/// Deliveries become builds, or are ignored.
struct DeliveryConsumer(Arc<App>);

impl Consumer for DeliveryConsumer {
    type Id = DeliveryId;

    fn id_of_key(key: &[u8]) -> Option<DeliveryId> {
        uuid::Uuid::from_slice(key).ok().map(DeliveryId)
    }

    async fn process(&self, id: DeliveryId) -> Result<(), WorkError> {
        flow::process_delivery(&self.0, id).await
    }

    async fn dead_letter(&self, id: DeliveryId, reason: Reason) -> Result<(), StoreError> {
        let action = move |_: Option<&LastSeenRef>| DeliveryAction::DeadLetter(reason.clone());
        self.0.store.finish_delivery(id, None, now(), action).await
    }
}

/// Builds get their stages.
struct PrepareConsumer(Arc<App>);

impl Consumer for PrepareConsumer {
    type Id = BuildId;

    fn id_of_key(key: &[u8]) -> Option<BuildId> {
        uuid::Uuid::from_slice(key).ok().map(BuildId)
    }

    async fn process(&self, id: BuildId) -> Result<(), WorkError> {
        flow::prepare_build(&self.0, id).await
    }

    async fn dead_letter(&self, id: BuildId, reason: Reason) -> Result<(), StoreError> {
        self.0.store.end_unprepared(id, Status::Error, reason, now()).await
    }
}

/// Stages run.
struct RunConsumer(Arc<App>);

impl Consumer for RunConsumer {
    type Id = StageId;

    fn id_of_key(key: &[u8]) -> Option<StageId> {
        stage_id_of_key(key)
    }

    fn key_limit(&self, read: &Read) -> Result<Option<usize>, StoreError> {
        let capacity = self.0.config.engine.capacity.get();
        let share = match self.0.config.limits.repository_capacity {
            Some(share) => share.get(),
            None if read.several_repositories_enabled()? => capacity.saturating_sub(1).max(1),
            None => capacity,
        };
        Ok(Some(usize::from(share)))
    }

    async fn process(&self, id: StageId) -> Result<(), WorkError> {
        flow::run_stage(&self.0, id).await
    }

    async fn dead_letter(&self, id: StageId, reason: Reason) -> Result<(), StoreError> {
        run::abort(&self.0, id, reason).await
    }
}

/// Notices are sent.
struct NoticeConsumer(Arc<App>);

impl Consumer for NoticeConsumer {
    type Id = OrderingKey;

    fn id_of_key(key: &[u8]) -> Option<OrderingKey> {
        OrderingKey::of_key(key)
    }

    async fn process(&self, key: OrderingKey) -> Result<(), WorkError> {
        flow::send_notice(&self.0, key).await
    }

    async fn dead_letter(&self, key: OrderingKey, reason: Reason) -> Result<(), StoreError> {
        notify::dead_letter(&self.0, key, reason).await
    }
}

/// Schedules that are due start their builds.
struct ScheduleConsumer(Arc<App>);

impl Consumer for ScheduleConsumer {
    type Id = ScheduleId;

    fn id_of_key(key: &[u8]) -> Option<ScheduleId> {
        ScheduleId::of_key(key)
    }

    async fn process(&self, id: ScheduleId) -> Result<(), WorkError> {
        flow::start_scheduled_build(&self.0, id).await
    }

    async fn dead_letter(&self, id: ScheduleId, reason: Reason) -> Result<(), StoreError> {
        tracing::error!(schedule = %id.name, repository = %id.repository, %reason, "a scheduled build could not be created");
        self.0.store.skip_due_schedule(id, now()).await
    }
}
