//! Follows a log: streams its fragments from a position to the end, and waits for new ones.

use std::collections::VecDeque;

use beespace_core::output::Stream;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use futures::stream::{self, Stream as AsyncStream};
use tokio::sync::watch;

use super::file::Files;
use super::frame::flag;
use super::read::{LogReader, first_frame, position_before, records};
use super::write::end;
use super::{LogEnd, LogError};

/// An event for a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    Fragment(LogFragment),
    /// `true`: the disk is full, and the log does not grow until space is available. `false`: the log grows again.
    DiskFull(bool),
    /// The log has ended. This is the last event.
    End(LogEnd),
}

/// A line, or a fragment of a line that was printed in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFragment {
    /// The number of this fragment, from 1. It never changes; a follower resumes after it.
    pub position: u64,
    /// The line that contains the fragment, from 1.
    pub line: u64,
    pub stream: Stream,
    pub at: Timestamp,
    /// Whether it is the first fragment of its line.
    pub begins: bool,
    /// Whether it is the last fragment of its line.
    pub ends: bool,
    /// With `begins`: whether the line continues an earlier one that was cut.
    pub continues: bool,
    /// The masked text as the program printed it, without the newline.
    pub text: Bytes,
}

struct Follower {
    reader: LogReader,
    frames: watch::Receiver<u64>,
    position: u64,
    max_behind: Option<u64>,
    ready: VecDeque<LogFragment>,
    end: Option<LogEnd>,
    reported_full: bool,
    is_over: bool,
    /// Whether to wait for new fragments.
    is_following: bool,
}

impl LogReader {
    /// Streams every fragment after `position` (0: all), including future ones, then the end. Reads one frame at a time, and
    /// waits for the writer's notification at the end of the file.
    pub fn follow(&self, position: u64) -> impl AsyncStream<Item = Result<LogEvent, LogError>> + Send + use<> {
        self.events(position, None, true)
    }

    /// As [`follow`](Self::follow), but skips lines whenever more than `max_behind` lines are waiting: the last `max_behind`
    /// lines are next.
    pub fn follow_latest(
        &self,
        position: u64,
        max_behind: Option<u64>,
    ) -> impl AsyncStream<Item = Result<LogEvent, LogError>> + Send + use<> {
        self.events(position, max_behind, true)
    }

    /// Streams the existing fragments after `position` without waiting, then the end if the log has ended. Skips lines as
    /// [`follow_latest`](Self::follow_latest) does.
    pub fn available(
        &self,
        position: u64,
        max_behind: Option<u64>,
    ) -> impl AsyncStream<Item = Result<LogEvent, LogError>> + Send + use<> {
        self.events(position, max_behind, false)
    }

    fn events(
        &self,
        position: u64,
        max_behind: Option<u64>,
        waits: bool,
    ) -> impl AsyncStream<Item = Result<LogEvent, LogError>> + Send + use<> {
        let follower = Follower {
            frames: self.shared.feed.frames.subscribe(),
            reader: self.clone(),
            position,
            max_behind,
            ready: VecDeque::new(),
            end: None,
            reported_full: false,
            is_over: false,
            is_following: waits,
        };
        stream::unfold(follower, |mut follower| async move {
            let event = follower.next().await.transpose()?;
            follower.is_over |= event.is_err();
            Some((event, follower))
        })
    }

    /// The number of fragments.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn fragment_count(&self) -> Result<u64, LogError> {
        self.with(|files| Ok(files.last()?.map_or(0, |last| last.records_after()))).await
    }

    /// A position at or before `position` from which complete lines can be rendered: not after the start of the line that
    /// contains the next fragment.
    ///
    /// # Errors
    /// I/O errors, or [`LogError::Damaged`].
    pub async fn frame_start(&self, position: u64) -> Result<u64, LogError> {
        self.with(move |files| {
            let frame = first_frame(files, |header| header.records_after() > position)?;
            let header = match files.header(frame)? {
                Some(header) => Some(header),
                None => files.last()?,
            };
            let Some(header) = header else { return Ok(0) };
            if header.has(flag::OPEN_BEFORE) { position_before(files, header.lines_before) } else { Ok(header.records_before) }
        })
        .await
    }

    /// The position from which [`follow`](Self::follow) begins with the first fragment of `line`.
    ///
    /// # Errors
    /// I/O errors, or [`LogError::Damaged`].
    pub async fn position_before(&self, line: u64) -> Result<u64, LogError> {
        self.with(move |files| position_before(files, line)).await
    }
}

impl Follower {
    async fn next(&mut self) -> Result<Option<LogEvent>, LogError> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            if let Some(fragment) = self.ready.pop_front() {
                self.position = fragment.position;
                return Ok(Some(LogEvent::Fragment(fragment)));
            }
            if let Some(end) = self.end {
                self.is_over = true;
                return Ok(Some(LogEvent::End(end)));
            }
            // Mark the notification as seen before reading, so that a frame written meanwhile wakes the follower again.
            self.frames.borrow_and_update();
            let (position, max_behind) = (self.position, self.max_behind);
            let found = self.reader.with(move |files| read_after(files, skip_backlog(files, position, max_behind)?)).await?;
            (self.ready, self.end) = (found.fragments, found.end);
            if found.is_at_end && self.end.is_none() {
                let is_full = self.reader.is_disk_full();
                if self.is_following && std::mem::replace(&mut self.reported_full, is_full) != is_full {
                    return Ok(Some(LogEvent::DiskFull(is_full)));
                }
                self.is_over = !self.is_following || self.frames.changed().await.is_err();
            }
        }
    }
}

struct Found {
    fragments: VecDeque<LogFragment>,
    /// Whether there are no more fragments.
    is_at_end: bool,
    end: Option<LogEnd>,
}

impl Default for Found {
    fn default() -> Self {
        Self { fragments: VecDeque::new(), is_at_end: true, end: None }
    }
}

/// The position to read after: `position`, or that before the last `max_behind` lines if it is further back.
fn skip_backlog(files: &Files, position: u64, max_behind: Option<u64>) -> Result<u64, LogError> {
    let (Some(max_behind), Some(last)) = (max_behind, files.last()?) else { return Ok(position) };
    // A line has at least one fragment.
    if last.records_after().saturating_sub(position) <= max_behind {
        return Ok(position);
    }
    let first = last.lines_after().saturating_sub(max_behind) + 1;
    Ok(position.max(position_before(files, first)?))
}

/// The fragments after `position` in the frame that contains the next one.
fn read_after(files: &Files, position: u64) -> Result<Found, LogError> {
    let frame = first_frame(files, |header| header.records_after() > position)?;
    let Some(header) = files.header(frame)? else {
        let last = files.last()?;
        // A frame may have been appended between the two reads.
        let is_all = last.is_none_or(|last| last.records_after() <= position);
        let end = last.filter(|last| is_all && last.has(flag::FINISHED)).as_ref().map(end);
        return Ok(Found { is_at_end: is_all, end, ..Found::default() });
    };
    let (mut line, mut at) = (header.lines_before, header.records_before);
    let mut fragments = VecDeque::new();
    for record in records(files, &header)? {
        line += u64::from(record.begins);
        at += 1;
        if at > position {
            fragments.push_back(LogFragment {
                position: at,
                line,
                stream: record.stream,
                at: record.at,
                begins: record.begins,
                ends: record.ends,
                continues: record.continues,
                text: record.text,
            });
        }
    }
    Ok(Found { fragments, is_at_end: false, end: None })
}
