//! Patterns of names and paths: what they match, and how a reason lists them.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::Choice;
use super::diagnostics::{join_words, quote};

/// The most patterns of one condition that a reason lists.
const SHOWN_PATTERNS: usize = 10;

/// The expected values of a choice, in words.
pub(super) fn describe_wanted(choice: &Choice<String>) -> String {
    if choice.include.is_empty() { "any".to_owned() } else { join_patterns(&choice.include) }
}

pub(super) fn join_patterns(patterns: &[String]) -> String {
    // Hundreds of steps may repeat a long list, and each stores its reason.
    let mut shown: Vec<String> = patterns.iter().take(SHOWN_PATTERNS).map(|pattern| quote(pattern)).collect();
    if let Some(more) = patterns.len().checked_sub(SHOWN_PATTERNS).filter(|more| *more > 0) {
        shown.push(format!("{more} more patterns"));
    }
    join_words(&shown, "or")
}

/// The first pattern that matches.
pub(super) fn first_match<'p>(patterns: &'p [String], text: &str) -> Option<&'p str> {
    patterns.iter().find(|glob| pattern(glob).is_ok_and(|glob| glob.compile_matcher().is_match(text))).map(String::as_str)
}

/// All patterns of paths as one set; none if they are too complex together. A pattern without wildcards matches a file, or
/// everything in a directory. The reader has refused invalid patterns, so none is dropped here.
pub(super) fn path_set(patterns: &[String]) -> Option<GlobSet> {
    let is_plain = |text: &&String| !text.contains(['*', '?', '[', ']', '{', '}', '\\']);
    let below = patterns.iter().filter(is_plain).filter_map(|directory| pattern(&format!("{directory}/**")).ok());
    let mut set = GlobSetBuilder::new();
    patterns.iter().filter_map(|glob| pattern(glob).ok()).chain(below).for_each(|glob| {
        set.add(glob);
    });
    set.build().ok()
}

/// A glob: `*` and `?` do not match `/`, `**` does.
pub(super) fn pattern(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build()
}
