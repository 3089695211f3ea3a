//! The path of a push, as `ARCHITECTURE.md` draws it. Each function takes a row from one `│stored│` bar to the next; the
//! worker of its queue calls it again until the row is done.
//!
//! The first bar is in [`crate::webhook`]: verify, store, 202.

use std::sync::Arc;

use beespace_core::gogs;
use beespace_core::ids::{BuildId, DeliveryId, StageId};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::trigger::{self, DeliveryRepeat, TriggerDecision};
use beespace_core::verify;
use tracing::instrument;

use crate::app::App;
use crate::clock::now;
use crate::repository_identity::Identity;
use crate::source::Resolution;
use crate::store::StoreError;
use crate::store::build_lifecycle::Prepared;
use crate::store::delivery::{Deliveries as _, DeliveryAction};
use crate::store::notice::OrderingKey;
use crate::store::schedule::ScheduleId;
use crate::worker::WorkError;
use crate::{notify, prepare, repository_identity, run};

/// `│delivery stored│ ─▶ event ─▶ │build stored│`
///
/// # Errors
/// The store's, and [`WorkError::Wait`] while Gogs cannot confirm a new name of the repository. A body that cannot be read is
/// not an error: the delivery ends as a dead letter with the reason.
#[instrument(name = "event", skip_all, fields(delivery = %id))]
pub async fn process_delivery(app: &App, id: DeliveryId) -> Result<(), WorkError> {
    let (delivery, body) = {
        let read = app.store.read()?;
        (read.delivery(id)?.ok_or(StoreError::NotFound("delivery"))?, read.delivery_body(id)?)
    };
    let body = body.and_then(|body| verify::restore(body, delivery.sha256));
    let event = match body {
        Some(body) => gogs::parse(&delivery.event, &body).map_err(|malformed| malformed.reason),
        None => Err(Reason::new(ReasonCode::DeliveryCorrupt, "the stored body is not the one that was signed")),
    };
    let identity = repository_identity::of_delivery(app, &delivery, event.as_ref().ok()).await?;
    let git_ref = event.as_ref().ok().and_then(trigger::recorded_ref);
    let repeat = if delivery.is_repeat { DeliveryRepeat::Repeated } else { DeliveryRepeat::First };
    let finished = app.store.finish_delivery(id, git_ref, now(), move |last| match (&event, &identity) {
        (Err(reason), _) => DeliveryAction::DeadLetter(reason.clone()),
        (Ok(_), Identity::Refused(reason)) => DeliveryAction::Ignore { reason: reason.clone(), forget_ref: None },
        (Ok(event), Identity::Confirmed(repository)) => match trigger::decide(event, repository, repeat, last) {
            TriggerDecision::Build(events) => {
                DeliveryAction::Build(events.into_iter().map(|event| (BuildId(uuid::Uuid::now_v7()), event)).collect())
            }
            TriggerDecision::Update { pull_request, reason } => DeliveryAction::Update { pull_request, reason },
            TriggerDecision::Ignored { reason, forget_ref } => DeliveryAction::Ignore { reason, forget_ref },
        },
    });
    Ok(finished.await?)
}

/// `│schedule stored│ ─▶ │build stored│`
///
/// # Errors
/// The store's.
#[instrument(name = "schedule", skip_all, fields(schedule = %id.name, repository = %id.repository))]
pub async fn start_scheduled_build(app: &App, id: ScheduleId) -> Result<(), WorkError> {
    app.store.run_due_schedule(id, BuildId(uuid::Uuid::now_v7()), now()).await?;
    Ok(())
}

/// `│build stored│ ─▶ source ─▶ pipeline ─▶ admit ─▶ plan ─▶ admit ─▶ │stages stored│`
///
/// # Errors
/// [`WorkError::Wait`] while Gogs cannot provide the commit.
#[instrument(name = "prepare", skip_all, fields(build = %id))]
pub async fn prepare_build(app: &App, id: BuildId) -> Result<(), WorkError> {
    let mut build = app.build(id)?;
    let pull_request = build.event.pull_request().map(|pull| (build.event.repository.id, pull.number));
    let prepared = match prepare::resolve(app, &mut build).await? {
        Resolution::Ignored(reason) => Prepared::Ignored(reason),
        Resolution::Ended(status, reason) => prepare::ended_without_stages(build, status, reason),
        Resolution::Commit(commit) => {
            (build.head, build.trust) = (Some(commit.head.clone()), Some(commit.trust));
            let prepared = prepare::stages(app, build, &commit).await?;
            if !matches!(prepared, Prepared::Ignored(_)) {
                commit.pin(id).await.map_err(anyhow::Error::from)?;
            }
            prepared
        }
    };
    if let Some((repository, number)) = pull_request {
        app.mirrors.of(repository).forget_pull_request(number).await.map_err(anyhow::Error::from)?;
    }
    Ok(app.store.store_prepared(id, prepared, now()).await?)
}

/// `│stages stored│ ─▶ run ─▶ log ─▶ outcome ─▶ │outbox stored│`
///
/// # Errors
/// [`WorkError::HandedOver`] when the server stops.
#[instrument(name = "run", skip_all, fields(stage = %id))]
pub async fn run_stage(app: &Arc<App>, id: StageId) -> Result<(), WorkError> {
    run::stage(app, id).await
}

/// `│outbox stored│ ─▶ notify`
///
/// # Errors
/// [`WorkError::Wait`] until the next attempt.
#[instrument(name = "notify", skip_all, fields(binding = key.binding))]
pub async fn send_notice(app: &App, key: OrderingKey) -> Result<(), WorkError> {
    notify::send(app, &key).await
}
