//! Parser for `entrypoint`, `args` and `workdir`: the program of a container, and the directory in which it runs.

use super::decode::Reader;
use super::diagnostics::quote;
use super::spans::YamlPath;
use super::substitution::sample;
use super::yaml::{MapEntry, Value};

/// Longest `workdir`, in bytes. Together with the path of the workspace it stays below Linux' limit for paths (`PATH_MAX`, 4096).
const MAX_WORKDIR: usize = 4_000;

/// Longest list that is proposed for a text, in bytes.
const MAX_PROPOSAL: usize = 80;

impl Reader {
    /// The words of `entrypoint` or `args`. A text is one word; a text with blanks is refused, because its author means several.
    pub(super) fn words(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<Vec<String>> {
        let (key, node) = (&entry.key, &entry.value);
        match &node.value {
            Value::List(items) if items.is_empty() => Some(Vec::new()),
            Value::Scalar(scalar) if !scalar.text.trim().is_empty() && sample(&scalar.text).contains(char::is_whitespace) => {
                let message =
                    format!("the text of `{key}` has several words, but would be passed as one: {}", quote(&scalar.text));
                let help = format!("write a list with one entry per word: `{key}: {}`", proposal(&scalar.text));
                self.diagnostics.add_with_help("bad-value", node.span, message, help);
                None
            }
            _ => self.text_list(node, &format!("`{key}` to be a list of words"), &path.child(key)),
        }
    }

    /// `workdir`: a path relative to the workspace, or an absolute one in the container.
    pub(super) fn workdir(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<String> {
        let span = entry.value.span;
        path.child("workdir").record(&mut self.spans, span);
        let directory = self.text(&entry.value, "`workdir` to be a directory, relative to the workspace or absolute")?;
        let Some(problem) = workdir_problem(&directory) else { return Some(directory) };
        let help = "write a path relative to the workspace, such as `web/app`, or an absolute one, such as `/tmp`";
        self.diagnostics.add_with_help("bad-value", span, format!("the `workdir` {} {problem}", quote(&directory)), help);
        None
    }
}

/// Why a text is not a `workdir`, as the end of a sentence.
pub(super) fn workdir_problem(directory: &str) -> Option<String> {
    if directory.split('/').any(|part| part == "..") {
        Some("contains `..`".to_owned())
    } else if directory.chars().any(char::is_control) {
        Some("contains control characters".to_owned())
    } else if directory.len() > MAX_WORKDIR {
        Some(format!("is longer than {MAX_WORKDIR} bytes"))
    } else {
        None
    }
}

/// The list that the author of `text` probably means. Text with quotes or other characters that a shell interprets is not split.
fn proposal(text: &str) -> String {
    let is_plain = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphanumeric() || matches!(first, '/' | '.' | '-'))
            && word.chars().any(|c| c.is_ascii_alphanumeric())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '=' | '+' | '@' | '%'))
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    if text.len() <= MAX_PROPOSAL && words.iter().all(|word| is_plain(word)) {
        return format!("[{}]", words.join(", "));
    }
    "[\"FIRST\", \"SECOND\"]".to_owned()
}
