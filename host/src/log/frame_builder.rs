//! The frame under construction.

use std::collections::BTreeSet;

use beespace_core::time::Timestamp;
use bytes::Bytes;

use super::frame::{Header, Record, flag};
use super::origin::{Origin, OriginOffset};

/// The next frame, and the state of the log before it.
#[derive(Debug, Default)]
pub(super) struct FrameBuilder {
    /// The totals before this frame, and the counts and flags of this frame so far.
    header: Header,
    raw: Vec<u8>,
    /// The origin whose line is open.
    open: Option<Origin>,
    /// Origins whose next line continues a line that was cut.
    cut: BTreeSet<Origin>,
}

impl FrameBuilder {
    /// A builder for the frame after `last`.
    pub(super) fn after(last: Option<&Header>, offsets: &[OriginOffset]) -> Self {
        let of =
            |holds: fn(&OriginOffset) -> bool| offsets.iter().filter(move |offset| holds(offset)).map(|offset| offset.origin);
        let (open, cut) = (of(|offset| offset.is_open).next(), of(|offset| offset.is_cut).collect());
        Self { header: last.map(Self::header_after).unwrap_or_default(), raw: Vec::new(), open, cut }
    }

    /// The initial header of the frame after `last`.
    fn header_after(last: &Header) -> Header {
        let open_before = if last.has(flag::OPEN_AFTER) { flag::OPEN_BEFORE } else { 0 };
        Header {
            flags: (last.flags & flag::LIMITED) | open_before,
            offset: last.end_offset(),
            records_before: last.records_after(),
            lines_before: last.lines_after(),
            text_before: last.text_after(),
            dropped: last.dropped,
            ..Header::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.header.records == 0
    }

    /// The size of the records so far, in bytes.
    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Length of the log's text in bytes, including this frame.
    pub(super) fn text_len(&self) -> u64 {
        self.header.text_after()
    }

    /// Adds a fragment of a line. If another origin's line is still open, it is cut: the rest of it becomes a line of its own.
    pub(super) fn add(&mut self, origin: Origin, at: Timestamp, text: &[u8], ends: bool) {
        let begins = self.open != Some(origin);
        let continues = begins && self.cut.contains(&origin);
        self.cut.remove(&origin);
        if continues && ends && text.is_empty() {
            return;
        }
        if begins {
            if let Some(other) = self.open.take() {
                self.cut.insert(other);
                self.header.text_len += 1;
            }
            self.header.lines += 1;
        }
        if self.header.records == 0 {
            self.header.at_ms = at.0;
        }
        let record = Record { stream: origin.stream(), at, begins, ends, continues, text: Bytes::copy_from_slice(text) };
        record.encode(Timestamp(self.header.at_ms), &mut self.raw);
        self.header.records += 1;
        self.header.text_len += u32::try_from(text.len()).unwrap_or(u32::MAX) + u32::from(ends);
        self.open = (!ends).then_some(origin);
    }

    /// Records that the origin's last line was cut because of its length.
    pub(super) fn mark_cut(&mut self, origin: Origin) {
        self.cut.insert(origin);
    }

    /// Ends the origin's open line, because it will produce no more output.
    pub(super) fn end_line(&mut self, origin: Origin, at: Timestamp) {
        if self.open == Some(origin) {
            self.add(origin, at, &[], true);
        }
        self.cut.remove(&origin);
    }

    /// The header of this frame.
    pub(super) fn header(&mut self) -> &mut Header {
        &mut self.header
    }

    /// Returns the header and the body of this frame and begins the next one. `offsets` are the offsets of all origins; this
    /// function adds the state of their lines.
    pub(super) fn build(&mut self, mut offsets: Vec<OriginOffset>) -> std::io::Result<(Header, Vec<u8>)> {
        for offset in &mut offsets {
            offset.is_open = self.open == Some(offset.origin);
            offset.is_cut = self.cut.contains(&offset.origin);
        }
        let mut header = self.header;
        header.flags |= if self.open.is_some() { flag::OPEN_AFTER } else { 0 };
        let body = header.pack(&offsets, &self.raw)?;
        self.header = Self::header_after(&header);
        self.raw.clear();
        Ok((header, body))
    }
}
