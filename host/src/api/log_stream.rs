//! A step's log as it grows. The caller has found the step and checked the right to read it.

use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::Event;
use axum::response::{IntoResponse as _, Response};
use futures::stream::{self, Stream as Flow, StreamExt as _};

use super::log::{LogEndBody, LogFormat, LogLineBody, LogQuery};
use super::sse::{event_stream, json_event};
use crate::log::{LogEnd, LogError, LogEvent, LogReader};
use crate::view::log_html::{LogRows, MAX_ROWS};

/// `GET …/log/stream`: the fragments of all lines from a position on, as they arrive, then `end`.
///
/// Events: `line` with a [`LogLineBody`], or with `format=html` a `row` `{line, html}` that replaces an earlier row of the same
/// line; finally one `end` with a [`LogEndBody`]. `disk-full` with `{"is_full": true}` reports that the step is paused because
/// the server's disk is full, with `false` that it continues. The `id` of lines and rows is their position: a client that
/// reconnects with it as `Last-Event-ID` misses nothing and gets nothing twice. If the log is over and the client has all of it,
/// the response is 204, which stops a browser's `EventSource` from reconnecting.
///
/// With `format=html` the stream is that of a page: it also sends `changes` until the log ends, so that the page needs no second
/// stream, and a page that is more than [`MAX_ROWS`] lines behind gets only that many.
///
/// `over` completes when the step's status is final. The stream then ends even if the step never had a log.
///
/// # Errors
/// [`LogError`] before the stream starts. A later error ends the stream with an event `log-error`.
pub async fn log_stream(
    reader: LogReader,
    page: &str,
    query: &LogQuery,
    headers: &HeaderMap,
    changes: impl Flow<Item = Event> + Send + 'static,
    over: impl Future<Output = ()> + Send + 'static,
) -> Result<Response, LogError> {
    let last_id = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|value| value.trim().parse().ok());
    let position = match (last_id, query.after, query.from, query.tail) {
        (Some(position), ..) | (None, Some(position), ..) => position,
        (None, None, Some(line), _) => reader.position_before(line).await?,
        (None, None, None, Some(tail)) => {
            reader.position_before((reader.line_count().await?.saturating_sub(tail as u64)) + 1).await?
        }
        (None, None, None, None) => 0,
    };
    if last_id.is_some() && reader.end().await?.is_some() && reader.fragment_count().await? <= position {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let events = match query.format {
        LogFormat::Html => {
            let rows = LogRows::new(page, reader.started_at().await?);
            // A row depends on the beginning of its line and on the colours before it, so rendering begins at the frame. The
            // filter drops the rows that the client already has.
            let start = reader.frame_start(position).await?;
            let rows = follow(reader, start, Some(MAX_ROWS), over).filter_map(row_events(rows, position));
            until_end(rows, changes).left_stream()
        }
        LogFormat::Text | LogFormat::Json => follow(reader, position, None, over).map(|event| line_event(&event)).right_stream(),
    };
    Ok(event_stream(events))
}

/// The events of a log and, until it ends, others.
fn until_end(log: impl Flow<Item = Event> + Send, others: impl Flow<Item = Event> + Send) -> impl Flow<Item = Event> + Send {
    let log = log.map(Some).chain(stream::once(async { None }));
    let both = stream::select(Box::pin(log), Box::pin(others.map(Some)));
    both.take_while(|event| std::future::ready(event.is_some())).filter_map(std::future::ready)
}

type Followed = Result<LogEvent, LogError>;

/// Follows the log to its end, or until the step is over, and then reads what is left. Skips lines of a backlog that is longer
/// than `max_behind` lines.
fn follow(
    reader: LogReader,
    position: u64,
    max_behind: Option<u64>,
    over: impl Future<Output = ()> + Send + 'static,
) -> impl Flow<Item = Followed> + Send {
    enum FollowState<F, L, R> {
        Live(LogReader, F, L),
        Remainder(R),
        Over,
    }
    let live = Box::pin(reader.follow_latest(position, max_behind));
    stream::unfold((FollowState::Live(reader, Box::pin(over), live), position), move |(state, position)| async move {
        let mut rest = match state {
            FollowState::Live(reader, mut over, mut live) => {
                tokio::select! {
                    biased;
                    event = live.next() => {
                        let event = event?;
                        let position = if let Ok(LogEvent::Fragment(fragment)) = &event { fragment.position } else { position };
                        return Some((event, (FollowState::Live(reader, over, live), position)));
                    }
                    () = &mut over => Box::pin(reader.available(position, max_behind)),
                }
            }
            FollowState::Remainder(rest) => rest,
            FollowState::Over => return None,
        };
        match rest.next().await {
            Some(Ok(fragment @ LogEvent::Fragment(_))) => Some((Ok(fragment), (FollowState::Remainder(rest), position))),
            Some(last) => Some((last, (FollowState::Over, position))),
            // The step is over and its log has no end, so its writer is gone.
            None => Some((Ok(LogEvent::End(LogEnd { is_incomplete: true, dropped: 0 })), (FollowState::Over, position))),
        }
    })
}

fn line_event(event: &Followed) -> Event {
    match event {
        Ok(LogEvent::Fragment(fragment)) => json_event("line", &LogLineBody::from(fragment)).id(fragment.position.to_string()),
        Ok(LogEvent::End(end)) => json_event("end", &LogEndBody::from(*end)),
        Ok(LogEvent::DiskFull(is_full)) => json_event("disk-full", &serde_json::json!({"is_full": is_full})),
        Err(error) => error_event(error),
    }
}

fn row_events(mut rows: LogRows, known: u64) -> impl FnMut(Followed) -> std::future::Ready<Option<Event>> + Send {
    move |event| {
        std::future::ready(match &event {
            Ok(LogEvent::Fragment(fragment)) => {
                let row = rows.render_fragment(fragment).filter(|_| fragment.position > known);
                row.map(|row| {
                    json_event("row", &serde_json::json!({"line": row.line, "html": row.html})).id(fragment.position.to_string())
                })
            }
            _ => Some(line_event(&event)),
        })
    }
}

fn error_event(error: &LogError) -> Event {
    tracing::error!(%error, "could not follow a log");
    json_event("log-error", &serde_json::json!({"detail": error.public()}))
}
