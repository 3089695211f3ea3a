//! Reading a log, wherever in it, in bounded memory.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};

use beespace_core::output::Stream;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use futures::stream::{self, Stream as Flow};

use super::file::Files;
use super::frame::{Header, Record, flag};
use super::write::end;
use super::{Feed, LogEnd, LogError, blocking};

/// Text that [`LogReader::lines`] gives at most in one page.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Reads one log. Cheap to clone; never sees half a frame, whatever the writer is doing.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    pub(super) feed: Arc<Feed>,
    /// Once there is a log.
    files: OnceLock<Files>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// From 1.
    pub number: u64,
    pub stream: Stream,
    /// When its first byte came.
    pub at: Timestamp,
    /// It goes on with an earlier line of the same stream that was cut.
    pub continues: bool,
    /// Masked; bytes as the program printed them, without the newline.
    pub text: Vec<u8>,
}

/// Some lines in a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    pub lines: Vec<LogLine>,
    /// Where a follower goes on that has these lines: see [`LogReader::follow`].
    pub position: u64,
}

impl LogReader {
    pub(super) fn new(path: PathBuf, feed: Arc<Feed>) -> Self {
        Self { shared: Arc::new(Shared { path, feed, files: OnceLock::new() }) }
    }

    /// How many lines there are.
    ///
    /// # Errors
    /// The disk's, as for everything here.
    pub async fn line_count(&self) -> Result<u64, LogError> {
        Ok(self.last().await?.map_or(0, |last| last.lines_after()))
    }

    /// Length of the plain text in bytes.
    ///
    /// # Errors
    /// The disk's.
    pub async fn text_len(&self) -> Result<u64, LogError> {
        Ok(self.last().await?.map_or(0, |last| last.text_after()))
    }

    /// Whether its writer waits because the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.shared.feed.is_full()
    }

    /// How the log ended; `None` while it may grow.
    ///
    /// # Errors
    /// The disk's.
    pub async fn end(&self) -> Result<Option<LogEnd>, LogError> {
        Ok(self.last().await?.filter(|last| last.has(flag::FINISHED)).as_ref().map(end))
    }

    /// When the first line came.
    ///
    /// # Errors
    /// The disk's.
    pub async fn started_at(&self) -> Result<Option<Timestamp>, LogError> {
        self.with(|files| Ok(files.header(0)?.filter(|first| first.records > 0).map(|first| Timestamp(first.at_ms)))).await
    }

    /// Up to `count` lines from the line `from` (from 1), fewer where they are very long.
    ///
    /// # Errors
    /// The disk's, or damage.
    pub async fn lines(&self, from: u64, count: usize) -> Result<LogPage, LogError> {
        self.with(move |files| page(files, from.max(1), count)).await
    }

    /// The last `count` lines.
    ///
    /// # Errors
    /// The disk's, or damage.
    pub async fn tail(&self, count: usize) -> Result<LogPage, LogError> {
        let all = self.line_count().await?;
        self.lines(all.saturating_sub(count as u64) + 1, count).await
    }

    /// The number of the first line that is as wanted, in the first `most` bytes of text.
    ///
    /// # Errors
    /// The disk's, or damage.
    pub async fn first_line(&self, most: usize, is_wanted: fn(&LogLine) -> bool) -> Result<Option<u64>, LogError> {
        self.with(move |files| {
            let (mut next, mut read) = (1, 0);
            while read < most {
                let part = page(files, next, usize::MAX)?;
                if let Some(line) = part.lines.iter().find(|line| is_wanted(line)) {
                    return Ok(Some(line.number));
                }
                let Some(last) = part.lines.last() else { break };
                (next, read) = (last.number + 1, read + part.lines.iter().map(|line| line.text.len() + 1).sum::<usize>());
            }
            Ok(None)
        })
        .await
    }

    /// Where in the plain text the line begins (the text's length, where there is no such line).
    ///
    /// # Errors
    /// The disk's, or damage.
    pub async fn text_offset(&self, line: u64) -> Result<u64, LogError> {
        self.with(move |files| text_offset(files, line)).await
    }

    /// The plain text from byte `from` up to byte `to`, read as fast as it is taken: every line with its newline, the last one
    /// without where the program ended without.
    pub fn text(&self, from: u64, to: u64) -> impl Flow<Item = Result<Bytes, LogError>> + Send + use<> {
        let reader = self.clone();
        stream::try_unfold(from, move |at| {
            let reader = reader.clone();
            async move {
                if at >= to {
                    return Ok(None);
                }
                let part = reader.with(move |files| text_part(files, at, to)).await?;
                Ok((!part.is_empty()).then(|| (part.clone(), at + part.len() as u64)))
            }
        })
    }

    async fn last(&self) -> Result<Option<Header>, LogError> {
        self.with(Files::last).await
    }

    /// Runs `read` where blocking is allowed; a log that has not begun gives what `T` has for nothing.
    pub(super) async fn with<T: Default + Send + 'static>(
        &self,
        read: impl FnOnce(&Files) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.files()?.map_or_else(|| Ok(T::default()), read)).await
    }
}

impl Shared {
    /// The files; the index is made anew first where a crash left one that does not fit, and nobody writes.
    fn files(&self) -> Result<Option<&Files>, LogError> {
        if let Some(files) = self.files.get() {
            return Ok(Some(files));
        }
        let Some(files) = Files::open(&self.path)? else { return Ok(None) };
        let is_written = self.feed.has_writer.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_written && !files.is_consistent()? {
            files.rebuild_index()?;
        }
        drop(is_written);
        Ok(Some(self.files.get_or_init(|| files)))
    }
}

/// The number of the first frame for which `is_connected` holds; it must hold for all that follow.
pub(super) fn first_frame(files: &Files, is_there: impl Fn(&Header) -> bool) -> Result<u64, LogError> {
    let (mut low, mut high) = (0, files.frames()?);
    while low < high {
        let middle = low + (high - low) / 2;
        if files.header(middle)?.is_none_or(|header| is_there(&header)) { high = middle } else { low = middle + 1 }
    }
    Ok(low)
}

pub(super) fn records(files: &Files, header: &Header) -> Result<Vec<Record>, LogError> {
    header.records(&files.body(header)?).ok_or_else(|| files.damaged(header))
}

fn page(files: &Files, from: u64, count: usize) -> Result<LogPage, LogError> {
    let last = from.saturating_add(count as u64) - 1;
    let mut page = LogPage { lines: Vec::new(), position: position_before(files, from)? };
    let (mut frame, mut size) = (first_frame(files, |header| header.lines_after() >= from)?, 0);
    while let Some(header) = files.header(frame)? {
        // A line that is complete needs no look at the frame behind it, which may be damaged.
        if header.lines_before > last || (header.lines_before == last && !header.has(flag::OPEN_BEFORE)) {
            break;
        }
        let mut number = header.lines_before;
        for record in records(files, &header)? {
            number += u64::from(record.begins);
            if number > last || (record.begins && size >= MAX_PAGE_BYTES) {
                return Ok(page);
            }
            if number >= from {
                page.position += 1;
                size += record.text.len();
                extend(&mut page.lines, number, record);
            }
        }
        frame += 1;
    }
    Ok(page)
}

/// How many pieces come before the first one of this line.
pub(super) fn position_before(files: &Files, line: u64) -> Result<u64, LogError> {
    let frame = first_frame(files, |header| header.lines_after() >= line)?;
    let Some(header) = files.header(frame)? else {
        return Ok(files.last()?.map_or(0, |last| last.records_after()));
    };
    let (mut number, mut position) = (header.lines_before, header.records_before);
    for record in records(files, &header)? {
        number += u64::from(record.begins);
        if number >= line {
            break;
        }
        position += 1;
    }
    Ok(position)
}

fn extend(lines: &mut Vec<LogLine>, number: u64, record: Record) {
    match lines.last_mut() {
        Some(line) if line.number == number => line.text.extend_from_slice(&record.text),
        _ => lines.push(LogLine {
            number,
            stream: record.stream,
            at: record.at,
            continues: record.continues,
            text: record.text.to_vec(),
        }),
    }
}

fn text_offset(files: &Files, line: u64) -> Result<u64, LogError> {
    let frame = first_frame(files, |header| header.lines_after() >= line)?;
    let Some(header) = files.header(frame)? else {
        return Ok(files.last()?.map_or(0, |last| last.text_after()));
    };
    let (mut number, mut offset, mut is_open) = (header.lines_before, header.text_before, header.has(flag::OPEN_BEFORE));
    for record in records(files, &header)? {
        offset += u64::from(record.begins && is_open);
        number += u64::from(record.begins);
        if number >= line {
            return Ok(offset);
        }
        offset += record.text.len() as u64 + u64::from(record.ends);
        is_open = !record.ends;
    }
    Ok(offset)
}

/// The text of the frame in which byte `from` lies, from there on.
fn text_part(files: &Files, from: u64, to: u64) -> Result<Bytes, LogError> {
    let frame = first_frame(files, |header| header.text_after() > from)?;
    let Some(header) = files.header(frame)? else { return Ok(Bytes::new()) };
    let mut text = Vec::with_capacity(header.text_len as usize);
    let mut is_open = header.has(flag::OPEN_BEFORE);
    for record in records(files, &header)? {
        if record.begins && is_open {
            text.push(b'\n');
        }
        text.extend_from_slice(&record.text);
        if record.ends {
            text.push(b'\n');
        }
        is_open = !record.ends;
    }
    let place = |at: u64| usize::try_from(at.saturating_sub(header.text_before)).unwrap_or(usize::MAX).min(text.len());
    let (start, stop) = (place(from), place(to));
    Ok(Bytes::from(text).slice(start..stop))
}
