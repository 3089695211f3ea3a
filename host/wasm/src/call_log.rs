//! The log lines of one call, limited in number and size.

use crate::error::OverBudget;

/// A plugin that exceeds its limit by this factor is considered broken, and its call ends.
const FLOOD_FACTOR: usize = 16;

/// One line of a plugin's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub level: LogLevel,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// The level of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// The log of one call.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    lines: Vec<LogLine>,
    max_lines: usize,
    max_bytes: usize,
    seen_lines: usize,
    seen_bytes: usize,
}

impl CallLog {
    pub(crate) fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self { max_lines, max_bytes, ..Self::default() }
    }

    /// The last line of level error: the message of a plugin before it aborts.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.lines.iter().rev().find(|line| line.level == LogLevel::Error).map(|line| line.message.as_str())
    }

    /// The number of lines that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        u64::try_from(self.seen_lines.saturating_sub(self.lines.len())).unwrap_or(u64::MAX)
    }

    pub(crate) fn into_lines(self) -> Vec<LogLine> {
        self.lines
    }

    /// Keeps the line if the limits allow it.
    pub(crate) fn add(&mut self, bytes: usize, line: impl FnOnce() -> LogLine) -> Result<(), OverBudget> {
        self.seen_lines = self.seen_lines.saturating_add(1);
        self.seen_bytes = self.seen_bytes.saturating_add(bytes);
        if self.seen_lines > self.max_lines.saturating_mul(FLOOD_FACTOR)
            || self.seen_bytes > self.max_bytes.saturating_mul(FLOOD_FACTOR)
        {
            return Err(OverBudget::Log);
        }
        if self.seen_lines <= self.max_lines && self.seen_bytes <= self.max_bytes {
            self.lines.push(line());
        }
        Ok(())
    }
}
