//! Turns container output into masked fragments of lines, within the limits for a line and a log.

use std::collections::BTreeMap;

use beespace_core::mask::{self, Masker, Secrets};
use beespace_core::time::Timestamp;

use super::MAX_LINE;
use super::frame::{Header, MAX_FRAME_BYTES, RECORD_HEADER_LEN, flag};
use super::frame_builder::FrameBuilder;
use super::origin::{Origin, OriginOffset};

/// The size of records and unfinished lines at which a frame is written.
const FRAME_BYTES: usize = 64 * 1024;

/// The size of a chunk that is masked at once. Frames are completed between chunks, so a frame never grows far beyond its target
/// size.
const MASK_CHUNK: usize = 16 * 1024;

/// The largest frame: a nearly full one, and a chunk together with the text that the masker held back, all of it empty lines.
/// A quarter is left for the offsets of all origins.
const LARGEST_FRAME: usize = FRAME_BYTES + (MASK_CHUNK + mask::MAX_LENGTH) * (RECORD_HEADER_LEN + 1);
const _: () = assert!(LARGEST_FRAME < MAX_FRAME_BYTES / 8 * 7, "a frame that is written must be one that is read");

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
        self.end_earlier_rounds(origin, at, &mut write)?;
        for chunk in bytes.chunks(MASK_CHUNK) {
            self.is_dirty = true;
            if !origin.is_host() && self.is_limited() {
                self.drop_bytes(origin, chunk.len());
                continue;
            }
            let (buffer, builder) = self.origin(origin);
            buffer.push(at, chunk, builder);
            if !origin.is_host() && self.builder.text_len() >= self.limit {
                self.reach_limit(at);
            }
            self.write_if_full(&mut write)?;
        }
        Ok(())
    }

    /// Calls `write` if the records and the unfinished lines, which every frame includes, fill a frame.
    fn write_if_full<E>(&mut self, write: &mut impl FnMut(&mut Self) -> Result<(), E>) -> Result<(), E> {
        let unfinished: usize = self.origins.values().map(|buffer| buffer.pending.len()).sum();
        if self.builder.len() + unfinished >= FRAME_BYTES { write(self) } else { Ok(()) }
    }

    /// Completes the frame: adds all text that may be shown, including partial lines, and the offsets of all origins.
    pub(super) fn build_frame(&mut self) -> std::io::Result<(Header, Vec<u8>)> {
        self.origins.values_mut().for_each(|buffer| buffer.flush(&mut self.builder));
        let offsets = self.origins.values().map(OriginBuffer::offset).collect();
        self.is_dirty = false;
        self.builder.build(offsets)
    }

    /// Ends the output of all containers so far: text that masking held back is released. Calls `write` for each frame that is
    /// full. Build another frame after this.
    pub(super) fn end_containers<E>(
        &mut self,
        at: Timestamp,
        mut write: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let containers: Vec<Origin> = self.origins.keys().filter(|origin| !origin.is_host()).copied().collect();
        for origin in containers {
            let (buffer, builder) = self.origin(origin);
            buffer.finish(at, builder);
            self.write_if_full(&mut write)?;
        }
        self.is_dirty = true;
        Ok(())
    }

    /// Ends the log after [`end_containers`](Self::end_containers). `incomplete` states what is missing. Build the last frame
    /// after this.
    pub(super) fn finish(&mut self, at: Timestamp, incomplete: Option<&str>) {
        let (host, builder) = self.origin(Origin::HOST);
        host.finish(at, builder);
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

    fn drop_bytes(&mut self, origin: Origin, count: usize) {
        let (buffer, builder) = self.origin(origin);
        // Bytes that the masker and the open line held when the limit was reached are dropped as well.
        let count = count as u64 + buffer.discard_pending();
        buffer.received += count;
        builder.header().dropped += count;
    }

    fn write_host_line(&mut self, at: Timestamp, text: &str) {
        let (host, builder) = self.origin(Origin::HOST);
        host.push(at, format!("{text}\n").as_bytes(), builder);
    }

    fn origin(&mut self, origin: Origin) -> (&mut OriginBuffer, &mut FrameBuilder) {
        let buffer = self.origins.entry(origin).or_insert_with(|| OriginBuffer::new(origin, &self.secrets));
        (buffer, &mut self.builder)
    }

    /// Ends the origins of earlier rounds when a later round prints: their offsets are no longer needed.
    fn end_earlier_rounds<E>(
        &mut self,
        origin: Origin,
        at: Timestamp,
        write: &mut impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        if origin.is_host() || self.origins.contains_key(&origin) {
            return Ok(());
        }
        let over: Vec<Origin> = self.origins.keys().filter(|other| other.round < origin.round).copied().collect();
        for other in over {
            if let Some(mut buffer) = self.origins.remove(&other) {
                buffer.finish(at, &mut self.builder);
                self.builder.end_line(other, at);
            }
            self.write_if_full(write)?;
        }
        Ok(())
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
    use std::convert::Infallible;

    use beespace_core::output::Stream;

    use super::*;

    /// Pushes `text` from both streams of every container, ends all of them, and returns the length of the text in all frames.
    /// Panics if a frame cannot be read.
    fn text_of_frames(containers: u16, secrets: &Secrets, text: &[u8]) -> usize {
        let mut splitter = LineSplitter::after(None, &[], secrets, u64::MAX);
        let mut text_len = 0;
        let mut write = |splitter: &mut LineSplitter| {
            let (header, body) = splitter.build_frame().unwrap();
            let header = Header::decode(&header.encode()).expect("a header that is read");
            let records = header.records(&body).expect("a body that is read");
            text_len += records.iter().map(|record| record.text.len()).sum::<usize>();
            Ok::<(), Infallible>(())
        };
        for origin in
            (0..containers).flat_map(|container| [Stream::Stdout, Stream::Stderr].map(|stream| Origin::new(0, container, stream)))
        {
            splitter.push(origin, Timestamp(1), text, &mut write).unwrap();
        }
        splitter.end_containers(Timestamp(2), &mut write).unwrap();
        splitter.finish(Timestamp(2), None);
        write(&mut splitter).unwrap();
        text_len
    }

    #[test]
    fn frames_of_many_unfinished_lines_can_be_read() {
        assert_eq!(text_of_frames(64, &Secrets::none(), &[b'x'; 60_000]), 128 * 60_000);
    }

    #[test]
    fn frames_of_text_that_masking_held_back_can_be_read() {
        // Every origin ends inside of what could still have become the secret: empty lines, which cost the most.
        let secrets = Secrets::new([["\n".repeat(60_000), "end".to_owned()].concat()]).unwrap();
        assert_eq!(text_of_frames(4, &secrets, &[b'\n'; 60_000]), 0);
        let secrets = Secrets::new(["x".repeat(60_000)]).unwrap();
        assert_eq!(text_of_frames(12, &secrets, &[b'x'; 59_999]), 24 * 59_999);
    }

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
