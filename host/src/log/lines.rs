//! From the bytes of a container to pieces of lines: masked, cut at newlines, within limits.

use std::collections::BTreeMap;

use beespace_core::mask::{Masker, Secrets};
use beespace_core::time::Timestamp;

use super::MAX_LINE;
use super::draft::Draft;
use super::frame::{Header, flag};
use super::source::{Place, Source};

/// How much goes through the mask at a time. Frames are sealed between such pieces, so none grows far over its size.
const PIECE: usize = 16 * 1024;

/// The lines of one log as they come.
#[derive(Debug)]
pub(super) struct Lines {
    draft: Draft,
    /// Everyone who speaks in the round that goes on, and the host.
    flows: BTreeMap<Source, Flow>,
    secrets: Secrets,
    limit: u64,
    /// Something happened that is not in a frame yet.
    is_dirty: bool,
}

/// What one says, on its way.
#[derive(Debug)]
struct Flow {
    source: Source,
    masker: Masker,
    /// Bytes taken, those of earlier servers included.
    taken: u64,
    /// Masked, not in a frame yet: a line waits here for its end.
    pending: Vec<u8>,
    pending_since: Timestamp,
    /// Length of the line that is being written, what is in frames already included.
    line_len: usize,
}

impl Lines {
    /// Goes on after the last frame of a log, from the places that it tells.
    pub(super) fn after(last: Option<&Header>, places: &[Place], secrets: &Secrets, limit: u64) -> Self {
        Self {
            draft: Draft::after(last, places),
            flows: places.iter().map(|place| (place.source, Flow::resume(place, secrets))).collect(),
            secrets: secrets.clone(),
            limit,
            is_dirty: false,
        }
    }

    /// Takes what someone said. `write` gets each frame that became full.
    pub(super) fn take<E>(
        &mut self,
        source: Source,
        at: Timestamp,
        bytes: &[u8],
        mut write: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        for piece in bytes.chunks(PIECE) {
            self.is_dirty = true;
            if !source.is_host() && self.is_limited() {
                self.drop_bytes(source, at, piece.len());
                continue;
            }
            let (flow, draft) = self.flow(source, at);
            flow.take(at, piece, draft);
            if !source.is_host() && self.draft.text_len() >= self.limit {
                self.reach_limit(at);
            }
            if self.draft.is_full() {
                write(self)?;
            }
        }
        Ok(())
    }

    /// Puts everything that may be shown into the frame, whole lines or not, and notes how far everyone is.
    pub(super) fn seal(&mut self) -> std::io::Result<(Header, Vec<u8>)> {
        self.flows.values_mut().for_each(|flow| flow.flush(&mut self.draft));
        let places = self.flows.values().map(Flow::place).collect();
        self.is_dirty = false;
        self.draft.seal(places)
    }

    /// The containers that spoke so far are through: what was held back of their ends is to be seen. Seal once more after this.
    pub(super) fn settle(&mut self, at: Timestamp) {
        self.is_dirty = true;
        let containers = self.flows.iter_mut().filter(|(source, _)| !source.is_host());
        containers.for_each(|(_, flow)| flow.finish(at, &mut self.draft));
    }

    /// Nobody says anything any more; `incomplete` says what is missing. Seal once more after this.
    pub(super) fn finish(&mut self, at: Timestamp, incomplete: Option<&str>) {
        self.flows.values_mut().for_each(|flow| flow.finish(at, &mut self.draft));
        let dropped = self.draft.header().dropped;
        if dropped > 0 {
            self.say(at, &format!("{dropped} bytes came after the limit and were not kept"));
        }
        if let Some(reason) = incomplete {
            self.say(at, &format!("this log is incomplete: {reason}"));
        }
        self.draft.header().flags |= flag::FINISHED | if dropped > 0 || incomplete.is_some() { flag::INCOMPLETE } else { 0 };
    }

    /// There is text that a reader waits for.
    pub(super) fn has_text(&self) -> bool {
        !self.draft.is_empty() || self.flows.values().any(|flow| !flow.pending.is_empty())
    }

    /// Something is to be noted, be it that bytes were dropped.
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    fn is_limited(&mut self) -> bool {
        self.draft.header().has(flag::LIMITED)
    }

    fn reach_limit(&mut self, at: Timestamp) {
        let containers = self.flows.iter_mut().filter(|(source, _)| !source.is_host());
        containers.for_each(|(_, flow)| flow.flush(&mut self.draft));
        self.draft.header().flags |= flag::LIMITED;
        self.say(at, &format!("the limit of {} bytes for a log is reached: what follows is counted, not kept", self.limit));
    }

    fn drop_bytes(&mut self, source: Source, at: Timestamp, count: usize) {
        let (flow, draft) = self.flow(source, at);
        // What the masker and the line held when the limit came is dropped with the rest.
        let count = count as u64 + flow.abandon();
        flow.taken += count;
        draft.header().dropped += count;
    }

    fn say(&mut self, at: Timestamp, text: &str) {
        let (host, draft) = self.flow(Source::HOST, at);
        host.take(at, format!("{text}\n").as_bytes(), draft);
    }

    fn flow(&mut self, source: Source, at: Timestamp) -> (&mut Flow, &mut Draft) {
        if !self.flows.contains_key(&source) {
            self.end_before(source, at);
        }
        let flow = self.flows.entry(source).or_insert_with(|| Flow::new(source, &self.secrets));
        (flow, &mut self.draft)
    }

    /// Whoever spoke in an earlier round is through: nobody asks any more how far they came.
    fn end_before(&mut self, source: Source, at: Timestamp) {
        if source.is_host() {
            return;
        }
        let draft = &mut self.draft;
        self.flows.retain(|other, flow| {
            let is_over = other.round < source.round;
            if is_over {
                flow.finish(at, draft);
                draft.end(*other, at);
            }
            !is_over
        });
    }
}

impl Flow {
    fn new(source: Source, secrets: &Secrets) -> Self {
        let place = Place { source, stored: 0, covered: 0, is_open: false, is_cut: false };
        Self::resume(&place, secrets)
    }

    fn resume(place: &Place, secrets: &Secrets) -> Self {
        let covered = usize::try_from(place.covered).unwrap_or(usize::MAX);
        Self {
            source: place.source,
            masker: Masker::resume(secrets, covered),
            taken: place.stored,
            pending: Vec::new(),
            pending_since: Timestamp(0),
            line_len: 0,
        }
    }

    fn take(&mut self, at: Timestamp, bytes: &[u8], draft: &mut Draft) {
        self.taken += bytes.len() as u64;
        let mut masked = Vec::with_capacity(bytes.len());
        self.masker.push(bytes, &mut masked);
        self.split(at, &masked, draft);
    }

    fn split(&mut self, at: Timestamp, masked: &[u8], draft: &mut Draft) {
        for part in masked.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            while self.line_len + text.len() > MAX_LINE {
                let room = MAX_LINE.saturating_sub(self.line_len);
                let (now, later) = text.split_at(room - partial_character(text.get(..room).unwrap_or(text)));
                self.add(at, now);
                self.end_piece(at, true, draft);
                draft.mark_cut(self.source);
                text = later;
            }
            self.add(at, text);
            if ends {
                self.end_piece(at, true, draft);
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
    fn end_piece(&mut self, at: Timestamp, ends: bool, draft: &mut Draft) {
        let at = if self.pending.is_empty() { at } else { self.pending_since };
        draft.add(self.source, at, &self.pending, ends);
        self.pending.clear();
        if ends {
            self.line_len = 0;
        }
    }

    /// Shows a line before its end has come; of a character that has come in part, nothing yet.
    fn flush(&mut self, draft: &mut Draft) {
        let rest = self.pending.split_off(self.pending.len() - self.kept_back());
        if !self.pending.is_empty() {
            self.end_piece(self.pending_since, false, draft);
        }
        self.pending = rest;
    }

    fn finish(&mut self, at: Timestamp, draft: &mut Draft) {
        let mut masked = Vec::new();
        self.masker.finish(&mut masked);
        self.split(at, &masked, draft);
        if !self.pending.is_empty() {
            self.end_piece(at, false, draft);
        }
    }

    /// How far this one is on disk once the flushed frame is.
    fn place(&self) -> Place {
        let place = Place { source: self.source, stored: 0, covered: 0, is_open: false, is_cut: false };
        if self.source.is_host() {
            // After a restart the host says something else: nothing of it goes on.
            return place;
        }
        let waiting = self.masker.held() + self.kept_back();
        Place { stored: self.taken.saturating_sub(waiting as u64), covered: self.masker.covered() as u64, ..place }
    }

    /// Bytes at the end of what waits that are the beginning of a character. None while a mask goes over the next bytes: the
    /// restart of a stream begins either with part of a character or within a secret, never both.
    fn kept_back(&self) -> usize {
        if self.masker.covered() > 0 { 0 } else { partial_character(&self.pending) }
    }

    /// Forgets what was held back and returns how many bytes of the stream that was.
    fn abandon(&mut self) -> u64 {
        let held = self.masker.held() + self.pending.len();
        self.masker = Masker::new(&Secrets::none());
        self.pending.clear();
        self.taken -= (held as u64).min(self.taken);
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
