//! RFC 6901 pointers, and the grants that say which of them a policy may change.

use std::fmt;

/// A place in a JSON document, part by part. The empty pointer is the whole document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pointer(Vec<String>);

/// Why a text is no pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a JSON pointer: expected parts that each begin with `/`, in which `~0` is `~` and `~1` is `/`")]
pub struct InvalidPointer(pub String);

impl Pointer {
    #[must_use]
    pub fn new(parts: Vec<String>) -> Self {
        Self(parts)
    }

    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// Where one of the two lies within the other, or both are the same place.
    #[must_use]
    pub fn touches(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// The place one step down.
    #[must_use]
    pub fn child(&self, part: impl ToString) -> Self {
        let mut parts = self.0.clone();
        parts.push(part.to_string());
        Self(parts)
    }
}

impl std::str::FromStr for Pointer {
    type Err = InvalidPointer;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let invalid = || InvalidPointer(text.to_owned());
        let parts = text.strip_prefix('/').ok_or_else(invalid)?.split('/');
        parts.map(|part| unescape(part).ok_or_else(invalid)).collect::<Result<_, _>>().map(Self)
    }
}

/// `None` where a `~` stands alone: RFC 6901 gives that no meaning.
fn unescape(part: &str) -> Option<String> {
    let mut pieces = part.split('~');
    let mut whole = pieces.next()?.to_owned();
    for piece in pieces {
        let (escaped, rest) = match piece.as_bytes().first()? {
            b'0' => ('~', piece.get(1..)?),
            b'1' => ('/', piece.get(1..)?),
            _ => return None,
        };
        whole.push(escaped);
        whole.push_str(rest);
    }
    Some(whole)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, "/{}", part.replace('~', "~0").replace('/', "~1")))
    }
}

/// What a policy may change: a place and everything below it. `*` stands for exactly one part: `/containers/*/image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGrant(Pointer);

impl PathGrant {
    /// Whether a change at `pointer` stays within the grant. A place above the grant does not: `add` or `remove` there would
    /// change more than was granted.
    #[must_use]
    pub fn covers(&self, pointer: &Pointer) -> bool {
        let (granted, asked) = (self.0.parts(), pointer.parts());
        granted.len() <= asked.len() && granted.iter().zip(asked).all(|(granted, asked)| granted == "*" || granted == asked)
    }
}

impl std::str::FromStr for PathGrant {
    type Err = InvalidPointer;
    /// The whole document is never granted: an administrator says what may change.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pointer: Pointer = text.parse()?;
        let is_vague = pointer.parts().is_empty() || pointer.parts().iter().any(String::is_empty);
        if is_vague { Err(InvalidPointer(text.to_owned())) } else { Ok(Self(pointer)) }
    }
}

impl fmt::Display for PathGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_writes_what_it_read() {
        for text in ["", "/a", "/a/0/b", "/a~1b/m~0n", "/~01", "/", "/-"] {
            assert_eq!(text.parse::<Pointer>().unwrap().to_string(), text);
        }
        assert_eq!("/~01".parse::<Pointer>().unwrap().parts(), ["~1"]);
        for text in ["a", "#/a", "/a~", "/a~2b"] {
            assert!(text.parse::<Pointer>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_grant_covers_its_subtree_and_nothing_else() {
        let grant: PathGrant = "/containers/*/image".parse().unwrap();
        for (pointer, covered) in [
            ("/containers/0/image", true),
            ("/containers/0/image/x", true),
            ("/containers/-/image", true),
            ("/containers/0", false),
            ("/containers", false),
            ("", false),
            ("/containers/0/images", false),
            ("/containers/0/env/image", false),
            ("/containers/0~1image", false),
        ] {
            assert_eq!(grant.covers(&pointer.parse().unwrap()), covered, "{pointer}");
        }
        for text in ["", "/", "/a//b", "containers"] {
            assert!(text.parse::<PathGrant>().is_err(), "{text}");
        }
    }
}
