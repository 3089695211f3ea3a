//! Patterns over names: `*` matches any text without `/`, `**` any text, every other character itself.

/// Whether `pattern` matches the whole of `text`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    // `reached[n]`: the part of the pattern read so far matches the first n bytes. The time is the product of both lengths for
    // every pattern; there is no backtracking.
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

/// Extends every reached position by any number of bytes that `may_pass` accepts.
fn spread(reached: &mut [bool], text: &[u8], may_pass: impl Fn(u8) -> bool) {
    let mut open = false;
    for (position, here) in reached.iter_mut().enumerate() {
        let passes = position.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|byte| may_pass(*byte));
        open = *here || (open && passes);
        *here = open;
    }
}

/// Advances every reached position by exactly this byte.
fn step(reached: &mut [bool], text: &[u8], expected: u8) {
    let mut before = false;
    for (position, here) in reached.iter_mut().enumerate() {
        let is_expected = position.checked_sub(1).and_then(|last| text.get(last)) == Some(&expected);
        (before, *here) = (*here, before && is_expected);
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stops_at_a_slash_and_a_double_star_does_not() {
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
    fn a_pattern_with_many_stars_is_fast() {
        assert!(!matches(&"*a".repeat(2_000), &"a".repeat(1_999)));
    }
}
