//! Forwards the log lines of plugins to the server's log.

use beespace_wasm::{CallReport, LogLevel, LogLine, Plugin};

/// Writes the log of one call with the name of the binding and the invocation id. The decision, the notice and the plugin's
/// context contain the same id.
pub fn forward_log(plugin: &Plugin, invocation: &str, report: &CallReport) {
    for line in &report.log {
        forward_line(plugin, invocation, line);
    }
    if report.log_dropped > 0 {
        let (kind, binding, lines) = (plugin.kind, plugin.binding.as_str(), report.log_dropped);
        tracing::warn!(%kind, binding, invocation, lines, "the plugin exceeded its log limit; lines were dropped");
    }
}

fn forward_line(plugin: &Plugin, invocation: &str, line: &LogLine) {
    let (kind, binding, message) = (plugin.kind, plugin.binding.as_str(), line.message.as_str());
    let pairs: Vec<String> = line.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields = pairs.join(" ");
    // `tracing` requires a constant level, so each level needs its own invocation.
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(tracing::Level::$level, %kind, binding, invocation, fields, "{message}")
        };
    }
    match line.level {
        LogLevel::Trace => event!(TRACE),
        LogLevel::Debug => event!(DEBUG),
        LogLevel::Info => event!(INFO),
        LogLevel::Warn => event!(WARN),
        LogLevel::Error => event!(ERROR),
    }
}
