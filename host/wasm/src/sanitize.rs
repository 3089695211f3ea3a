//! Sanitizes texts of plugins, which are untrusted: a text must not move a cursor, reorder a line or fill a disk.

use beespace_core::sanitize;

/// Returns `text` in one line, without control, bidirectional and zero-width characters, truncated to `cap` bytes with an
/// ellipsis.
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
    fn control_and_bidirectional_characters_are_removed() {
        assert_eq!(sanitize("a\u{1b}[2Jb\u{9b}c\u{202e}d\u{200b}e\r\nf\u{0}", 100), "a[2Jbcde  f");
    }

    #[test]
    fn truncation_respects_character_boundaries() {
        assert_eq!(sanitize("äöü", 3), "ä…");
        assert_eq!(sanitize("äöü", 6), "äöü");
    }
}
