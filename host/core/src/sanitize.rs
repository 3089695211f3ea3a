//! Sanitizes untrusted text for display. Control characters, bidirectional marks and zero-width characters are replaced by
//! U+FFFD, so that the visible text is the real text ("Trojan Source", CVE-2021-42574).

/// Whether a character changes the appearance of the text around it without being visible: control characters, bidirectional
/// marks, line breaks other than newlines, and zero-width characters.
#[must_use]
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Sanitizes one character of a line. One character becomes exactly one, so columns stay correct.
#[must_use]
pub fn character(character: char) -> char {
    match character {
        '\t' => ' ',
        character if is_unsafe(character) => char::REPLACEMENT_CHARACTER,
        character => character,
    }
}

/// Sanitizes a text to one line. A newline is replaced too, because an attacker could use it to imitate a line of our own output.
#[must_use]
pub fn line(text: &str) -> String {
    text.chars().map(character).collect()
}

/// Sanitizes a text of several lines: newlines and tabs stay.
#[must_use]
pub fn lines(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '\n' | '\t') { c } else { character(c) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_characters_become_visible() {
        assert_eq!(line("a\u{1b}[31m\u{7}b\u{202e}c\nd\te"), "a\u{fffd}[31m\u{fffd}b\u{fffd}c\u{fffd}d e");
        for hidden in ['\u{9b}', '\u{ad}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{2066}', '\u{feff}', '\u{e0041}'] {
            assert_eq!(line(&hidden.to_string()), "\u{fffd}", "{hidden:?}");
        }
        assert_eq!(line("grün 蜂 🐝"), "grün 蜂 🐝");
    }

    #[test]
    fn newlines_and_tabs_stay_in_texts_of_several_lines() {
        assert_eq!(lines("a\n\tb\u{1b}]0;x\u{7}\r\n"), "a\n\tb\u{fffd}]0;x\u{fffd}\u{fffd}\n");
    }
}
