//! Sends what the outbox holds: at least once, in order within a thread, never in the way of a build.

use std::time::Duration;

use beespace_core::context::Context;
use beespace_core::ids::NoticeId;
use beespace_core::notice::{Notice, NoticeState, Receipt};
use beespace_core::time::Timestamp;
use beespace_wasm::{NoticeInput, SendError};

use crate::address;
use crate::app::App;
use crate::clock::now;
use crate::store::outbox::Notices as _;
use crate::store::queue::backoff;
use crate::store::{Queue, StoreError};
use crate::worker::Trouble;

/// Attempts whose outcome nobody knows (trap, timeout, crash) before a notice is given up.
const MAX_UNKNOWN: u32 = 5;
/// How long a notice is tried at all.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// One attempt at a notice.
///
/// # Errors
/// [`Trouble::Wait`] until the next attempt.
pub async fn send(app: &App, id: NoticeId) -> Result<(), Trouble> {
    let read = app.store.read()?;
    let notice = read.notice(id)?.ok_or(StoreError::NotFound("notice"))?;
    if notice.state != NoticeState::Pending {
        return Ok(app.store.write(move |write| write.dequeue(Queue::Notice, id.0.as_bytes())).await?);
    }
    if let Some(before) = read.earlier_of_thread(&notice)? {
        // It wakes this queue when it is through.
        return Err(Trouble::Wait { until: before.next_attempt_at.max(now()) + Duration::from_secs(1) });
    }
    let Some(notifier) = app.plugins.notifiers.get(&notice.binding) else {
        let message = format!("there is no notifier binding {:?} any more", notice.binding);
        settle(app, &notice, NoticeState::Suspended, Some(message), None).await?;
        return Ok(());
    };
    let notice = begin_attempt(app, &notice).await?;
    let input = input(app, &notice)?;
    drop(read);
    match notifier.send(input).await.result {
        Ok(receipt) => Ok(settle(app, &notice, NoticeState::Sent, None, Some(receipt)).await?),
        Err(SendError::Permanent(message)) => Ok(settle(app, &notice, NoticeState::Dead, Some(message), None).await?),
        Err(SendError::Misconfigured(message)) => Ok(settle(app, &notice, NoticeState::Suspended, Some(message), None).await?),
        Err(SendError::Retry { after, reason }) => again(app, &notice, after, reason, false).await,
        Err(SendError::Unknown(error)) => again(app, &notice, None, error.to_string(), true).await,
    }
}

/// Counts the attempt before it begins, so that a crash in the middle is counted as an unknown outcome.
async fn begin_attempt(app: &App, notice: &Notice) -> Result<Notice, StoreError> {
    app.store
        .change_notice(notice.id, None, |notice| {
            notice.attempts += 1;
            notice.unknown_outcomes += 1;
        })
        .await
}

fn input(app: &App, notice: &Notice) -> Result<NoticeInput, StoreError> {
    let build = app.build(notice.build)?;
    let link = address::build_url(&app.config.server.public_url, &build);
    Ok(NoticeInput {
        idempotency_key: notice.idempotency_key.clone(),
        attempt: notice.attempts,
        thread: notice.thread.clone(),
        sequence: notice.sequence,
        context: Context::of_build(&build, notice.id.to_string(), now()),
        subject: notice.subject.clone(),
        previous: app.store.read()?.receipt(&notice.binding, &notice.thread)?,
        links: vec![("build".to_owned(), link)],
    })
}

async fn settle(
    app: &App,
    notice: &Notice,
    state: NoticeState,
    error: Option<String>,
    receipt: Option<Receipt>,
) -> Result<(), StoreError> {
    let at = now();
    let settled = app.store.change_notice(notice.id, receipt, move |notice| {
        notice.state = state;
        notice.last_error.clone_from(&error);
        notice.unknown_outcomes = notice.unknown_outcomes.saturating_sub(u32::from(state == NoticeState::Sent));
        notice.finished_at = Some(at);
    });
    let settled = settled.await?;
    app.metrics.notice(settled.state.as_str());
    // The next one of the thread may go now.
    app.store.wake(Queue::Notice);
    Ok(())
}

/// Puts it off with growing pauses, or gives it up.
async fn again(app: &App, notice: &Notice, after: Option<Duration>, why: String, unknown: bool) -> Result<(), Trouble> {
    let given_up = if unknown { notice.unknown_outcomes >= MAX_UNKNOWN } else { now().since(notice.created_at) > MAX_AGE };
    if given_up {
        return Ok(settle(app, notice, NoticeState::Dead, Some(why), None).await?);
    }
    let until = next_attempt(now(), notice.attempts, after);
    app.store
        .change_notice(notice.id, None, move |notice| {
            notice.last_error = Some(why.clone());
            notice.next_attempt_at = until;
            if !unknown {
                notice.unknown_outcomes = notice.unknown_outcomes.saturating_sub(1);
            }
        })
        .await?;
    Err(Trouble::Wait { until })
}

/// Exponential, with full jitter over its upper half so that a service that comes back is not met by everything at once; a
/// notifier's own wish holds within a second and an hour.
fn next_attempt(now: Timestamp, attempt: u32, wish: Option<Duration>) -> Timestamp {
    let pause = match wish {
        Some(wish) => wish.clamp(Duration::from_secs(1), Duration::from_secs(3600)),
        None => backoff(attempt),
    };
    let mut random = [0; 2];
    // Without randomness there is no jitter, which is only a nuisance.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
    now + pause.mul_f64(0.5 + share / 2.0)
}
