//! The locations of the parts of the normal form in the file, so that a finding about a part can be shown at its line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Span;
use crate::ids::StepNumber;

/// Where a pipeline comes from: a document of one of the pipeline files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// Index of the file among the pipeline files of the build, in the order of their paths.
    pub file: u16,
    /// Index of the document in the file; documents without content are not counted.
    pub document: u16,
}

/// Locations by RFC 6901 pointer into the normal form: `/steps/0/action/image`.
///
/// Very deep parts of a `with:` block have no entry of their own; they are found at the nearest enclosing part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spans(BTreeMap<String, Span>);

impl Spans {
    /// The location of the part at `pointer`, or of the nearest enclosing part.
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

    /// The location of the source of a part of a step's plan. `pointer` points into the document that `step.admit` evaluates
    /// ([`crate::plan::SCHEMA`]). A part that is not in the file is located at the step, or at its `uses`.
    #[must_use]
    pub fn find_in_plan(&self, step: StepNumber, pointer: &str) -> Option<Span> {
        let own = format!("/steps/{}", step.0.checked_sub(1)?);
        // The part follows `containers` and an index.
        let mut parts = pointer.trim_start_matches('/').splitn(4, '/').skip(2);
        let (part, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match part {
            "image" | "entrypoint" | "args" | "workdir" | "shell" | "user" | "network" | "privileged" | "devices" | "tmpfs" => {
                self.find(&format!("{own}/action/{part}/{name}"))
            }
            "script" => self.find(&format!("{own}/action/run")),
            "env" => {
                let exact = [format!("{own}/env/{name}"), format!("/env/{name}")];
                exact.iter().find_map(|pointer| self.0.get(pointer).copied()).or_else(|| self.find(&own))
            }
            "secrets" => self.find(&format!("{own}/env")),
            "limits" if name == "timeout_seconds" => self.find(&format!("{own}/timeout")),
            "limits" => self.0.get(&format!("{own}/action/limits/{name}")).copied().or_else(|| self.find(&own)),
            _ => self.find(&own),
        }
    }

    /// All locations, in the order of their pointers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Span)> {
        self.0.iter().map(|(pointer, span)| (pointer.as_str(), *span))
    }
}

/// The path of a part of the normal form during parsing, as an RFC 6901 pointer. It is `None` beyond [`YamlPath::MAX`] bytes:
/// otherwise a hostile file with long keys could make the map many times larger than the file.
#[derive(Debug, Clone)]
pub(super) struct YamlPath(Option<String>);

impl YamlPath {
    /// Length in bytes of the longest pointer that is kept.
    const MAX: usize = 256;

    /// The whole document.
    pub(super) fn root() -> Self {
        Self(Some(String::new()))
    }

    /// The part `key` (a key of a map or an index of a list) inside this one.
    pub(super) fn child(&self, key: impl std::fmt::Display) -> Self {
        let escaped = |pointer: &String| format!("{pointer}/{}", key.to_string().replace('~', "~0").replace('/', "~1"));
        Self(self.0.as_ref().map(escaped).filter(|pointer| pointer.len() <= Self::MAX))
    }

    /// Records that this part is located at `span`.
    pub(super) fn record(&self, spans: &mut Spans, span: Span) {
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
    fn a_pointer_finds_its_own_location_or_the_nearest_enclosing_one() {
        let mut spans = Spans::default();
        YamlPath::root().child("steps").child(0).record(&mut spans, at(3));
        YamlPath::root().child("env").child("a/b~c").record(&mut spans, at(7));
        assert_eq!(spans.find("/steps/0/action/image"), Some(at(3)));
        assert_eq!(spans.find("/env/a~1b~0c/text"), Some(at(7)));
        assert_eq!(spans.find("/steps/1"), None);
        YamlPath::root().record(&mut spans, at(1));
        assert_eq!(spans.find("/steps/1"), Some(at(1)));
    }

    #[test]
    fn a_part_of_a_plan_is_found_at_its_source_in_the_file() {
        let text = "env: {ALL: x}\nsteps:\n  - name: a\n    image: x\n    run: y\n    env: {OWN: z}\n    privileged: true\n\
                    \x20 - name: b\n    uses: c\n";
        let spans = crate::pipeline::read("f", text.as_bytes()).unwrap().spans;
        let line = |step, pointer| spans.find_in_plan(StepNumber(step), pointer).map(|span| span.line);
        assert_eq!(line(1, "/containers/0/image"), Some(4));
        assert_eq!(line(1, "/containers/0/script"), Some(5));
        assert_eq!(line(1, "/containers/0/env/OWN"), Some(6));
        assert_eq!(line(1, "/containers/0/env/ALL"), Some(1));
        assert_eq!(line(1, "/containers/0/limits/memory_bytes"), Some(3));
        assert_eq!(line(1, "/containers"), Some(3));
        assert_eq!(line(1, "/containers/0/privileged"), Some(7));
        assert_eq!(line(2, "/containers/3/image"), Some(9));
        assert_eq!(line(0, "/containers/0/image"), None);
    }

    #[test]
    fn long_pointers_are_left_out() {
        let mut spans = Spans::default();
        let mut path = YamlPath::root();
        for _ in 0..40 {
            path = path.child("a-key-of-some-length");
            path.record(&mut spans, at(1));
        }
        assert!(spans.iter().all(|(pointer, _)| pointer.len() <= YamlPath::MAX));
        assert!(spans.iter().count() < 20);
    }
}
