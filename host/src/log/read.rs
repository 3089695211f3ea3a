//! Reads a log at any position with bounded memory.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};

use beespace_core::output::Stream;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use futures::stream::{self, Stream as AsyncStream};

use super::file::Files;
use super::frame::{Header, Record, flag};
use super::scan_slots::ScanSlots;
use super::write::end;
use super::{Feed, LogEnd, LogError, blocking};

/// The maximum memory of one page of [`LogReader::lines`], in bytes.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The least that a frame costs a scan, in bytes: a program that prints slowly has many frames of few bytes, and each is read and
/// decompressed on its own.
const MIN_FRAME_COST: usize = 4 * 1024;

/// Reads one log. It is cheap to clone, and never sees an incomplete frame, even while the log is being written.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(super) shared: Arc<SharedLog>,
}

#[derive(Debug)]
pub(super) struct SharedLog {
    path: PathBuf,
    pub(super) feed: Arc<Feed>,
    /// Set when the log exists.
    files: OnceLock<Files>,
    scans: ScanSlots,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The line number, from 1.
    pub number: u64,
    pub stream: Stream,
    /// The time of its first byte.
    pub at: Timestamp,
    /// Whether it continues an earlier line of the same stream that was cut.
    pub continues: bool,
    /// The masked bytes as the program printed them, without the newline.
    pub text: Vec<u8>,
}

/// Consecutive lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    pub lines: Vec<LogLine>,
    /// The position after these lines, for [`LogReader::follow`].
    pub position: u64,
}

/// The result of a [scan](LogReader::scan).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan<T> {
    pub found: T,
    /// The first line that was not visited, if the scan ended before the log did.
    pub next: Option<u64>,
}

impl LogReader {
    pub(super) fn new(path: PathBuf, feed: Arc<Feed>, scans: ScanSlots) -> Self {
        Self { shared: Arc::new(SharedLog { path, feed, files: OnceLock::new(), scans }) }
    }

    /// The number of lines.
    ///
    /// # Errors
    /// I/O errors, as for every function here.
    pub async fn line_count(&self) -> Result<u64, LogError> {
        Ok(self.last().await?.map_or(0, |last| last.lines_after()))
    }

    /// The length of the plain text in bytes.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn text_len(&self) -> Result<u64, LogError> {
        Ok(self.last().await?.map_or(0, |last| last.text_after()))
    }

    /// Whether the writer waits because the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.shared.feed.is_full()
    }

    /// How the log ended; `None` while it can grow.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn end(&self) -> Result<Option<LogEnd>, LogError> {
        Ok(self.last().await?.filter(|last| last.has(flag::FINISHED)).as_ref().map(end))
    }

    /// The time of the first line.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn started_at(&self) -> Result<Option<Timestamp>, LogError> {
        self.with(|files| Ok(files.header(0)?.filter(|first| first.records > 0).map(|first| Timestamp(first.at_ms)))).await
    }

    /// Up to `count` lines, beginning with line `from` (counted from 1). Returns fewer if they are very long.
    ///
    /// # Errors
    /// I/O errors, or [`LogError::Damaged`].
    pub async fn lines(&self, from: u64, count: usize) -> Result<LogPage, LogError> {
        self.with(move |files| page(files, from.max(1), count)).await
    }

    /// The last `count` lines.
    ///
    /// # Errors
    /// I/O errors, or [`LogError::Damaged`].
    pub async fn tail(&self, count: usize) -> Result<LogPage, LogError> {
        let all = self.line_count().await?;
        self.lines(all.saturating_sub(count as u64) + 1, count).await
    }

    /// Calls `visit` with each line from line `from` (counted from 1) on, until it breaks or `max_bytes` of frames are read.
    /// Holds one frame and one line at a time, however long the log is. Only a few scans of all logs run at once.
    ///
    /// # Errors
    /// [`LogError::TooManyScans`]; I/O errors, or [`LogError::Damaged`].
    pub async fn scan<T: Default + Send + 'static>(
        &self,
        from: u64,
        max_bytes: usize,
        mut visit: impl FnMut(&mut T, &LogLine) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Scan<T>, LogError> {
        let slot = self.shared.scans.acquire().await?;
        self.with(move |files| {
            // The scan runs to its end even if nobody waits for it any more.
            let _slot = slot;
            let mut found = T::default();
            let next = scan(files, from.max(1), max_bytes, |line| visit(&mut found, line))?;
            Ok(Scan { found, next })
        })
        .await
    }

    /// The first line of the end of the log that a [`scan`](Self::scan) of `max_bytes` reads to the last line.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn start_of_end(&self, max_bytes: usize) -> Result<u64, LogError> {
        self.with(move |files| start_of_end(files, max_bytes)).await.map(|line| line.max(1))
    }

    /// The offset of the line in the plain text, or the text's length if there is no such line.
    ///
    /// # Errors
    /// I/O errors, or [`LogError::Damaged`].
    pub async fn text_offset(&self, line: u64) -> Result<u64, LogError> {
        self.with(move |files| text_offset(files, line)).await
    }

    /// Streams the plain text from byte `from` up to byte `to`. Every line ends with a newline, except the last one if the
    /// program did not print one.
    pub fn text(&self, from: u64, to: u64) -> impl AsyncStream<Item = Result<Bytes, LogError>> + Send + use<> {
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

    /// Runs `read` on the blocking thread pool. Returns `T::default()` if the log does not exist yet.
    pub(super) async fn with<T: Default + Send + 'static>(
        &self,
        read: impl FnOnce(&Files) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.files()?.map_or_else(|| Ok(T::default()), read)).await
    }
}

impl SharedLog {
    /// Opens the files. If a crash left an inconsistent index and no writer exists, the index is rebuilt first.
    fn files(&self) -> Result<Option<&Files>, LogError> {
        if let Some(files) = self.files.get() {
            return Ok(Some(files));
        }
        let Some(files) = Files::open(&self.path)? else { return Ok(None) };
        let has_writer = self.feed.has_writer.lock().unwrap_or_else(PoisonError::into_inner);
        if !*has_writer && !files.is_consistent()? {
            files.rebuild_index()?;
        }
        drop(has_writer);
        Ok(Some(self.files.get_or_init(|| files)))
    }
}

/// The number of the first frame that satisfies the predicate, by binary search: all later frames must satisfy it too.
pub(super) fn first_frame(files: &Files, is_match: impl Fn(&Header) -> bool) -> Result<u64, LogError> {
    let (mut low, mut high) = (0, files.frames()?);
    while low < high {
        let middle = low + (high - low) / 2;
        if files.intact_header(middle)?.is_none_or(|header| is_match(&header)) { high = middle } else { low = middle + 1 }
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
        let mut number = header.lines_before;
        for record in records(files, &header)? {
            number += u64::from(record.begins);
            if number > last || (record.begins && size >= MAX_PAGE_BYTES) {
                return Ok(page);
            }
            if number >= from {
                page.position += 1;
                // Empty lines are the cheapest to print, but not to hold.
                size += record.text.len() + if record.begins { size_of::<LogLine>() } else { 0 };
                extend(&mut page.lines, number, record);
            }
        }
        // If the last line is complete, do not read the next frame, which may be damaged.
        if header.lines_after() >= last && !header.has(flag::OPEN_AFTER) {
            break;
        }
        frame += 1;
    }
    Ok(page)
}

fn frame_cost(header: &Header) -> usize {
    (header.raw_len as usize).max(MIN_FRAME_COST)
}

fn scan(
    files: &Files,
    from: u64,
    max_bytes: usize,
    mut visit: impl FnMut(&LogLine) -> ControlFlow<()>,
) -> Result<Option<u64>, LogError> {
    let mut frame = first_frame(files, |header| header.lines_after() >= from)?;
    let (mut read, mut open) = (0, Vec::new());
    while let Some(header) = files.header(frame)? {
        // The last line of the frame before may continue in this one. The next scan begins with the line after it.
        let is_bound_reached = read >= max_bytes;
        let mut number = header.lines_before;
        for record in records(files, &header)? {
            number += u64::from(record.begins);
            if record.begins && (open.drain(..).any(|line| visit(&line).is_break()) || is_bound_reached) {
                return Ok(Some(number));
            }
            if number >= from {
                extend(&mut open, number, record);
            }
        }
        (frame, read) = (frame + 1, read + frame_cost(&header));
    }
    open.iter().for_each(|line| _ = visit(line));
    Ok(None)
}

fn start_of_end(files: &Files, max_bytes: usize) -> Result<u64, LogError> {
    let (mut frame, mut read, mut line) = (files.frames()?, 0, 1);
    while let Some(before) = frame.checked_sub(1) {
        let Some(header) = files.header(before)? else { break };
        read += frame_cost(&header);
        if read > max_bytes {
            break;
        }
        (frame, line) = (before, header.lines_before + 1);
    }
    Ok(line)
}

/// The number of fragments before the first one of this line.
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

/// The text from byte `from` to the end of its frame, at most up to `to`.
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
    let index = |at: u64| usize::try_from(at.saturating_sub(header.text_before)).unwrap_or(usize::MAX).min(text.len());
    let (start, stop) = (index(from), index(to));
    Ok(Bytes::from(text).slice(start..stop))
}
