//! A reason: the explanation that stands beside a status.

use serde::{Deserialize, Serialize};

use crate::reason_code::ReasonCode;

/// An explanation for people: the fact, its causes and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A [`ReasonCode`], or the rule id of a policy's finding.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// The remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The causes, part by part (for example each failed condition of a `when`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Reason>,
}

impl Reason {
    /// A reason without help and parts.
    #[must_use]
    pub fn new(code: ReasonCode, message: impl Into<String>) -> Self {
        Self::from_rule(code.as_str(), message)
    }

    /// A reason whose code is the rule id of a policy's finding.
    #[must_use]
    pub fn from_rule(rule_id: &str, message: impl Into<String>) -> Self {
        Self { code: rule_id.to_owned(), message: message.into(), help: None, parts: Vec::new() }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn part(mut self, part: Self) -> Self {
        self.parts.push(part);
        self
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        for (index, part) in self.parts.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { "; " })?;
            write!(f, "{part}")?;
        }
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}
