//! Text from a plugin is a stranger's text: it must not move a cursor, reorder a line or fill a disk.

use beespace_core::sanitize;

/// `text` in one line, without control, bidirectional and zero-width characters, cut to `cap` bytes with an ellipsis.
pub(crate) fn sanitize(text: &str, cap: usize) -> String {
    let mut kept = String::with_capacity(text.len().min(cap));
    for character in text.chars() {
        let character = match character {
            '\n' | '\r' | '\t' => ' ',
            other if sanitize::is_unsafe(other) => continue,
            other => other,
        };
        if kept.len() + character.len_utf8() > cap {
            kept.push('…');
            break;
        }
        kept.push(character);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::sanitize;

    #[test]
    fn what_moves_a_cursor_or_turns_a_line_around_is_gone() {
        assert_eq!(sanitize("a\u{1b}[2Jb\u{9b}c\u{202e}d\u{200b}e\r\nf\u{0}", 100), "a[2Jbcde  f");
    }

    #[test]
    fn a_cut_stays_on_a_character() {
        assert_eq!(sanitize("äöü", 3), "ä…");
        assert_eq!(sanitize("äöü", 6), "äöü");
    }
}
