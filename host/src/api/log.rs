//! The formats of a step's log: all of it, a range, and its end. The caller has found the step and checked the right to read it.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use beespace_core::output::Stream;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::log::{LogEnd, LogError, LogFragment, LogLine, LogReader};
use crate::view::log_html::LogRows;

/// The maximum number of lines in one response as JSON or HTML. Plain text has no limit.
const MAX_LINES: usize = 5_000;

/// The requested part of a log, and its format.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// The first line, from 1.
    pub from: Option<u64>,
    /// The number of lines from there (`json` and `html`: at most 5,000).
    pub lines: Option<usize>,
    /// The number of lines from the end, instead of `from` and `lines`.
    pub tail: Option<usize>,
    /// The format of the lines; `text` by default.
    #[serde(default)]
    pub format: LogFormat,
    /// Whether browsers save the log as a file.
    #[serde(default)]
    pub download: bool,
    /// The attempt at the step; the last one by default.
    pub attempt: Option<u16>,
    /// Live log only: the position to continue after. `Last-Event-ID` takes precedence.
    pub after: Option<u64>,
}

/// The format of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// The output of the program, masked.
    #[default]
    Text,
    /// Lines with number, stream and time.
    Json,
    /// Coloured rows for a page.
    Html,
}

/// Lines as JSON.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct LogLines {
    pub lines: Vec<LogLineBody>,
    /// The position to pass to the live log as `after`, so that it continues without a gap.
    pub position: u64,
    /// The number of lines in the log.
    pub line_count: u64,
    /// The end of the log; none while it may still grow.
    pub end: Option<LogEndBody>,
}

/// A line, or a fragment of a line in the live log.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct LogLineBody {
    /// Counted from 1. All fragments of a line have the same number.
    pub line: u64,
    /// `stdout`, `stderr` or `host`.
    #[schema(value_type = String)]
    pub stream: Stream,
    /// When the first byte of the line was printed, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub at_ms: Timestamp,
    pub text: String,
    /// Whether this is the first fragment of its line.
    pub begins: bool,
    /// Whether this is the last fragment of its line.
    pub ends: bool,
    /// Whether this line continues an earlier one, which was split because of its length or by output of another stream.
    pub continues: bool,
}

/// The end of a log.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
pub struct LogEndBody {
    pub incomplete: bool,
    /// Bytes beyond the limit, which were not stored.
    pub dropped_bytes: u64,
}

impl From<LogEnd> for LogEndBody {
    fn from(end: LogEnd) -> Self {
        Self { incomplete: end.is_incomplete, dropped_bytes: end.dropped }
    }
}

impl From<LogLine> for LogLineBody {
    fn from(line: LogLine) -> Self {
        let text = String::from_utf8_lossy(&line.text).into_owned();
        let LogLine { number, stream, at, continues, .. } = line;
        Self { line: number, stream, at_ms: at, text, begins: true, ends: true, continues }
    }
}

impl From<&LogFragment> for LogLineBody {
    fn from(fragment: &LogFragment) -> Self {
        let text = String::from_utf8_lossy(&fragment.text).into_owned();
        let LogFragment { line, stream, at, begins, ends, continues, .. } = *fragment;
        Self { line, stream, at_ms: at, text, begins, ends, continues }
    }
}

/// `GET …/log`: all of the log, some lines, or bytes (`Range`). `name` is the name of a downloaded file, `page` the path to which
/// line numbers in HTML link.
///
/// # Errors
/// [`LogError`] if the log cannot be read or is damaged.
pub async fn log_text(
    reader: &LogReader,
    name: &str,
    page: &str,
    query: &LogQuery,
    headers: &HeaderMap,
) -> Result<Response, LogError> {
    match query.format {
        LogFormat::Text => plain(reader, name, query, headers).await,
        LogFormat::Json => {
            let (found, line_count) = requested_lines(reader, query).await?;
            let end = reader.end().await?.map(LogEndBody::from);
            let lines = found.lines.into_iter().map(LogLineBody::from).collect();
            Ok(Json(LogLines { lines, position: found.position, line_count, end }).into_response())
        }
        LogFormat::Html => {
            let mut rows = LogRows::new(page, reader.started_at().await?);
            let (found, _) = requested_lines(reader, query).await?;
            let html: String = found.lines.iter().map(|line| rows.render_line(line).html).collect();
            let position = HeaderValue::from(found.position);
            let mut response = axum::response::Html(html).into_response();
            response.headers_mut().insert(HeaderName::from_static("beespace-log-position"), position);
            Ok(response)
        }
    }
}

async fn requested_lines(reader: &LogReader, query: &LogQuery) -> Result<(crate::log::LogPage, u64), LogError> {
    let all = reader.line_count().await?;
    let found = match query.tail {
        Some(tail) => reader.tail(tail.min(MAX_LINES)).await?,
        None => reader.lines(query.from.unwrap_or(1), query.lines.unwrap_or(MAX_LINES).min(MAX_LINES)).await?,
    };
    Ok((found, all))
}

async fn plain(reader: &LogReader, name: &str, query: &LogQuery, headers: &HeaderMap) -> Result<Response, LogError> {
    let len = reader.text_len().await?;
    let (from, to) = requested_bytes(reader, query, len).await?;
    let is_whole = (from, to) == (0, len);
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).filter(|_| is_whole);
    let (status, from, to) = match range.map_or(Range::Whole, |range| Range::parse(range, len)) {
        Range::Whole => (StatusCode::OK, from, to),
        Range::Part(from, to) => (StatusCode::PARTIAL_CONTENT, from, to),
        Range::Outside => {
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, format!("bytes */{len}"))]).into_response());
        }
    };
    let mut response = Body::from_stream(reader.text(from, to)).into_response();
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if is_whole {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    if status == StatusCode::PARTIAL_CONTENT {
        insert(headers, header::CONTENT_RANGE, &format!("bytes {from}-{}/{len}", to.saturating_sub(1)));
    }
    if query.download {
        // The name of a step is untrusted, so only characters that need no quoting are kept.
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' }).collect();
        insert(headers, header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}.log\""));
    }
    Ok(response)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The requested bytes of the plain text.
async fn requested_bytes(reader: &LogReader, query: &LogQuery, len: u64) -> Result<(u64, u64), LogError> {
    let first = match (query.tail, query.from) {
        (Some(tail), _) => reader.line_count().await?.saturating_sub(tail as u64) + 1,
        (None, Some(from)) => from.max(1),
        (None, None) => 1,
    };
    let from = if first == 1 { 0 } else { reader.text_offset(first).await?.min(len) };
    let to = match query.lines.filter(|_| query.tail.is_none()) {
        Some(lines) => reader.text_offset(first.saturating_add(lines as u64)).await?.clamp(from, len),
        None => len,
    };
    Ok((from, to))
}

/// A `Range` header (RFC 9110 section 14).
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// No range, or one that a server may ignore: several ranges, another unit.
    Whole,
    /// From the first byte to the last, exclusive.
    Part(u64, u64),
    /// A range beyond the end.
    Outside,
}

impl Range {
    fn parse(header: &str, len: u64) -> Self {
        let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        let (from, to) = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(len)),
            (Ok(first), Err(_)) if last.trim().is_empty() => (first, len),
            (Err(_), Ok(last)) if first.trim().is_empty() => (len.saturating_sub(last), len),
            _ => return Self::Whole,
        };
        if from < to { Self::Part(from, to) } else { Self::Outside }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_by_rfc_9110() {
        for (header, expected) in [
            ("bytes=0-0", Range::Part(0, 1)),
            ("bytes=10-", Range::Part(10, 100)),
            ("bytes=-10", Range::Part(90, 100)),
            ("bytes=-1000", Range::Part(0, 100)),
            ("bytes=90-1000", Range::Part(90, 100)),
            ("bytes=100-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=5-4", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("lines=0-1", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes=-", Range::Whole),
        ] {
            assert_eq!(Range::parse(header, 100), expected, "{header}");
        }
        assert_eq!(Range::parse("bytes=0-", 0), Range::Outside);
    }
}
