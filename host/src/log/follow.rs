//! Following a log: piece by piece from a position on, to its end, however long that takes.

use std::collections::VecDeque;

use beespace_core::output::Stream;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use futures::stream::{self, Stream as Flow};
use tokio::sync::watch;

use super::file::Files;
use super::frame::flag;
use super::read::{LogReader, first_frame, position_before, records};
use super::write::end;
use super::{LogEnd, LogError};

/// What a follower gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    Fragment(LogFragment),
    /// `true`: its disk is full, nothing comes until there is room. `false`: it goes on.
    DiskFull(bool),
    /// Nothing comes after this.
    End(LogEnd),
}

/// A line, or a part of one that was printed piece by piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFragment {
    /// Who has this piece goes on after it by this number: pieces are counted from 1 and never change.
    pub position: u64,
    /// The line it belongs to, from 1.
    pub line: u64,
    pub stream: Stream,
    pub at: Timestamp,
    /// It is the first piece of its line.
    pub begins: bool,
    /// It is the last one.
    pub ends: bool,
    /// With `lane`: the line goes on with an earlier one that was cut.
    pub continues: bool,
    /// Masked, as the program printed it, without the newline.
    pub text: Bytes,
}

struct Follower {
    reader: LogReader,
    frames: watch::Receiver<u64>,
    position: u64,
    ready: VecDeque<LogFragment>,
    end: Option<LogEnd>,
    reported_full: bool,
    is_over: bool,
    /// Wait for what is not there yet?
    is_following: bool,
}

impl LogReader {
    /// Every piece after `position` (0: all), those to come included, then the end. Reads one frame at a time from the file and
    /// waits, where there is no more, for the writer to tell that there is.
    pub fn follow(&self, position: u64) -> impl Flow<Item = Result<LogEvent, LogError>> + Send + use<> {
        self.events(position, true)
    }

    /// The same, without waiting: every piece after `position` that is there now, and the end where there is one.
    pub fn rest(&self, position: u64) -> impl Flow<Item = Result<LogEvent, LogError>> + Send + use<> {
        self.events(position, false)
    }

    fn events(&self, position: u64, waits: bool) -> impl Flow<Item = Result<LogEvent, LogError>> + Send + use<> {
        let follower = Follower {
            frames: self.shared.feed.frames.subscribe(),
            reader: self.clone(),
            position,
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

    /// How many pieces there are.
    ///
    /// # Errors
    /// The disk's.
    pub async fn fragment_count(&self) -> Result<u64, LogError> {
        self.with(|files| Ok(files.last()?.map_or(0, |last| last.records_after()))).await
    }

    /// A position shortly before `position` from which lines can be painted: no later than the beginning of the line that the next
    /// piece belongs to.
    ///
    /// # Errors
    /// The disk's, or damage.
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

    /// Where to follow from to get the line `line` from its first piece on.
    ///
    /// # Errors
    /// The disk's, or damage.
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
            if let Some(piece) = self.ready.pop_front() {
                self.position = piece.position;
                return Ok(Some(LogEvent::Fragment(piece)));
            }
            if let Some(end) = self.end {
                self.is_over = true;
                return Ok(Some(LogEvent::End(end)));
            }
            // Marked as seen before looking: what is written while we look wakes us again.
            self.frames.borrow_and_update();
            let position = self.position;
            let found = self.reader.with(move |files| read_after(files, position)).await?;
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
    /// There are no more.
    is_at_end: bool,
    end: Option<LogEnd>,
}

impl Default for Found {
    fn default() -> Self {
        Self { fragments: VecDeque::new(), is_at_end: true, end: None }
    }
}

/// The pieces of the frame that holds the one after `position`.
fn read_after(files: &Files, position: u64) -> Result<Found, LogError> {
    let frame = first_frame(files, |header| header.records_after() > position)?;
    let Some(header) = files.header(frame)? else {
        let last = files.last()?;
        // More may have come between the two looks.
        let is_all = last.is_none_or(|last| last.records_after() <= position);
        let end = last.filter(|last| is_all && last.has(flag::FINISHED)).as_ref().map(end);
        return Ok(Found { is_at_end: is_all, end, ..Found::default() });
    };
    let (mut line, mut at) = (header.lines_before, header.records_before);
    let mut pieces = VecDeque::new();
    for record in records(files, &header)? {
        line += u64::from(record.begins);
        at += 1;
        if at > position {
            pieces.push_back(LogFragment {
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
    Ok(Found { fragments: pieces, is_at_end: false, end: None })
}
