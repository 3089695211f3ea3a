//! Patterns over names: `*` is any text without `/`, `**` any text, everything else itself.

/// Whether all of `text` is what `pattern` says.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    // Which lengths of the text the pattern read so far can stand for: linear in either, whatever the pattern.
    let mut reached = vec![false; text.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    let mut rest = pattern.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"**") {
            rest = tail;
            spread(&mut reached, text, |_| true);
        } else if *first == b'*' {
            rest = tail;
            spread(&mut reached, text, |byte| byte != b'/');
        } else {
            rest = tail;
            step(&mut reached, text, *first);
        }
    }
    reached.last().copied().unwrap_or(false)
}

/// From every place reached on over any number of bytes that `may_pass`.
fn spread(reached: &mut [bool], text: &[u8], may_pass: impl Fn(u8) -> bool) {
    let mut open = false;
    for (place, here) in reached.iter_mut().enumerate() {
        let passes = place.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|byte| may_pass(*byte));
        open = *here || (open && passes);
        *here = open;
    }
}

/// From every place reached on over exactly this byte.
fn step(reached: &mut [bool], text: &[u8], expected: u8) {
    let mut before = false;
    for (place, here) in reached.iter_mut().enumerate() {
        let is_expected = place.checked_sub(1).and_then(|last| text.get(last)) == Some(&expected);
        (before, *here) = (*here, before && is_expected);
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stay_within_a_part_and_double_stars_do_not() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "abc", true),
            ("*", "", true),
            ("*", "a/b", false),
            ("**", "a/b", true),
            ("ghcr.io/acme/*", "ghcr.io/acme/app", true),
            ("ghcr.io/acme/*", "ghcr.io/acme/team/app", false),
            ("ghcr.io/acme/**", "ghcr.io/acme/team/app", true),
            ("ghcr.io/acme/*", "ghcr.io/acme2/app", false),
            ("*-nightly", "1.95-nightly", true),
            ("1.*", "1.", true),
            ("1.*", "2.1.0", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        assert!(!matches(&"*a".repeat(2_000), &"a".repeat(1_999)));
    }
}
