//! The frame that is being filled: pieces of lines, not on disk yet.

use beespace_core::outcome::Stream;
use beespace_core::time::Timestamp;
use bytes::Bytes;

use super::frame::{Header, Record, flag, stream_code};

/// A frame that holds this much is written.
const FULL: usize = 64 * 1024;

/// The frame that comes next, and where its log stands.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Numbers before this frame; counts and flags of it as they grow.
    header: Header,
    raw: Vec<u8>,
    /// Whose line is open.
    open: Option<Stream>,
    /// [`flag::STDOUT_CUT`] and its like: whose next line goes on with a line that was cut.
    cut: u32,
}

impl Draft {
    /// Goes on after the last frame of a log.
    pub(super) fn after(last: Option<&Header>) -> Self {
        let Some(last) = last else { return Self::default() };
        let open = last.open_stream();
        Self {
            header: Header {
                flags: (last.flags & flag::LIMITED) | if open.is_some() { flag::OPEN_BEFORE } else { 0 },
                offset: last.end_offset(),
                records_before: last.records_after(),
                lines_before: last.lines_after(),
                text_before: last.text_after(),
                stdout: last.stdout,
                stderr: last.stderr,
                dropped: last.dropped,
                ..Header::default()
            },
            raw: Vec::new(),
            open,
            cut: last.flags & (flag::STDOUT_CUT | flag::STDERR_CUT | flag::HOST_CUT),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.header.records == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.raw.len() >= FULL
    }

    /// Bytes of text in the log so far, this frame included.
    pub(super) fn text_len(&self) -> u64 {
        self.header.text_after()
    }

    /// Adds a piece of a line. Another stream's line that is still open is cut: its rest will be a line of its own.
    pub(super) fn add(&mut self, stream: Stream, at: Timestamp, text: &[u8], ends: bool) {
        let begins = self.open != Some(stream);
        let continues = begins && self.cut & cut_flag(stream) != 0;
        self.cut &= !cut_flag(stream);
        if continues && ends && text.is_empty() {
            return;
        }
        if begins {
            if let Some(other) = self.open.take() {
                self.cut |= cut_flag(other);
                self.header.text_len += 1;
            }
            self.header.lines += 1;
        }
        if self.header.records == 0 {
            self.header.at_ms = at.0;
        }
        let record = Record { stream, at, begins, ends, continues, text: Bytes::copy_from_slice(text) };
        record.encode(Timestamp(self.header.at_ms), &mut self.raw);
        self.header.records += 1;
        self.header.text_len += u32::try_from(text.len()).unwrap_or(u32::MAX) + u32::from(ends);
        self.open = (!ends).then_some(stream);
    }

    /// The line that just ended was cut for its length.
    pub(super) fn mark_cut(&mut self, stream: Stream) {
        self.cut |= cut_flag(stream);
    }

    /// What the frame says beside its records.
    pub(super) fn header(&mut self) -> &mut Header {
        &mut self.header
    }

    /// Header and body, ready to be written; `self` becomes the next, empty frame.
    pub(super) fn seal(&mut self) -> std::io::Result<(Header, Vec<u8>)> {
        let mut header = self.header;
        header.open = self.open.map_or(0, |stream| u32::from(stream_code(stream)) + 1);
        header.flags |= self.cut;
        let body = header.pack(&self.raw)?;
        let mut raw = std::mem::take(&mut self.raw);
        raw.clear();
        *self = Self { raw, ..Self::after(Some(&header)) };
        Ok((header, body))
    }
}

fn cut_flag(stream: Stream) -> u32 {
    match stream {
        Stream::Stdout => flag::STDOUT_CUT,
        Stream::Stderr => flag::STDERR_CUT,
        Stream::Host => flag::HOST_CUT,
    }
}
