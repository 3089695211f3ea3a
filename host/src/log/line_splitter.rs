//! From the bytes of a container to pieces of lines: masked, cut at newlines, within limits.

use std::collections::BTreeMap;

use beespace_core::mask::{Masker, Secrets};
use beespace_core::time::Timestamp;

use super::MAX_LINE;
use super::frame::{Header, flag};
use super::frame_builder::FrameBuilder;
use super::origin::{Origin, OriginOffset};

/// How much goes through the mask at a time. Frames are sealed between such pieces, so none grows far over its size.
const MASK_CHUNK: usize = 16 * 1024;

/// The lines of one log as they come.
#[derive(Debug)]
pub(super) struct LineSplitter {
    builder: FrameBuilder,
    /// Everyone who speaks in the round that goes on, and the host.
    origins: BTreeMap<Origin, OriginBuffer>,
    secrets: Secrets,
    limit: u64,
    /// Something happened that is not in a frame yet.
    is_dirty: bool,
}

/// What one says, on its way.
#[derive(Debug)]
struct OriginBuffer {
    origin: Origin,
    masker: Masker,
    /// Bytes taken, those of earlier servers included.
    received: u64,
    /// Masked, not in a frame yet: a line waits here for its end.
    pending: Vec<u8>,
    pending_since: Timestamp,
    /// Length of the line that is being written, what is in frames already included.
    line_len: usize,
}

impl LineSplitter {
    /// Goes on after the last frame of a log, from the places that it tells.
    pub(super) fn after(last: Option<&Header>, places: &[OriginOffset], secrets: &Secrets, limit: u64) -> Self {
        Self {
            builder: FrameBuilder::after(last, places),
            origins: places.iter().map(|place| (place.origin, OriginBuffer::resume(place, secrets))).collect(),
            secrets: secrets.clone(),
            limit,
            is_dirty: false,
        }
    }

    /// Takes what someone said. `write` gets each frame that became full.
    pub(super) fn push<E>(
        &mut self,
        source: Origin,
        at: Timestamp,
        bytes: &[u8],
        mut write: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        for piece in bytes.chunks(MASK_CHUNK) {
            self.is_dirty = true;
            if !source.is_host() && self.is_limited() {
                self.drop_bytes(source, at, piece.len());
                continue;
            }
            let (flow, draft) = self.origin(source, at);
            flow.push(at, piece, draft);
            if !source.is_host() && self.builder.text_len() >= self.limit {
                self.reach_limit(at);
            }
            if self.builder.is_full() {
                write(self)?;
            }
        }
        Ok(())
    }

    /// Puts everything that may be shown into the frame, whole lines or not, and notes how far everyone is.
    pub(super) fn build_frame(&mut self) -> std::io::Result<(Header, Vec<u8>)> {
        self.origins.values_mut().for_each(|flow| flow.flush(&mut self.builder));
        let places = self.origins.values().map(OriginBuffer::offset).collect();
        self.is_dirty = false;
        self.builder.build(places)
    }

    /// The containers that spoke so far are through: what was held back of their ends is to be seen. Seal once more after this.
    pub(super) fn end_containers(&mut self, at: Timestamp) {
        self.is_dirty = true;
        let containers = self.origins.iter_mut().filter(|(source, _)| !source.is_host());
        containers.for_each(|(_, flow)| flow.finish(at, &mut self.builder));
    }

    /// Nobody says anything any more; `output_incomplete` says what is missing. Seal once more after this.
    pub(super) fn finish(&mut self, at: Timestamp, incomplete: Option<&str>) {
        self.origins.values_mut().for_each(|flow| flow.finish(at, &mut self.builder));
        let dropped = self.builder.header().dropped;
        if dropped > 0 {
            self.write_host_line(at, &format!("{dropped} bytes came after the limit and were not kept"));
        }
        if let Some(reason) = incomplete {
            self.write_host_line(at, &format!("this log is incomplete: {reason}"));
        }
        self.builder.header().flags |= flag::FINISHED | if dropped > 0 || incomplete.is_some() { flag::INCOMPLETE } else { 0 };
    }

    /// There is text that a reader waits for.
    pub(super) fn has_text(&self) -> bool {
        !self.builder.is_empty() || self.origins.values().any(|flow| !flow.pending.is_empty())
    }

    /// Something is to be noted, be it that bytes were dropped.
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    fn is_limited(&mut self) -> bool {
        self.builder.header().has(flag::LIMITED)
    }

    fn reach_limit(&mut self, at: Timestamp) {
        let containers = self.origins.iter_mut().filter(|(source, _)| !source.is_host());
        containers.for_each(|(_, flow)| flow.flush(&mut self.builder));
        self.builder.header().flags |= flag::LIMITED;
        self.write_host_line(
            at,
            &format!("the limit of {} bytes for a log is reached: what follows is counted, not kept", self.limit),
        );
    }

    fn drop_bytes(&mut self, source: Origin, at: Timestamp, count: usize) {
        let (flow, draft) = self.origin(source, at);
        // What the masker and the line held when the limit came is dropped with the rest.
        let count = count as u64 + flow.discard_pending();
        flow.received += count;
        draft.header().dropped += count;
    }

    fn write_host_line(&mut self, at: Timestamp, text: &str) {
        let (host, draft) = self.origin(Origin::HOST, at);
        host.push(at, format!("{text}\n").as_bytes(), draft);
    }

    fn origin(&mut self, source: Origin, at: Timestamp) -> (&mut OriginBuffer, &mut FrameBuilder) {
        if !self.origins.contains_key(&source) {
            self.end_earlier_rounds(source, at);
        }
        let flow = self.origins.entry(source).or_insert_with(|| OriginBuffer::new(source, &self.secrets));
        (flow, &mut self.builder)
    }

    /// Whoever spoke in an earlier round is through: nobody asks any more how far they came.
    fn end_earlier_rounds(&mut self, source: Origin, at: Timestamp) {
        if source.is_host() {
            return;
        }
        let draft = &mut self.builder;
        self.origins.retain(|other, flow| {
            let is_over = other.round < source.round;
            if is_over {
                flow.finish(at, draft);
                draft.end_line(*other, at);
            }
            !is_over
        });
    }
}

impl OriginBuffer {
    fn new(source: Origin, secrets: &Secrets) -> Self {
        let place = OriginOffset { origin: source, stored: 0, covered: 0, is_open: false, is_cut: false };
        Self::resume(&place, secrets)
    }

    fn resume(place: &OriginOffset, secrets: &Secrets) -> Self {
        let covered = usize::try_from(place.covered).unwrap_or(usize::MAX);
        Self {
            origin: place.origin,
            masker: Masker::resume(secrets, covered),
            received: place.stored,
            pending: Vec::new(),
            pending_since: Timestamp(0),
            line_len: 0,
        }
    }

    fn push(&mut self, at: Timestamp, bytes: &[u8], draft: &mut FrameBuilder) {
        self.received += bytes.len() as u64;
        let mut masked = Vec::with_capacity(bytes.len());
        self.masker.push(bytes, &mut masked);
        self.split(at, &masked, draft);
    }

    fn split(&mut self, at: Timestamp, masked: &[u8], draft: &mut FrameBuilder) {
        for part in masked.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            while self.line_len + text.len() > MAX_LINE {
                let room = MAX_LINE.saturating_sub(self.line_len);
                let (now, later) = text.split_at(room - partial_character(text.get(..room).unwrap_or(text)));
                self.add(at, now);
                self.emit_record(at, true, draft);
                draft.mark_cut(self.origin);
                text = later;
            }
            self.add(at, text);
            if ends {
                self.emit_record(at, true, draft);
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

    /// What waits becomes a piece of its line, perhaps the last.
    fn emit_record(&mut self, at: Timestamp, ends: bool, draft: &mut FrameBuilder) {
        let at = if self.pending.is_empty() { at } else { self.pending_since };
        draft.add(self.origin, at, &self.pending, ends);
        self.pending.clear();
        if ends {
            self.line_len = 0;
        }
    }

    /// Shows a line before its end has come; of a character that has come in part, nothing yet.
    fn flush(&mut self, draft: &mut FrameBuilder) {
        let rest = self.pending.split_off(self.pending.len() - self.incomplete_char_len());
        if !self.pending.is_empty() {
            self.emit_record(self.pending_since, false, draft);
        }
        self.pending = rest;
    }

    fn finish(&mut self, at: Timestamp, draft: &mut FrameBuilder) {
        let mut masked = Vec::new();
        self.masker.finish(&mut masked);
        self.split(at, &masked, draft);
        if !self.pending.is_empty() {
            self.emit_record(at, false, draft);
        }
    }

    /// How far this one is on disk once the flushed frame is.
    fn offset(&self) -> OriginOffset {
        let place = OriginOffset { origin: self.origin, stored: 0, covered: 0, is_open: false, is_cut: false };
        if self.origin.is_host() {
            // After a restart the host says something else: nothing of it goes on.
            return place;
        }
        let waiting = self.masker.buffered() + self.incomplete_char_len();
        OriginOffset {
            stored: self.received.saturating_sub(waiting as u64),
            covered: self.masker.masked_prefix() as u64,
            ..place
        }
    }

    /// Bytes at the end of what waits that are the beginning of a character. None while a mask goes over the next bytes: the
    /// restart of a stream begins either with part of a character or within a secret, never both.
    fn incomplete_char_len(&self) -> usize {
        if self.masker.masked_prefix() > 0 { 0 } else { partial_character(&self.pending) }
    }

    /// Forgets what was held back and returns how many bytes of the stream that was.
    fn discard_pending(&mut self) -> u64 {
        let held = self.masker.buffered() + self.pending.len();
        self.masker = Masker::new(&Secrets::none());
        self.pending.clear();
        self.received -= (held as u64).min(self.received);
        held as u64
    }
}

/// How many bytes at the end of `text` are the beginning of an UTF-8 character that is not whole.
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
    fn the_beginning_of_a_character_is_found() {
        assert_eq!(partial_character("añ".as_bytes()), 0);
        assert_eq!(partial_character(b"a\xC3"), 1);
        assert_eq!(partial_character(b"\xF0\x9F\x98"), 3);
        assert_eq!(partial_character("😀".as_bytes()), 0);
        assert_eq!(partial_character(b"\xFF\xFE"), 0);
        assert_eq!(partial_character(b"\x80\x80\x80\x80"), 0);
        assert_eq!(partial_character(b""), 0);
    }
}
