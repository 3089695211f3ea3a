//! `beespace:plugin/log`: a few clean lines, kept for whoever looks at the call.

use crate::bindings::shared::log;
use crate::error::OverBudget;
use crate::sanitize::sanitize;
use crate::state::State;

/// Bytes of one line.
const MAX_LINE_BYTES: usize = 4 << 10;
/// Past this many times its budget a plugin is not talkative but broken.
const FLOOD_FACTOR: usize = 16;

/// One line of a plugin's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub level: LogLevel,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// How loud a line is.
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
pub(crate) struct LogReport {
    lines: Vec<LogLine>,
    max_lines: usize,
    max_bytes: usize,
    seen_lines: usize,
    seen_bytes: usize,
}

impl LogReport {
    pub(crate) fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self { max_lines, max_bytes, ..Self::default() }
    }

    /// Lines that were said and not kept.
    pub(crate) fn dropped(&self) -> u64 {
        u64::try_from(self.seen_lines.saturating_sub(self.lines.len())).unwrap_or(u64::MAX)
    }

    pub(crate) fn into_lines(self) -> Vec<LogLine> {
        self.lines
    }

    /// Keeps the line if the budget allows.
    fn add(&mut self, bytes: usize, line: impl FnOnce() -> LogLine) -> Result<(), OverBudget> {
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

impl log::Host for State {
    async fn emit(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + message.len();
        let egress = &self.egress;
        Ok(self.log.add(bytes, || LogLine {
            level: match level {
                log::Level::Trace => LogLevel::Trace,
                log::Level::Debug => LogLevel::Debug,
                log::Level::Info => LogLevel::Info,
                log::Level::Warn => LogLevel::Warn,
                log::Level::Error => LogLevel::Error,
            },
            message: sanitize(&egress.mask(&message), MAX_LINE_BYTES),
            fields: fields
                .iter()
                .take(32)
                .map(|(name, value)| (sanitize(name, 100), sanitize(&egress.mask(value), MAX_LINE_BYTES)))
                .collect(),
        })?)
    }
}
