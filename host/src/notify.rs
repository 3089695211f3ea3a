//! Sends the notices of the outbox: at least once, in order per ordering key, and without delaying a build or another notifier.

use std::sync::Arc;
use std::time::Duration;

use beespace_core::change_event::ChangeEvent;
use beespace_core::notice::{AttemptOutcome, MAX_UNKNOWN_OUTCOMES, Notice, NoticeState, Receipt};
use beespace_core::plugin_context::PluginContext;
use beespace_core::policy::ErrorClass;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_wasm::{NoticeInput, SendError};

use crate::app::App;
use crate::clock::now;
use crate::plugins;
use crate::store::notice::{Notices as _, OrderingKey};
use crate::store::outbox::FinishedAttempt;
use crate::store::suspended::Suspension;
use crate::store::{Queue, StoreError};
use crate::urls;
use crate::worker::WorkError;

/// One attempt at the oldest unfinished notice of an ordering key.
///
/// # Errors
/// [`WorkError::Wait`] until the next attempt.
pub async fn send(app: &App, key: &OrderingKey) -> Result<(), WorkError> {
    let oldest = app.store.read()?.oldest_unfinished(key)?;
    let Some(notice) = oldest.filter(|oldest| oldest.state == NoticeState::Pending) else {
        // A person or the propagation of a suspension has finished it since the row was claimed.
        let key = key.key();
        return Ok(app.store.write(move |write| write.dequeue(Queue::Notice, &key)).await?);
    };
    if notice.has_no_attempts_left() {
        let last = notice.last_error.as_deref().unwrap_or("the server ended during the last attempt");
        let message = format!("the outcome of {MAX_UNKNOWN_OUTCOMES} attempts is unknown; the last error: {last}");
        return Ok(dead_letter(app, key.clone(), Reason::new(ReasonCode::DeadLetter, message)).await?);
    }
    let Attempt::Made { outcome, receipt } = attempt(app, &notice).await? else { return Ok(()) };
    let finished = app.store.finish_notice_attempt(notice.id, FinishedAttempt { outcome, receipt }, now(), jitter()).await?;
    if finished.state == NoticeState::Pending {
        return Err(WorkError::Wait { until: finished.next_attempt_at });
    }
    app.metrics.notice(finished.state.as_str());
    Ok(())
}

/// Ends the oldest unfinished notice of an ordering key as a dead letter, which people see with its reason and can retry.
///
/// # Errors
/// The store's.
pub async fn dead_letter(app: &App, key: OrderingKey, reason: Reason) -> Result<(), StoreError> {
    let dead = app.store.dead_letter_notice(key, reason.to_string(), now()).await?;
    dead.iter().for_each(|notice| app.metrics.notice(notice.state.as_str()));
    Ok(())
}

/// Why a notifier sends nothing, and what to do.
#[must_use]
pub fn suspended_reason(binding: &str, suspension: &Suspension) -> Reason {
    Reason::new(ReasonCode::NotifierSuspended, format!("notifier {binding:?} is suspended: {}", suspension.reason)).help(format!(
        "correct the receiver and run `beespace notice retry --notifier {binding}`, or correct the notifier in beespace.toml \
             and restart the server: all of its notices are sent in order"
    ))
}

/// The result of one attempt.
enum Attempt {
    /// The notifier was called, or is missing from the configuration.
    Made { outcome: AttemptOutcome, receipt: Option<Receipt> },
    /// The notice is no longer pending: its binding was suspended meanwhile.
    Skipped,
}

impl Attempt {
    fn failed(outcome: AttemptOutcome) -> Self {
        Self::Made { outcome, receipt: None }
    }
}

/// Calls the notifier once.
async fn attempt(app: &App, notice: &Notice) -> Result<Attempt, StoreError> {
    let Some(notifier) = app.plugins.notifiers.get(&notice.binding) else {
        let message = format!("notifier {:?} is no longer configured", notice.binding);
        return Ok(Attempt::failed(AttemptOutcome::Misconfigured(message)));
    };
    let begun = app.store.begin_notice_attempt(notice.id).await?;
    if begun.state != NoticeState::Pending {
        return Ok(Attempt::Skipped);
    }
    let answer = notifier.send(input(app, &begun)?).await;
    plugins::forward_log(notifier.plugin(), &notice.id.to_string(), &answer.report);
    Ok(match answer.result {
        Ok(receipt) => Attempt::Made { outcome: AttemptOutcome::Sent, receipt: Some(receipt) },
        Err(SendError::Retry { after, reason: why }) => Attempt::failed(AttemptOutcome::Retry { after, why }),
        Err(SendError::Permanent(why)) => Attempt::failed(AttemptOutcome::Permanent(why)),
        Err(SendError::Misconfigured(why)) => Attempt::failed(AttemptOutcome::Refused(why)),
        // No slot was free, so the notifier was not called.
        Err(SendError::Unknown(error)) if error.class == ErrorClass::Busy => {
            Attempt::failed(AttemptOutcome::Retry { after: None, why: error.to_string() })
        }
        Err(SendError::Unknown(error)) => Attempt::failed(AttemptOutcome::Unknown(error.to_string())),
    })
}

/// Propagates the suspension of a binding, or its end, to the binding's notices, batch by batch, until the server stops.
pub async fn propagate_suspension(app: Arc<App>) {
    // Subscribe before the rows are read for the first time, so that no change is missed.
    let mut changes = app.store.watch_changes();
    while !app.stopping.is_cancelled() {
        match app.store.propagate_suspension(now()).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "could not propagate the suspension of a notifier to its notices; retrying");
                app.stopping.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
                continue;
            }
        }
        // A suspension and its end change a notice in the same transaction.
        let change = changes.next_matching(|event| matches!(event, ChangeEvent::NoticeChanged { .. }));
        app.stopping.run_until_cancelled(change).await;
    }
}

fn input(app: &App, notice: &Notice) -> Result<NoticeInput, StoreError> {
    let build = app.build(notice.build)?;
    let link = urls::build_url(&app.config.server.public_url, &build);
    Ok(NoticeInput {
        idempotency_key: notice.idempotency_key.clone(),
        attempt: notice.attempts,
        ordering_key: notice.thread.clone(),
        sequence: notice.sequence,
        context: PluginContext::for_build(&build, notice.id.to_string(), now()),
        subject: notice.subject.clone(),
        previous: app.store.read()?.receipt(&notice.binding, &notice.thread)?,
        links: vec![("build".to_owned(), link)],
    })
}

/// From 0 to 1. If the system has no randomness, the jitter is 0, and retries of several notices may coincide.
fn jitter() -> f64 {
    let mut random = [0; 2];
    let _ = getrandom::fill(&mut random);
    f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX)
}
