//! Reassembles UTF-8 characters from byte pieces for the parser of terminal sequences. Invalid bytes become U+FFFD.

use anstyle_parse::{DefaultCharAccumulator, Parser, Perform};

/// A parser, and the first bytes of a character whose rest is in the next piece.
#[derive(Debug, Clone, Default)]
pub struct Utf8Parser {
    parser: Parser<DefaultCharAccumulator>,
    partial: Vec<u8>,
}

impl Utf8Parser {
    /// Parses the next piece and applies it to `screen`.
    pub fn feed(&mut self, piece: &[u8], screen: &mut impl Perform) {
        let joined = [std::mem::take(&mut self.partial), piece.to_vec()].concat();
        let mut rest = joined.as_slice();
        while !rest.is_empty() {
            let (valid, bad) = match std::str::from_utf8(rest) {
                Ok(_) => (rest.len(), None),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            let (text, after) = rest.split_at(valid);
            self.advance(text, screen);
            let Some(bad) = bad else {
                self.partial = after.to_vec();
                return;
            };
            self.advance("\u{fffd}".as_bytes(), screen);
            rest = after.get(bad..).unwrap_or_default();
        }
    }

    fn advance(&mut self, text: &[u8], screen: &mut impl Perform) {
        for byte in text {
            self.parser.advance(screen, *byte);
        }
    }

    /// Discards an unfinished sequence or character.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}
