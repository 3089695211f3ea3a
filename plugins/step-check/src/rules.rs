//! What to check: the step's `with:`.

use regex_lite::Regex;
use serde::Deserialize;

use crate::units;

/// The rules, ready to be applied.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) forbid: Vec<String>,
    pub(crate) require: Vec<String>,
    pub(crate) max_file_size: Option<u64>,
    pub(crate) commit_message: Option<Regex>,
    pub(crate) commit_message_help: Option<String>,
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
}

impl Rules {
    /// The error is a place in `with` and what is wrong there.
    pub(crate) fn read(json: &str) -> Result<Self, (String, String)> {
        let params: Params = serde_json::from_str(json).map_err(|error| (String::new(), error.to_string()))?;
        let max_file_size = params.max_file_size.map(|size| {
            let problem = || ("/max_file_size".to_owned(), format!("{size:?} is no size: expected {}", units::SIZE_EXPECTED));
            units::parse_size(&size).ok_or_else(problem)
        });
        let commit_message = params.commit_message.map(|pattern| {
            let problem = |error| ("/commit_message".to_owned(), format!("{pattern:?} is no regular expression: {error}"));
            Regex::new(&pattern).map_err(problem)
        });
        Ok(Self {
            forbid: params.forbid,
            require: params.require,
            max_file_size: max_file_size.transpose()?,
            commit_message: commit_message.transpose()?,
            commit_message_help: params.commit_message_help,
        })
    }

    /// For people, before the step runs.
    pub(crate) fn summary(&self) -> String {
        let mut parts = Vec::new();
        if !self.forbid.is_empty() {
            parts.push(format!("no {}", self.forbid.join(", ")));
        }
        if !self.require.is_empty() {
            parts.push(format!("there must be {}", self.require.join(", ")));
        }
        if let Some(most) = self.max_file_size {
            parts.push(format!("no file above {}", units::format_size(most)));
        }
        if let Some(pattern) = &self.commit_message {
            parts.push(format!("messages of commits match {pattern}"));
        }
        format!("Checks the commit: {}", parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_applied_is_said_with_its_place() {
        for (json, pointer) in [
            (r#"{"max_file_size": "5 apples"}"#, "/max_file_size"),
            (r#"{"commit_message": "("}"#, "/commit_message"),
            (r#"{"x": 1}"#, ""),
        ] {
            assert_eq!(Rules::read(json).unwrap_err().0, pointer);
        }
    }

    #[test]
    fn the_summary_is_a_sentence() {
        let rules = Rules::read(r#"{"forbid": [".env", "*.pem"], "max_file_size": "5MiB", "commit_message": "^fix"}"#).unwrap();
        assert_eq!(rules.summary(), "Checks the commit: no .env, *.pem; no file above 5MiB; messages of commits match ^fix");
    }
}
