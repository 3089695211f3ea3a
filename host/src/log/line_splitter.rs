//! Turns container output into masked fragments of lines, within the limits for a line and a log.

use std::collections::BTreeMap;

use beespace_core::mask::{Masker, Secrets};
use beespace_core::time::Timestamp;

use super::MAX_LINE;
use super::frame::{Header, flag};
use super::frame_builder::FrameBuilder;
use super::origin::{Origin, OriginOffset};

/// The size of a chunk that is masked at once. Frames are completed between chunks, so a frame never grows far beyond its target
/// size.
const MASK_CHUNK: usize = 16 * 1024;

/// Splits the output of all origins of one log into lines.
#[derive(Debug)]
pub(super) struct LineSplitter {
    builder: FrameBuilder,
    /// The origins of the current round, and the host.
    origins: BTreeMap<Origin, OriginBuffer>,
    secrets: Secrets,
    limit: u64,
    /// Whether something is not in a frame yet.
    is_dirty: bool,
}

/// The output of one origin that is not in a frame yet.
#[derive(Debug)]
struct OriginBuffer {
    origin: Origin,
    masker: Masker,
    /// Bytes received, including those that earlier processes stored.
    received: u64,
    /// Masked text of a line whose end has not arrived.
    pending: Vec<u8>,
    pending_since: Timestamp,
    /// Length of the current line, including its fragments in earlier frames.
    line_len: usize,
}

impl LineSplitter {
    /// Resumes after the last frame of a log, at the offsets stored in it.
    pub(super) fn after(last: Option<&Header>, offsets: &[OriginOffset], secrets: &Secrets, limit: u64) -> Self {
        Self {
            builder: FrameBuilder::after(last, offsets),
            origins: offsets.iter().map(|offset| (offset.origin, OriginBuffer::resume(offset, secrets))).collect(),
            secrets: secrets.clone(),
            limit,
            is_dirty: false,
        }
    }

    /// Adds output of an origin. Calls `write` for each frame that is full.
    pub(super) fn push<E>(
        &mut self,
        origin: Origin,
        at: Timestamp,
        bytes: &[u8],
        mut write: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        for chunk in bytes.chunks(MASK_CHUNK) {
            self.is_dirty = true;
            if !origin.is_host() && self.is_limited() {
                self.drop_bytes(origin, at, chunk.len());
                continue;
            }
            let (buffer, builder) = self.origin(origin, at);
            buffer.push(at, chunk, builder);
            if !origin.is_host() && self.builder.text_len() >= self.limit {
                self.reach_limit(at);
            }
            if self.builder.is_full() {
                write(self)?;
            }
        }
        Ok(())
    }

    /// Completes the frame: adds all text that may be shown, including partial lines, and the offsets of all origins.
    pub(super) fn build_frame(&mut self) -> std::io::Result<(Header, Vec<u8>)> {
        self.origins.values_mut().for_each(|buffer| buffer.flush(&mut self.builder));
        let offsets = self.origins.values().map(OriginBuffer::offset).collect();
        self.is_dirty = false;
        self.builder.build(offsets)
    }

    /// Ends the output of all containers so far: text that masking held back is released. Build another frame after this.
    pub(super) fn end_containers(&mut self, at: Timestamp) {
        self.is_dirty = true;
        let containers = self.origins.iter_mut().filter(|(origin, _)| !origin.is_host());
        containers.for_each(|(_, buffer)| buffer.finish(at, &mut self.builder));
    }

    /// Ends the log. `incomplete` states what is missing. Build the last frame after this.
    pub(super) fn finish(&mut self, at: Timestamp, incomplete: Option<&str>) {
        self.origins.values_mut().for_each(|buffer| buffer.finish(at, &mut self.builder));
        let dropped = self.builder.header().dropped;
        if dropped > 0 {
            self.write_host_line(at, &format!("{dropped} bytes after the limit were not stored"));
        }
        if let Some(reason) = incomplete {
            self.write_host_line(at, &format!("this log is incomplete: {reason}"));
        }
        self.builder.header().flags |= flag::FINISHED | if dropped > 0 || incomplete.is_some() { flag::INCOMPLETE } else { 0 };
    }

    /// Whether there is text that is not in a frame yet.
    pub(super) fn has_text(&self) -> bool {
        !self.builder.is_empty() || self.origins.values().any(|buffer| !buffer.pending.is_empty())
    }

    /// Whether anything is not in a frame yet, including a count of dropped bytes.
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    fn is_limited(&mut self) -> bool {
        self.builder.header().has(flag::LIMITED)
    }

    fn reach_limit(&mut self, at: Timestamp) {
        let containers = self.origins.iter_mut().filter(|(origin, _)| !origin.is_host());
        containers.for_each(|(_, buffer)| buffer.flush(&mut self.builder));
        self.builder.header().flags |= flag::LIMITED;
        self.write_host_line(
            at,
            &format!("the limit of {} bytes for a log is reached; further output is counted but not stored", self.limit),
        );
    }

    fn drop_bytes(&mut self, origin: Origin, at: Timestamp, count: usize) {
        let (buffer, builder) = self.origin(origin, at);
        // Bytes that the masker and the open line held when the limit was reached are dropped as well.
        let count = count as u64 + buffer.discard_pending();
        buffer.received += count;
        builder.header().dropped += count;
    }

    fn write_host_line(&mut self, at: Timestamp, text: &str) {
        let (host, builder) = self.origin(Origin::HOST, at);
        host.push(at, format!("{text}\n").as_bytes(), builder);
    }

    fn origin(&mut self, origin: Origin, at: Timestamp) -> (&mut OriginBuffer, &mut FrameBuilder) {
        if !self.origins.contains_key(&origin) {
            self.end_earlier_rounds(origin, at);
        }
        let buffer = self.origins.entry(origin).or_insert_with(|| OriginBuffer::new(origin, &self.secrets));
        (buffer, &mut self.builder)
    }

    /// Ends the origins of earlier rounds: their offsets are no longer needed.
    fn end_earlier_rounds(&mut self, origin: Origin, at: Timestamp) {
        if origin.is_host() {
            return;
        }
        let builder = &mut self.builder;
        self.origins.retain(|other, buffer| {
            let is_over = other.round < origin.round;
            if is_over {
                buffer.finish(at, builder);
                builder.end_line(*other, at);
            }
            !is_over
        });
    }
}

impl OriginBuffer {
    fn new(origin: Origin, secrets: &Secrets) -> Self {
        let offset = OriginOffset { origin, stored: 0, covered: 0, is_open: false, is_cut: false };
        Self::resume(&offset, secrets)
    }

    fn resume(offset: &OriginOffset, secrets: &Secrets) -> Self {
        let covered = usize::try_from(offset.covered).unwrap_or(usize::MAX);
        Self {
            origin: offset.origin,
            masker: Masker::resume(secrets, covered),
            received: offset.stored,
            pending: Vec::new(),
            pending_since: Timestamp(0),
            line_len: 0,
        }
    }

    fn push(&mut self, at: Timestamp, bytes: &[u8], builder: &mut FrameBuilder) {
        self.received += bytes.len() as u64;
        let mut masked = Vec::with_capacity(bytes.len());
        self.masker.push(bytes, &mut masked);
        self.split(at, &masked, builder);
    }

    fn split(&mut self, at: Timestamp, masked: &[u8], builder: &mut FrameBuilder) {
        for part in masked.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            while self.line_len + text.len() > MAX_LINE {
                let available = MAX_LINE.saturating_sub(self.line_len);
                let (now, later) = text.split_at(available - partial_character(text.get(..available).unwrap_or(text)));
                self.add(at, now);
                self.emit_record(at, true, builder);
                builder.mark_cut(self.origin);
                text = later;
            }
            self.add(at, text);
            if ends {
                self.emit_record(at, true, builder);
            }
        }
    }

    fn add(&mut self, at: Timestamp, text: &[u8]) {
        if self.pending.is_empty() {
            self.pending_since = at;
        }
        self.pending.extend_from_slice(text);
        self.line_len += text.len();
    }

    /// Adds the pending text to the frame as a fragment of its line, which is the last one if `ends`.
    fn emit_record(&mut self, at: Timestamp, ends: bool, builder: &mut FrameBuilder) {
        let at = if self.pending.is_empty() { at } else { self.pending_since };
        builder.add(self.origin, at, &self.pending, ends);
        self.pending.clear();
        if ends {
            self.line_len = 0;
        }
    }

    /// Adds the pending text to the frame before its line ends, except an incomplete character at its end.
    fn flush(&mut self, builder: &mut FrameBuilder) {
        let rest = self.pending.split_off(self.pending.len() - self.incomplete_char_len());
        if !self.pending.is_empty() {
            self.emit_record(self.pending_since, false, builder);
        }
        self.pending = rest;
    }

    fn finish(&mut self, at: Timestamp, builder: &mut FrameBuilder) {
        let mut masked = Vec::new();
        self.masker.finish(&mut masked);
        self.split(at, &masked, builder);
        if !self.pending.is_empty() {
            self.emit_record(at, false, builder);
        }
    }

    /// The offset of this origin after a flush.
    fn offset(&self) -> OriginOffset {
        let offset = OriginOffset { origin: self.origin, stored: 0, covered: 0, is_open: false, is_cut: false };
        if self.origin.is_host() {
            // The host's output does not continue after a restart.
            return offset;
        }
        let held_back = self.masker.buffered() + self.incomplete_char_len();
        OriginOffset {
            stored: self.received.saturating_sub(held_back as u64),
            covered: self.masker.masked_prefix() as u64,
            ..offset
        }
    }

    /// The number of bytes at the end of the pending text that begin an incomplete character. It is 0 while a mask covers the
    /// following bytes: a resumed stream begins either inside a character or inside a secret, never both.
    fn incomplete_char_len(&self) -> usize {
        if self.masker.masked_prefix() > 0 { 0 } else { partial_character(&self.pending) }
    }

    /// Discards the text held back and returns its length in bytes of the stream.
    fn discard_pending(&mut self) -> u64 {
        let held_back = self.masker.buffered() + self.pending.len();
        self.masker = Masker::new(&Secrets::none());
        self.pending.clear();
        self.received -= (held_back as u64).min(self.received);
        held_back as u64
    }
}

/// The number of bytes at the end of `text` that begin an incomplete UTF-8 character.
fn partial_character(text: &[u8]) -> usize {
    let tail = text.len().saturating_sub(3);
    let Some(tail) = text.get(tail..) else { return 0 };
    for (back, byte) in tail.iter().rev().enumerate() {
        let needed = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 0,
        };
        return if needed > back + 1 { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_character_is_found() {
        assert_eq!(partial_character("añ".as_bytes()), 0);
        assert_eq!(partial_character(b"a\xC3"), 1);
        assert_eq!(partial_character(b"\xF0\x9F\x98"), 3);
        assert_eq!(partial_character("😀".as_bytes()), 0);
        assert_eq!(partial_character(b"\xFF\xFE"), 0);
        assert_eq!(partial_character(b"\x80\x80\x80\x80"), 0);
        assert_eq!(partial_character(b""), 0);
    }
}
