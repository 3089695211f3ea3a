//! Where each part of the normal form was written, so that what someone says about a part can be shown at its line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Span;

/// Places by RFC 6901 pointer into the normal form: `/steps/0/action/image`.
///
/// Not every pointer is in it: very deep parts of a `with:` block are found under the nearest part around them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spans(BTreeMap<String, Span>);

impl Spans {
    /// The place of the part that `pointer` names, or of the nearest part around it.
    #[must_use]
    pub fn find(&self, pointer: &str) -> Option<Span> {
        let mut pointer = pointer;
        loop {
            if let Some(span) = self.0.get(pointer) {
                return Some(*span);
            }
            pointer = pointer.rsplit_once('/')?.0;
        }
    }

    /// All places, in the order of their pointers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Span)> {
        self.0.iter().map(|(pointer, span)| (pointer.as_str(), *span))
    }
}

/// A place in the normal form while it is being made. Why an option? A pointer is as long as the keys on its way; past
/// [`Place::MAX`] a hostile file could make the map many times its own size.
#[derive(Debug, Clone)]
pub(super) struct Place(Option<String>);

impl Place {
    /// Bytes of the longest pointer that is kept.
    const MAX: usize = 256;

    /// The whole document.
    pub(super) fn root() -> Self {
        Self(Some(String::new()))
    }

    /// The part named `key` (a map's key or a list's index) inside this one.
    pub(super) fn child(&self, key: impl std::fmt::Display) -> Self {
        let escaped = |pointer: &String| format!("{pointer}/{}", key.to_string().replace('~', "~0").replace('/', "~1"));
        Self(self.0.as_ref().map(escaped).filter(|pointer| pointer.len() <= Self::MAX))
    }

    /// Notes that this part was written at `span`.
    pub(super) fn note(&self, spans: &mut Spans, span: Span) {
        if let Some(pointer) = &self.0 {
            spans.0.insert(pointer.clone(), span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(line: u32) -> Span {
        Span { line, column: 1, end_line: line, end_column: 2 }
    }

    #[test]
    fn a_pointer_finds_its_own_place_or_the_nearest_around_it() {
        let mut spans = Spans::default();
        Place::root().child("steps").child(0).note(&mut spans, at(3));
        Place::root().child("env").child("a/b~c").note(&mut spans, at(7));
        assert_eq!(spans.find("/steps/0/action/image"), Some(at(3)));
        assert_eq!(spans.find("/env/a~1b~0c/text"), Some(at(7)));
        assert_eq!(spans.find("/steps/1"), None);
        Place::root().note(&mut spans, at(1));
        assert_eq!(spans.find("/steps/1"), Some(at(1)));
    }

    #[test]
    fn long_pointers_are_left_out() {
        let mut spans = Spans::default();
        let mut place = Place::root();
        for _ in 0..40 {
            place = place.child("a-key-of-some-length");
            place.note(&mut spans, at(1));
        }
        assert!(spans.iter().all(|(pointer, _)| pointer.len() <= Place::MAX));
        assert!(spans.iter().count() < 20);
    }
}
