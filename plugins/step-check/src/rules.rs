//! The rules, read from the step's `with:` block.

use regex_lite::Regex;
use serde::Deserialize;

use crate::units;

/// The parsed rules.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) forbid: Vec<String>,
    pub(crate) require: Vec<String>,
    pub(crate) max_file_size: Option<u64>,
    pub(crate) commit_message: Option<Regex>,
    pub(crate) commit_message_help: Option<String>,
    pub(crate) unchecked_commits: UncheckedCommits,
}

/// The result when a push has more commits than the event lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UncheckedCommits {
    #[default]
    Fail,
    Allow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    forbid: Vec<String>,
    #[serde(default)]
    require: Vec<String>,
    max_file_size: Option<String>,
    commit_message: Option<String>,
    commit_message_help: Option<String>,
    #[serde(default)]
    unchecked_commits: UncheckedCommits,
}

impl Rules {
    /// Parses the `with:` block. The error is a JSON pointer into it and a message.
    pub(crate) fn read(json: &str) -> Result<Self, (String, String)> {
        let params: Params = serde_json::from_str(json).map_err(|error| (String::new(), error.to_string()))?;
        let max_file_size = params.max_file_size.map(|size| {
            let problem = || ("/max_file_size".to_owned(), format!("{size:?} is not a size: expected {}", units::SIZE_EXPECTED));
            units::parse_size(&size).ok_or_else(problem)
        });
        let commit_message = params.commit_message.map(|pattern| {
            let problem =
                |error| ("/commit_message".to_owned(), format!("{pattern:?} is not a valid regular expression: {error}"));
            Regex::new(&pattern).map_err(problem)
        });
        Ok(Self {
            forbid: params.forbid,
            require: params.require,
            max_file_size: max_file_size.transpose()?,
            commit_message: commit_message.transpose()?,
            commit_message_help: params.commit_message_help,
            unchecked_commits: params.unchecked_commits,
        })
    }

    /// The summary of the plan, shown before the step runs.
    pub(crate) fn summary(&self) -> String {
        let mut parts = Vec::new();
        if !self.forbid.is_empty() {
            parts.push(format!("forbidden files {}", quoted(&self.forbid)));
        }
        if !self.require.is_empty() {
            parts.push(format!("required files {}", quoted(&self.require)));
        }
        if let Some(limit) = self.max_file_size {
            parts.push(format!("maximum file size {}", units::format_size(limit)));
        }
        if let Some(pattern) = &self.commit_message {
            parts.push(format!("commit messages match `{pattern}`"));
        }
        format!("Checks the commit: {}", parts.join("; "))
    }
}

/// Patterns in backticks, so that their characters do not mix with the sentence.
fn quoted(patterns: &[String]) -> String {
    patterns.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_rule_is_reported_with_its_pointer() {
        for (json, pointer) in [
            (r#"{"max_file_size": "5 apples"}"#, "/max_file_size"),
            (r#"{"commit_message": "("}"#, "/commit_message"),
            (r#"{"x": 1}"#, ""),
        ] {
            assert_eq!(Rules::read(json).unwrap_err().0, pointer);
        }
    }

    #[test]
    fn the_summary_lists_the_rules() {
        let rules = Rules::read(r#"{"forbid": [".env", "*.pem"], "max_file_size": "5MiB", "commit_message": "^fix"}"#).unwrap();
        assert_eq!(
            rules.summary(),
            "Checks the commit: forbidden files `.env`, `*.pem`; maximum file size 5MiB; commit messages match `^fix`"
        );
    }
}
