//! What plugins say of themselves, on its way to the server's log.

use beespace_wasm::{CallReport, LogLevel, LogLine, Plugin};

/// Writes what a plugin logged in one call under the name of its binding and the call's invocation id, which the decision, the
/// notice or the plugin's own context names as well.
pub fn forward_log(plugin: &Plugin, invocation: &str, report: &CallReport) {
    for line in &report.log {
        forward_line(plugin, invocation, line);
    }
    if report.log_dropped > 0 {
        let (kind, binding, lines) = (plugin.kind, plugin.binding.as_str(), report.log_dropped);
        tracing::warn!(%kind, binding, invocation, lines, "the plugin said more than is kept");
    }
}

fn forward_line(plugin: &Plugin, invocation: &str, line: &LogLine) {
    let (kind, binding, said) = (plugin.kind, plugin.binding.as_str(), line.message.as_str());
    let pairs: Vec<String> = line.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields = pairs.join(" ");
    // The level of an event is a constant to `tracing`.
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(tracing::Level::$level, %kind, binding, invocation, fields, "{said}")
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
