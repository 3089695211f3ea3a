//! RFC 6901 pointers, and the grants that list the paths which a policy may change.

use std::fmt;

/// A path in a JSON document, part by part. The empty pointer is the whole document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pointer(Vec<String>);

/// The text is not a JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a JSON pointer: every part must begin with `/`; write `~0` for `~` and `~1` for `/`")]
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

    /// Whether both pointers are equal, or one of them is inside the other.
    #[must_use]
    pub fn touches(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// The path of a child.
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

/// `None` if a `~` is not followed by `0` or `1`: RFC 6901 does not define that.
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

/// A path that a policy may change, with everything below it. `*` matches exactly one part: `/containers/*/image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGrant(Pointer);

impl PathGrant {
    /// Whether the grant covers a change at `pointer`. It does not cover a path above the grant, where `add` or `remove` would
    /// change more than was granted.
    #[must_use]
    pub fn covers(&self, pointer: &Pointer) -> bool {
        let (granted, changed) = (self.0.parts(), pointer.parts());
        granted.len() <= changed.len()
            && granted.iter().zip(changed).all(|(granted, changed)| granted == "*" || granted == changed)
    }
}

impl std::str::FromStr for PathGrant {
    type Err = InvalidPointer;
    /// Refuses a grant of the whole document: an administrator must name the paths that may change.
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
    fn parsing_and_formatting_a_pointer_round_trips() {
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
