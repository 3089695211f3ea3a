//! Text of strangers as people may safely see it. What steers a terminal, turns the direction of a text or has no width is shown as
//! U+FFFD: what a person reads is what is there ("Trojan Source", CVE-2021-42574).

/// Whether a character changes how the text around it looks without being seen itself: controls, marks of direction, breaks that
/// are no newlines, and what has no width.
#[must_use]
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One character of a line. One stands for one, so that columns stay true.
#[must_use]
pub fn character(character: char) -> char {
    match character {
        '\t' => ' ',
        character if is_unsafe(character) => char::REPLACEMENT_CHARACTER,
        character => character,
    }
}

/// A text in one line: a newline in it is shown, too, because it could pretend to begin something of ours.
#[must_use]
pub fn line(text: &str) -> String {
    text.chars().map(character).collect()
}

/// A text whose lines and columns are ours.
#[must_use]
pub fn lines(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '\n' | '\t') { c } else { character(c) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_turns_text_is_seen() {
        assert_eq!(line("a\u{1b}[31m\u{7}b\u{202e}c\nd\te"), "a\u{fffd}[31m\u{fffd}b\u{fffd}c\u{fffd}d e");
        for hidden in ['\u{9b}', '\u{ad}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{2066}', '\u{feff}', '\u{e0041}'] {
            assert_eq!(line(&hidden.to_string()), "\u{fffd}", "{hidden:?}");
        }
        assert_eq!(line("grün 蜂 🐝"), "grün 蜂 🐝");
    }

    #[test]
    fn lines_of_ours_stay_lines() {
        assert_eq!(lines("a\n\tb\u{1b}]0;x\u{7}\r\n"), "a\n\tb\u{fffd}]0;x\u{fffd}\u{fffd}\n");
    }
}
