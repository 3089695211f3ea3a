//! Values that a mask protects badly, said to a person while they still can choose another.

use std::fmt;

use super::MIN_LENGTH;

/// Base64 of a shorter value inside a longer text keeps so few digits that some show.
const GOOD_LENGTH: usize = 12;

/// What is wrong with a value as a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// It is not masked at all.
    NotMasked,
    /// It is masked, but parts of its encodings may show, and it is quickly guessed.
    Short,
    /// It is a word that logs are full of: its mask tells what it is.
    Common,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMasked => {
                write!(f, "it has fewer than {MIN_LENGTH} characters, so it is NOT masked in logs; use a longer value")
            }
            Self::Short => write!(
                f,
                "it has fewer than {GOOD_LENGTH} characters: encoded forms of it may show in logs, and it is quickly guessed"
            ),
            Self::Common => f.write_str("it is a common word: masking it in every log tells what it is; is it a secret at all?"),
        }
    }
}

/// Why `value` is a poor secret; `None` where it is not.
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
    fn poor_secrets_are_named() {
        assert_eq!(weakness(b" ab\n"), Some(Weakness::NotMasked));
        assert_eq!(weakness(b"True"), Some(Weakness::Common));
        assert_eq!(weakness(b"hunter2"), Some(Weakness::Short));
        assert_eq!(weakness(b"correct horse battery"), None);
    }
}
