//! Cleanup of history. Builds are removed after the configured retention time, with their logs, decisions, notices, deliveries
//! and pins. Digests of deliveries that no webhook accepts, and mirrors that no build needs, are removed too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use beespace_core::ids::{BuildId, DeliveryId, RepositoryId};
use beespace_core::time::Timestamp;

use crate::app::App;
use crate::clock::now;
use crate::mirror_cleanup;
use crate::store::StoreError;
use crate::store::build::Builds as _;

/// The interval between two passes.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// The time from the start to the first pass, so that the server starts with its builds.
const FIRST_PASS_AFTER: Duration = Duration::from_secs(60);

/// Repeats the pass until the server stops.
pub async fn serve(app: Arc<App>) {
    let mut pause = FIRST_PASS_AFTER;
    while app.stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        if let Err(error) = look_and_pass(&app, now()).await {
            tracing::warn!(error = format!("{error:#}"), "could not remove expired builds and deliveries");
        }
        pause = INTERVAL;
    }
}

/// One pass, if the clock can be trusted; returns whether it can. After a jump of the clock everything looks old at once, so
/// nothing is removed until a later look confirms the jump.
///
/// # Errors
/// As [`pass`].
pub async fn look_and_pass(app: &App, now: Timestamp) -> Result<bool> {
    if let Some(suspicion) = app.store.check_clock(now).await?.suspicion() {
        if let Some(days) = suspicion.jump.map(|jump| jump.as_secs() / 86_400).filter(|_| suspicion.since == now) {
            tracing::warn!(
                days,
                "the clock is days ahead of the last look: nothing expires until it has gone on regularly for a day; if the time \
                 is wrong, correct it"
            );
        }
        return Ok(false);
    }
    if let Some(kept) = app.config.retention.builds {
        let before = Timestamp(now.0.saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)));
        match pass(app, before).await? {
            (0, 0) => {}
            (builds, deliveries) => tracing::info!(builds, deliveries, "removed expired builds and deliveries"),
        }
        app.store.forget_unacceptable_deliveries(now).await?;
    }
    mirror_cleanup::pass(app, now).await?;
    Ok(true)
}

/// Removes the builds that ended, and the deliveries that arrived, before `before`; returns how many of each. A stop of the
/// server ends the pass between two batches, and the next pass continues.
///
/// # Errors
/// The store's, or the disk's if a log or a pin cannot be removed: the build stays, and the next pass tries again.
pub async fn pass(app: &App, before: Timestamp) -> Result<(usize, usize)> {
    Ok((remove_builds(app, before).await?, remove_deliveries(app, before).await?))
}

async fn remove_builds(app: &App, before: Timestamp) -> Result<usize> {
    let (mut removed, mut after) = (0, None::<BuildId>);
    while !app.stopping.is_cancelled() {
        let batch = app.store.read()?.expired_builds(after, before)?;
        // Logs and pins first: the next pass finds a build without a log, but nothing would find a log without a build.
        for id in &batch.removable {
            app.logs.remove(*id).await?;
        }
        for (repository, builds) in by_repository(app, &batch.removable)? {
            app.mirrors.of(repository).unpin(&builds).await?;
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

fn by_repository(app: &App, builds: &[BuildId]) -> Result<BTreeMap<RepositoryId, Vec<BuildId>>, StoreError> {
    let read = app.store.read()?;
    let mut all = BTreeMap::<_, Vec<BuildId>>::new();
    for id in builds {
        if let Some(build) = read.build(*id)? {
            all.entry(build.event.repository.id).or_default().push(*id);
        }
    }
    Ok(all)
}

async fn remove_deliveries(app: &App, before: Timestamp) -> Result<usize> {
    let (mut removed, mut after) = (0, None::<DeliveryId>);
    while !app.stopping.is_cancelled() {
        let batch = app.store.read()?.expired_deliveries(after, before)?;
        removed += batch.removable.len();
        if !batch.removable.is_empty() {
            app.store.purge_deliveries(batch.removable, now()).await?;
        }
        let Some(next) = batch.next else { break };
        after = Some(next);
    }
    Ok(removed)
}
