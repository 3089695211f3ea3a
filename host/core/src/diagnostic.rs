//! A problem in a file that a user wrote: its location, what was expected, and what to do.

use serde::{Deserialize, Serialize};

/// A range in a file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    pub line: u32,
    pub column: u32,
    /// Exclusive; on the same line as the start unless the value runs over several.
    pub end_line: u32,
    pub end_column: u32,
}

/// One problem, in the form that the web pages, the CLI and the API share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable, for searching: `unknown-key`.
    pub code: String,
    /// The problem in one sentence, without a full stop.
    pub message: String,
    /// Path in the repository.
    pub file: String,
    /// `None` if the problem concerns the whole file.
    pub span: Option<Span>,
    /// The remedy.
    pub help: Option<String>,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.span {
            Some(span) => write!(f, "{}:{}:{}: {}", self.file, span.line, span.column, self.message)?,
            None => write!(f, "{}: {}", self.file, self.message)?,
        }
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}
