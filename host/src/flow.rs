//! The way of a push, as `ARCHITECTURE.md` draws it. Each function takes a row from one `│stored│` bar to the next; the worker of
//! its queue calls it again until the row is through.
//!
//! The first bar is in [`crate::webhook`]: verify, store, 202.

use std::sync::Arc;

use beespace_core::gogs;
use beespace_core::ids::{BuildId, DeliveryId, StageId};
use beespace_core::reason::Reason;
use beespace_core::trigger::{self, DeliveryRepeat, TriggerDecision};
use beespace_core::verify;
use tracing::instrument;

use crate::app::App;
use crate::clock::now;
use crate::resolve::{Resolved, resolve};
use crate::store::StoreError;
use crate::store::build::Prepared;
use crate::store::delivery::{Deliveries as _, DeliveryAction};
use crate::store::outbox::OrderingKey;
use crate::worker::Trouble;
use crate::{notify, prepare, run};

/// `│delivery stored│ ─▶ event ─▶ │build stored│`
///
/// # Errors
/// The store's. A body that cannot be read is no error: the delivery ends as a dead letter with the reason.
#[instrument(skip_all, fields(delivery = %id))]
pub async fn process_delivery(app: &App, id: DeliveryId) -> Result<(), Trouble> {
    let (delivery, body) = {
        let read = app.store.read()?;
        (read.delivery(id)?.ok_or(StoreError::NotFound("delivery"))?, read.delivery_body(id)?)
    };
    let body = body.and_then(|body| verify::restore(body, delivery.sha256));
    let happening = match body {
        Some(body) => gogs::parse(&delivery.event, &body).map_err(|malformed| malformed.reason),
        None => Err(Reason::new("damaged", "the stored body is not the one that was signed")),
    };
    let git_ref = happening.as_ref().ok().and_then(trigger::recorded_ref);
    let telling = if delivery.is_repeat { DeliveryRepeat::Repeated } else { DeliveryRepeat::First };
    let build = BuildId(uuid::Uuid::now_v7());
    let settled = app.store.finish_delivery(id, git_ref, now(), move |last| match &happening {
        Err(reason) => DeliveryAction::DeadLetter(reason.clone()),
        Ok(happening) => match trigger::decide(happening, delivery.repository, telling, last) {
            TriggerDecision::Build(event) => DeliveryAction::Build { id: build, event },
            TriggerDecision::Ignored { reason, forget_ref } => DeliveryAction::Ignore { reason, forget_ref },
        },
    });
    Ok(settled.await?)
}

/// `│build stored│ ─▶ source ─▶ pipeline ─▶ admit ─▶ plan ─▶ admit ─▶ │stages stored│`
///
/// # Errors
/// [`Trouble::CallKind`] while Gogs cannot give the commit.
#[instrument(skip_all, fields(build = %id))]
pub async fn prepare_build(app: &App, id: BuildId) -> Result<(), Trouble> {
    let mut build = app.build(id)?;
    let prepared = match resolve(app, &build).await? {
        Resolved::Ignored(reason) => Prepared::Ignored(reason),
        Resolved::Over(status, reason) => prepare::over(build, status, reason),
        Resolved::Commit(commit) => {
            build.head = Some(commit.head.clone());
            prepare::stages(app, build, &commit).await?
        }
    };
    Ok(app.store.store_prepared(id, prepared, app.plugins.notifier_names(), now()).await?)
}

/// `│stages stored│ ─▶ run ─▶ log ─▶ outcome ─▶ │outbox stored│`
///
/// # Errors
/// [`Trouble::HandedOver`] when the server stops.
#[instrument(skip_all, fields(stage = %id))]
pub async fn run_stage(app: &Arc<App>, id: StageId) -> Result<(), Trouble> {
    run::stage(app, id).await
}

/// `│outbox stored│ ─▶ notify`
///
/// # Errors
/// [`Trouble::CallKind`] until the next attempt.
#[instrument(skip_all, fields(binding = thread.binding))]
pub async fn send_notice(app: &App, thread: OrderingKey) -> Result<(), Trouble> {
    notify::send(app, &thread).await
}
