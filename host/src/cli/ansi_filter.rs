//! Filters a log for a terminal: text, colours and `\r` pass, all other control sequences are dropped. Otherwise a program in a
//! container could write to the clipboard, set the window title, or overwrite earlier output.

use anstyle_parse::{Params, Perform};
use beespace_core::sanitize;

use crate::ansi::Utf8Parser;

/// Resets all colours and styles.
const RESET: &str = "\u{1b}[m";

/// The most bytes of style sequences that are kept for restoring colours after a pause; a program may never reset its colours.
const MAX_STYLE_BYTES: usize = 1_024;

/// Filters one log, given in pieces of any size.
#[derive(Debug, Default)]
pub struct AnsiFilter {
    parser: Utf8Parser,
    filtered: Filtered,
}

#[derive(Debug, Default)]
struct Filtered {
    text: String,
    /// The style sequences since the last reset: they determine how the program's next text looks.
    style: String,
    /// The style was reset by [`AnsiFilter::pause`] and must be restored before the next text.
    is_paused: bool,
}

impl AnsiFilter {
    /// Returns the part of the next piece that may be written to the terminal.
    #[must_use]
    pub fn filter(&mut self, piece: &[u8]) -> String {
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            self.parser.feed(text, &mut self.filtered);
            if text.len() < line.len() {
                // An unfinished sequence ends with its line; otherwise it would swallow all text that follows.
                self.parser.reset();
                self.filtered.push('\n');
            }
        }
        std::mem::take(&mut self.filtered.text)
    }

    /// Returns the sequence to write before other output: it resets the program's colours until the program's next text.
    #[must_use]
    pub fn pause(&mut self) -> &'static str {
        if self.filtered.style.is_empty() || std::mem::replace(&mut self.filtered.is_paused, true) { "" } else { RESET }
    }
}

impl Filtered {
    fn push(&mut self, character: char) {
        if std::mem::take(&mut self.is_paused) {
            self.text.push_str(&self.style);
        }
        self.text.push(character);
    }
}

impl Perform for Filtered {
    fn print(&mut self, character: char) {
        self.push(sanitize::character(character));
    }

    fn execute(&mut self, byte: u8) {
        if matches!(byte, b'\t' | b'\r') {
            self.push(char::from(byte));
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if action != b'm' || ignore || !intermediates.is_empty() || conceals(params) {
            return;
        }
        let params: Vec<String> =
            params.iter().map(|parts| parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(":")).collect();
        let sequence = format!("\u{1b}[{}m", params.join(";"));
        if params.last().is_some_and(|last| last == "0") || self.style.len() > MAX_STYLE_BYTES {
            self.style.clear();
        }
        if params.iter().any(|param| param != "0") {
            self.style.push_str(&sequence);
        }
        if !self.is_paused {
            self.text.push_str(&sequence);
        }
    }
}

/// Whether the sequence makes text invisible (SGR 8). Numbers after 38, 48 or 58 belong to a colour.
fn conceals(params: &Params) -> bool {
    let mut params = params.iter();
    while let Some(param) = params.next() {
        match param {
            [8, ..] => return true,
            [38 | 48 | 58] => {
                let numbers = match params.next() {
                    Some([5]) => 1,
                    Some([2]) => 3,
                    _ => 0,
                };
                params.by_ref().take(numbers).for_each(drop);
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passed(text: &str) -> String {
        AnsiFilter::default().filter(text.as_bytes())
    }

    #[test]
    fn colours_pass_and_are_reset_during_a_pause() {
        let mut log = AnsiFilter::default();
        assert_eq!(log.filter(b"\x1b[1;38;5;8mred\x1b[48:2::1:2:3m\r\n\tx"), "\u{1b}[1;38;5;8mred\u{1b}[48:2:0:1:2:3m\r\n\tx");
        assert_eq!((log.pause(), log.pause()), ("\u{1b}[m", ""));
        assert_eq!(log.filter(b"y\x1b[0m"), "\u{1b}[1;38;5;8m\u{1b}[48:2:0:1:2:3my\u{1b}[0m");
        assert_eq!(log.pause(), "");
    }

    #[test]
    fn sequences_that_control_the_terminal_do_not_pass() {
        for (text, expected) in [
            ("\x1b]52;c;cm0gLXJmIC8=\x07x", "x"),
            ("\x1b]0;title\x1b\\x", "x"),
            ("\x1b]8;;https://x.example/\x07go\x1b]8;;\x07", "go"),
            ("\x1b[2J\x1b[H\x1b[5A\x1b[?1049h\x1b[6n\x1b[cx", "x"),
            ("\x1bcx\x1bP1$r0m\x1b\\y\x1b_apc\x1b\\z", "xyz"),
            ("a\x07\x08\x0b\0b", "ab"),
            ("\x1b[8mseen\x1b[38;5;8;8mtoo", "seentoo"),
            ("a\u{9b}31mb\u{202e}c\u{200b}d", "a\u{fffd}31mb\u{fffd}c\u{fffd}d"),
            ("\x1b]0;a title that never ends\nnext", "\nnext"),
        ] {
            assert_eq!(passed(text), expected, "{text:?}");
        }
        assert_eq!(AnsiFilter::default().filter(b"a\xffb"), "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn only_colours_pass_however_the_input_is_cut(
            parts in prop::collection::vec(prop_oneof![
                any::<Vec<u8>>(),
                "[\x1b\\[\\]0-9;:mKH\x07\\\\a\r\n\x08\u{9b}\u{202e}]{0,20}".prop_map(String::into_bytes),
            ], 0..8),
        ) {
            let mut pieces = AnsiFilter::default();
            let out: String = parts.iter().map(|part| pieces.filter(part)).collect();
            prop_assert_eq!(&out, &AnsiFilter::default().filter(&parts.concat()));
            for (index, part) in out.split('\u{1b}').enumerate() {
                let rest = if index == 0 { part } else {
                    let (sgr, rest) = part.split_once('m').unwrap();
                    let is_plain = sgr[1..].chars().all(|c| c.is_ascii_digit() || ";:".contains(c));
                    prop_assert!(sgr.starts_with('[') && is_plain, "{:?}", part);
                    rest
                };
                prop_assert!(!rest.chars().any(|c| sanitize::is_unsafe(c) && !"\n\r\t".contains(c)), "{:?}", part);
            }
        }
    }
}
