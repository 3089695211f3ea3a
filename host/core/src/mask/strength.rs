//! The strength of a secret's value: warns about values that masking protects badly, before they are stored.

use std::fmt;

use super::MIN_LENGTH;

/// Minimum length for reliable masking: base64 of a shorter value inside a longer text has too few distinctive digits.
const GOOD_LENGTH: usize = 12;

/// Why a value is a weak secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// The value is too short to be masked.
    NotMasked,
    /// The value is masked, but parts of its encodings may appear, and it is easy to guess.
    Short,
    /// The value is a word that is common in logs, so its mask reveals it.
    Common,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMasked => {
                write!(f, "the value has fewer than {MIN_LENGTH} characters and would not be masked in logs")
            }
            Self::Short => write!(
                f,
                "the value has fewer than {GOOD_LENGTH} characters: it is easy to guess, and encoded forms of it may appear in \
                 logs"
            ),
            Self::Common => f.write_str("the value is a common word, so its mask in a log reveals it; check that it is a secret"),
        }
    }
}

/// Why `value` is a weak secret; `None` if it is strong enough.
#[must_use]
pub fn weakness(value: &[u8]) -> Option<Weakness> {
    const COMMON: &[&str] =
        &["true", "false", "none", "null", "root", "admin", "user", "test", "password", "secret", "production"];
    let value = value.trim_ascii();
    if value.len() < MIN_LENGTH {
        Some(Weakness::NotMasked)
    } else if COMMON.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(value)) {
        Some(Weakness::Common)
    } else {
        (value.len() < GOOD_LENGTH).then_some(Weakness::Short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_are_reported() {
        assert_eq!(weakness(b" ab\n"), Some(Weakness::NotMasked));
        assert_eq!(weakness(b"True"), Some(Weakness::Common));
        assert_eq!(weakness(b"hunter2"), Some(Weakness::Short));
        assert_eq!(weakness(b"correct horse battery"), None);
    }
}
