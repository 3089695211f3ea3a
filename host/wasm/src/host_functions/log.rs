//! `beespace:plugin/log`: the log of one call, sanitized and limited in size.

use crate::bindings::shared::log;
use crate::call_log::{LogLevel, LogLine};
use crate::sanitize::sanitize;
use crate::state::State;

/// Maximum size of one line in bytes.
const MAX_LINE_BYTES: usize = 4 << 10;

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
