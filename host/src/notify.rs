//! Sends what the outbox holds: at least once, in order within a thread, never in the way of a build or of another notifier.

use std::sync::Arc;
use std::time::Duration;

use beespace_core::change_event::ChangeEvent;
use beespace_core::notice::{AttemptOutcome, MAX_UNKNOWN_OUTCOMES, Notice, NoticeState, Receipt};
use beespace_core::plugin_context::PluginContext;
use beespace_core::policy::ErrorClass;
use beespace_core::reason::Reason;
use beespace_wasm::{NoticeInput, SendError};
use tokio::sync::broadcast::error::RecvError;

use crate::app::App;
use crate::clock::now;
use crate::plugins;
use crate::store::outbox::{Notices as _, OrderingKey};
use crate::store::suspended::Suspension;
use crate::store::{Queue, StoreError};
use crate::urls;
use crate::worker::Trouble;

/// Notices of one binding that are under way at once. A receiver that hangs takes these places and no other's.
pub const SENT_AT_ONCE: usize = 4;

/// Places to send from: each binding has its own.
#[must_use]
pub fn send_slots(bindings: usize) -> usize {
    // Notices of a binding that is gone need one, too.
    SENT_AT_ONCE * (bindings + 1)
}

/// One attempt at the first notice of a thread.
///
/// # Errors
/// [`Trouble::CallKind`] until the next attempt.
pub async fn send(app: &App, thread: &OrderingKey) -> Result<(), Trouble> {
    let first = app.store.read()?.oldest_unfinished(thread)?;
    let Some(notice) = first.filter(|first| first.state == NoticeState::Pending) else {
        // Somebody settled it between our look and this one.
        let key = thread.key();
        return Ok(app.store.write(move |write| write.dequeue(Queue::Notice, &key)).await?);
    };
    if notice.has_no_attempts_left() {
        let last = notice.last_error.as_deref().unwrap_or("the server ended while it was sent");
        let reason =
            Reason::new("dead-letter", format!("given up: nobody knows what came of {MAX_UNKNOWN_OUTCOMES} attempts; {last}"));
        return Ok(give_up(app, thread.clone(), reason).await?);
    }
    let Some((attempt, receipt)) = attempt(app, &notice).await? else { return Ok(()) };
    let concluded = app.store.finish_notice_attempt(notice.id, (attempt, receipt), now(), jitter()).await?;
    if concluded.state == NoticeState::Pending {
        return Err(Trouble::Wait { until: concluded.next_attempt_at });
    }
    app.metrics.notice(concluded.state.as_str());
    Ok(())
}

/// The first notice of a thread is not tried any more; people see why and can replay it.
///
/// # Errors
/// The store's.
pub async fn give_up(app: &App, thread: OrderingKey, reason: Reason) -> Result<(), StoreError> {
    let buried = app.store.dead_letter_notice(thread, reason.to_string(), now()).await?;
    buried.iter().for_each(|notice| app.metrics.notice(notice.state.as_str()));
    Ok(())
}

/// For people: nothing goes through a binding, why, and what to do.
#[must_use]
pub fn suspended_reason(binding: &str, held: &Suspension) -> Reason {
    Reason::new("notifier-suspended", format!("nothing goes through notifier {binding:?}: {}", held.reason)).help(
        "mend it, in beespace.toml or at the receiver; then replay one of its notices, or restart the server, and all of them go on in \
         order",
    )
}

/// Calls the notifier once; not at all where its binding was held meanwhile.
async fn attempt(app: &App, notice: &Notice) -> Result<Option<(AttemptOutcome, Option<Receipt>)>, StoreError> {
    let Some(notifier) = app.plugins.notifiers.get(&notice.binding) else {
        let message = format!("there is no notifier {:?} in the configuration any more", notice.binding);
        return Ok(Some((AttemptOutcome::Misconfigured(message), None)));
    };
    let begun = app.store.begin_notice_attempt(notice.id).await?;
    if begun.state != NoticeState::Pending {
        return Ok(None);
    }
    let answer = notifier.send(input(app, &begun)?).await;
    plugins::forward_log(notifier.plugin(), &notice.id.to_string(), &answer.report);
    let attempt = match answer.result {
        Ok(receipt) => return Ok(Some((AttemptOutcome::Sent, Some(receipt)))),
        Err(SendError::Retry { after, reason: why }) => AttemptOutcome::Retry { after, why },
        Err(SendError::Permanent(why)) => AttemptOutcome::Permanent(why),
        Err(SendError::Misconfigured(why)) => AttemptOutcome::Misconfigured(why),
        // It was not called at all.
        Err(SendError::Unknown(error)) if error.class == ErrorClass::Busy => {
            AttemptOutcome::Retry { after: None, why: error.to_string() }
        }
        Err(SendError::Unknown(error)) => AttemptOutcome::Unknown(error.to_string()),
    };
    Ok(Some((attempt, None)))
}

/// Lets notices hear that their binding is held, or let go again, piece by piece, until the server stops.
pub async fn propagate_suspension(app: Arc<App>) {
    // From before the first look at the rows, so that nothing is missed between the two.
    let mut changes = app.store.watch();
    while !app.stopping.is_cancelled() {
        match app.store.propagate_suspension(now()).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "notices do not hear that their notifier is suspended, or goes on");
                app.stopping.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
                continue;
            }
        }
        // Where a binding is held or let go, a notice changes.
        let change = async {
            while !matches!(
                changes.recv().await,
                Ok(ChangeEvent::NoticeChanged { .. }) | Err(RecvError::Lagged(_) | RecvError::Closed)
            ) {}
        };
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

/// From 0 to 1. Without randomness there is none, which is only a nuisance.
fn jitter() -> f64 {
    let mut random = [0; 2];
    let _ = getrandom::fill(&mut random);
    f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX)
}
