//! Masks secrets in a byte stream before it is stored or shown.
//!
//! Masking protects against accidents, not against malicious steps: a program with access to a secret can always encode it in a
//! form that is not searched. The masker searches the value, its lines, and the common encodings of both (`mask/encodings.rs`).
//!
//! **Matching.** The masker hides the union of all matches, overlapping ones included, and replaces each run of hidden bytes by
//! one [`MASK`]. (Leftmost-longest replacement, which is common, shows the tail of `bcd` if `abc` and `bcd` overlap in `abcd`.)
//! The output therefore depends only on the bytes, not on how the stream is split into chunks.
//!
//! **Buffering.** Between chunks the masker buffers exactly the longest suffix of the stream that could still become a secret.
//! For most texts this is empty, so a prompt without a newline appears at once.

mod encodings;
mod strength;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

pub use strength::{Weakness, weakness};

/// The replacement of a secret. Its length is constant, so it reveals nothing about the secret.
pub const MASK: &str = "********";

/// Minimum length in bytes. A shorter value or line is not masked, because it would match large parts of every log.
pub const MIN_LENGTH: usize = 4;

/// Length in bytes of the longest value that can be masked.
pub const MAX_LENGTH: usize = 64 * 1024;

/// Most bytes of all encodings of all secrets of one step. The limit bounds the memory of the automaton.
const MAX_ENCODED_BYTES: usize = 8 * 1024 * 1024;

/// Why the secrets cannot be masked. The step must not run then, because its log would be unmasked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotMask {
    /// One value is longer than [`MAX_LENGTH`].
    #[error(
        "a secret of {0} bytes is too long to be masked in logs: the limit is {MAX_LENGTH} bytes; store a key instead of the data"
    )]
    TooLong(usize),
    /// All encodings together are too large.
    #[error("this step has too many secrets to be masked in its log: pass only the secrets that it needs")]
    TooMany,
}

/// The secrets of one step or stage, compiled for the search. Cheap to clone. `Debug` shows none of them.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<Patterns>>);

struct Patterns {
    automaton: NFA,
    start: StateID,
    /// Number of matched bytes of a pattern for each state of the automaton.
    depths: HashMap<u32, usize>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Secrets(********)" } else { "Secrets(none)" })
    }
}

impl Secrets {
    /// No secrets: nothing is masked.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Masks all `values` and their encodings. Values shorter than [`MIN_LENGTH`] are ignored ([`weakness`] reports them when a
    /// secret is stored).
    ///
    /// # Errors
    /// [`CannotMask`] if one value or all of them together are too large.
    pub fn new<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Result<Self, CannotMask> {
        let mut all = std::collections::BTreeSet::new();
        for value in values {
            let value = value.as_ref();
            if value.len() > MAX_LENGTH {
                return Err(CannotMask::TooLong(value.len()));
            }
            all.extend(encodings::encodings(value));
        }
        if all.iter().map(Vec::len).sum::<usize>() > MAX_ENCODED_BYTES {
            return Err(CannotMask::TooMany);
        }
        if all.is_empty() {
            return Ok(Self(None));
        }
        Patterns::new(&all.into_iter().collect::<Vec<_>>()).map(|patterns| Self(Some(Arc::new(patterns))))
    }

    /// Masks a whole text, for example an error message.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        let mut masker = Masker::new(self);
        let mut out = Vec::with_capacity(text.len());
        masker.push(text.as_bytes(), &mut out);
        masker.finish(&mut out);
        // Masking splits a character only if a secret itself is not UTF-8.
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Patterns {
    fn new(forms: &[Vec<u8>]) -> Result<Self, CannotMask> {
        // `Standard` reports every match that ends at a byte; the other kinds drop overlapping matches.
        let automaton = NFA::builder().match_kind(MatchKind::Standard).build(forms).map_err(|_| CannotMask::TooMany)?;
        let start = automaton.start_state(Anchored::No).map_err(|_| CannotMask::TooMany)?;
        let mut depths = HashMap::new();
        for form in forms {
            let mut state = start;
            for (index, byte) in form.iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, *byte);
                depths.insert(state.as_u32(), index + 1);
            }
        }
        Ok(Self { automaton, start, depths })
    }

    /// The length of the longest pattern that ends in this state.
    fn longest(&self, state: StateID) -> usize {
        (0..self.automaton.match_len(state))
            .map(|index| self.automaton.pattern_len(self.automaton.match_pattern(state, index)))
            .max()
            .unwrap_or(0)
    }

    fn depth(&self, state: StateID) -> usize {
        self.depths.get(&state.as_u32()).copied().unwrap_or(0)
    }
}

/// Masks one stream chunk by chunk. It buffers at most one chunk and the longest pattern.
pub struct Masker {
    patterns: Option<(Arc<Patterns>, StateID)>,
    /// The end of the stream that is not written yet.
    buffer: Vec<u8>,
    /// Secret ranges in `buffer`: disjoint, sorted, never adjacent.
    secret_ranges: Vec<(usize, usize)>,
    /// Whether the output so far ends with a mask.
    mask_written: bool,
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker").field("held", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Masker {
    /// A masker for the beginning of a stream.
    #[must_use]
    pub fn new(secrets: &Secrets) -> Self {
        Self::resume(secrets, 0)
    }

    /// A masker for the middle of a stream, from the first byte that an earlier masker had not written. `covered` is that
    /// masker's [`Masker::masked_prefix`].
    #[must_use]
    pub fn resume(secrets: &Secrets, covered: usize) -> Self {
        Self {
            patterns: secrets.0.as_ref().map(|patterns| (Arc::clone(patterns), patterns.start)),
            buffer: Vec::new(),
            secret_ranges: if covered > 0 { vec![(0, covered)] } else { Vec::new() },
            mask_written: covered > 0,
        }
    }

    /// Processes a chunk, and appends everything that is decided to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let Some((patterns, mut state)) = self.patterns.take() else {
            out.extend_from_slice(chunk);
            return;
        };
        let before = self.buffer.len();
        self.buffer.extend_from_slice(chunk);
        for (index, byte) in chunk.iter().enumerate() {
            state = patterns.automaton.next_state(Anchored::No, state, *byte);
            if patterns.automaton.is_match(state) {
                let end = before + index + 1;
                self.add_range(end.saturating_sub(patterns.longest(state)), end);
            }
        }
        let decided = self.buffer.len().saturating_sub(patterns.depth(state));
        self.patterns = Some((patterns, state));
        self.flush(decided, out);
    }

    /// Ends the stream and writes the buffered bytes.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.flush(self.buffer.len(), out);
        self.secret_ranges.clear();
        self.mask_written = false;
        if let Some((patterns, state)) = &mut self.patterns {
            *state = patterns.start;
        }
    }

    /// Number of input bytes that are not written yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Number of bytes at the start of the buffer that belong to a secret whose mask is already written.
    #[must_use]
    pub fn masked_prefix(&self) -> usize {
        match self.secret_ranges.first() {
            Some((0, end)) if self.mask_written => *end,
            _ => 0,
        }
    }

    fn add_range(&mut self, mut start: usize, end: usize) {
        while let Some((last_start, last_end)) = self.secret_ranges.last().copied() {
            if last_end < start {
                break;
            }
            start = start.min(last_start);
            self.secret_ranges.pop();
        }
        self.secret_ranges.push((start, end));
    }

    fn flush(&mut self, decided: usize, out: &mut Vec<u8>) {
        let mut at = 0;
        let mut rest = Vec::new();
        for (start, end) in std::mem::take(&mut self.secret_ranges) {
            if start < decided {
                self.emit(at, start, out);
                if !self.mask_written {
                    out.extend_from_slice(MASK.as_bytes());
                    self.mask_written = true;
                }
                at = end.min(decided);
            }
            if end > decided {
                rest.push((start.saturating_sub(decided), end - decided));
            }
        }
        self.emit(at, decided, out);
        self.secret_ranges = rest;
        self.buffer.drain(..decided);
    }

    fn emit(&mut self, start: usize, end: usize, out: &mut Vec<u8>) {
        if let Some(plain) = self.buffer.get(start..end).filter(|plain| !plain.is_empty()) {
            out.extend_from_slice(plain);
            self.mask_written = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(secrets: &Secrets, chunks: &[&[u8]]) -> String {
        let mut masker = Masker::new(secrets);
        let mut out = Vec::new();
        for chunk in chunks {
            masker.push(chunk, &mut out);
        }
        masker.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_output_does_not_depend_on_chunks_and_leaks_nothing() {
        use base64::Engine as _;
        let values = ["hunter2-hunter2", "p&ss \"wörd\"/<x>", "line one\nline two is longer\n{\n}\n", "aXbXaXbX"];
        let secrets = Secrets::new(values).unwrap();
        let mut text = b"begin hunter2-hunter hunter2-hunter2hunter2-hunter2-hunter2 end\n".to_vec();
        for value in values {
            let forms: Vec<_> = encodings::encodings(value.as_bytes()).into_iter().collect();
            text.extend(forms.join(&b" | "[..]));
        }
        text.extend(base64::engine::general_purpose::STANDARD.encode("user:hunter2-hunter2").bytes());
        text.extend(b"\nend aXbXaXbXaXbXaXb aXb\n");
        let whole = masked(&secrets, &[&text]);
        let alone: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(masked(&secrets, &alone), whole);
        for value in values {
            for form in encodings::encodings(value.as_bytes()) {
                assert!(!whole.as_bytes().windows(form.len()).any(|window| window == form), "{whole}");
            }
        }
        assert!(whole.starts_with("begin hunter2-hunter ******** end\n"), "{whole}");
        assert!(whole.ends_with("\nend ********aXb aXb\n"), "{whole}");
        for cut in 0..=text.len() {
            assert_eq!(masked(&secrets, &[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn overlapping_secrets_hide_all_their_bytes() {
        let secrets = Secrets::new(["abcd", "cdef", "efgh"]).unwrap();
        assert_eq!(secrets.mask("xabcdefghx abcd cdef bcde"), "x********x ******** ******** bcde");
    }

    #[test]
    fn only_a_prefix_of_a_secret_is_buffered() {
        let secrets = Secrets::new(["correct horse"]).unwrap();
        let (mut masker, mut out) = (Masker::new(&secrets), Vec::new());
        masker.push(b"continue? [y/N] ", &mut out);
        assert_eq!(out, b"continue? [y/N] ");
        masker.push(b"say corr", &mut out);
        assert_eq!((out.as_slice(), masker.buffered()), (&b"continue? [y/N] say "[..], 4));
        masker.push(b"al\n", &mut out);
        assert_eq!(out, b"continue? [y/N] say corral\n");
    }

    #[test]
    fn braces_of_a_json_secret_stay_visible() {
        let secrets = Secrets::new(["{\n  \"key\": \"topsecretvalue\",\n  \"on\": true\n}\n"]).unwrap();
        assert_eq!(secrets.mask("fn main() {\n}\n"), "fn main() {\n}\n");
        assert_eq!(secrets.mask("  \"key\": \"topsecretvalue\",\n"), "  ********\n");
    }

    #[test]
    fn traces_of_the_shell_are_masked() {
        let secrets = Secrets::new(["it's secret"]).unwrap();
        assert_eq!(secrets.mask(r"+ echo 'it'\''s secret'"), "+ echo '********'");
        assert_eq!(secrets.mask(r#"+ echo 'it'"'"'s secret'"#), "+ echo '********'");
    }

    #[test]
    fn debug_shows_nothing() {
        let secrets = Secrets::new(["topsecret"]).unwrap();
        let mut masker = Masker::new(&secrets);
        masker.push(b"topse", &mut Vec::new());
        assert!(!format!("{secrets:?} {masker:?}").contains("tops"));
    }

    #[test]
    fn secrets_that_cannot_be_masked_are_refused() {
        assert_eq!(Secrets::new([vec![b'x'; MAX_LENGTH + 1]]).unwrap_err(), CannotMask::TooLong(MAX_LENGTH + 1));
        assert!(Secrets::new(["", "abc"]).unwrap().0.is_none());
    }

    proptest! {
        /// A small alphabet makes overlaps, prefixes of each other and near misses the rule.
        #[test]
        fn any_stream_in_any_cuts_equals_its_definition_and_resumes_anywhere(
            values in prop::collection::vec("[ab]{4,7}", 1..4),
            text in "[abc]{0,60}",
            cuts in prop::collection::vec(0usize..61, 0..6),
            stop in 0usize..61,
        ) {
            let secrets = Secrets::new(&values).unwrap();
            let mut hidden = vec![false; text.len()];
            for value in &values {
                for start in 0..text.len() {
                    if text[start..].starts_with(value.as_str()) {
                        hidden[start..start + value.len()].fill(true);
                    }
                }
            }
            let mut expected = String::new();
            for (index, byte) in text.chars().enumerate() {
                if !hidden[index] {
                    expected.push(byte);
                } else if index == 0 || !hidden[index - 1] {
                    expected.push_str(MASK);
                }
            }

            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(masked(&secrets, &chunks), expected.clone());

            let stop = stop.min(text.len());
            let (mut first, mut out) = (Masker::new(&secrets), Vec::new());
            first.push(&text.as_bytes()[..stop], &mut out);
            let mut second = Masker::resume(&secrets, first.masked_prefix());
            second.push(&text.as_bytes()[stop - first.buffered()..], &mut out);
            second.finish(&mut out);
            // Two adjacent masks are possible if one secret ends exactly at the stop and the next one begins there.
            let out = String::from_utf8(out).unwrap().replace("****************", MASK);
            prop_assert_eq!(out, expected);
        }
    }
}
