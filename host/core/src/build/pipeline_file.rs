//! The pipeline files as a build keeps them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::Spans;
use crate::schedule::Schedule;

/// The exact text that was read, and every problem found in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineFile {
    /// Path in the repository.
    pub path: String,
    pub text: String,
    pub diagnostics: Vec<Diagnostic>,
    /// For each document of the file: the location of each part of its normal form, so that a finding about a part can be shown
    /// at its line. Empty if a file of the build has problems.
    #[serde(default, alias = "spans", deserialize_with = "one_or_several")]
    pub documents: Vec<Spans>,
    /// The schedules of its pipelines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
}

impl PipelineFile {
    /// The location of the part at `pointer` in the normal form of a document, or of the nearest enclosing part.
    #[must_use]
    pub fn find(&self, document: u16, pointer: &str) -> Option<Span> {
        self.documents.get(usize::from(document))?.find(pointer)
    }
}

/// Reads a list, or the single element or nothing in its place that builds had when a repository had one pipeline.
pub(super) fn one_or_several<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(OneOrSeveral(PhantomData))
}

struct OneOrSeveral<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrSeveral<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list, a map or nothing")
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_none<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = sequence.next_element()? {
            all.push(one);
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        #[serde(default, alias = "file", deserialize_with = "one_or_several")]
        files: Vec<PipelineFile>,
    }

    fn paths(row: Value) -> Vec<String> {
        serde_json::from_value::<Row>(row).unwrap().files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn rows_with_one_file_are_still_read() {
        let span = json!({ "line": 2, "column": 1, "end_line": 2, "end_column": 9 });
        let old = json!({ "path": "a", "text": "", "diagnostics": [], "spans": { "/steps": span } });
        let row: Row = serde_json::from_value(json!({ "file": old })).unwrap();
        assert_eq!(row.files[0].find(0, "/steps/0").map(|span| span.line), Some(2));
        assert_eq!(row.files[0].find(1, "/steps/0"), None);
        assert_eq!(paths(json!({ "file": null })), Vec::<String>::new());
        assert_eq!(paths(json!({})), Vec::<String>::new());
        let new = serde_json::to_value([row.files[0].clone(), row.files[0].clone()]).unwrap();
        assert_eq!(paths(json!({ "files": new })), ["a", "a"]);
    }
}
