//! The server's log, as text or JSON, and its metrics for Prometheus.

mod webhook_metrics;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use beespace_core::event::EventKind;
use beespace_core::status::Status;
use beespace_wasm::{CallSlots, LOG_FILTER};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

pub use webhook_metrics::{HookResponse, WebhookMetrics};

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// Sends the server's log to stderr. `filter` as in `info,beespace=debug`.
pub fn start(format: LogFormat, filter: &str) {
    // Only a terminal shows colours; in a journal or a file they would be noise.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("{LOG_FILTER},{filter}")))
        .with_writer(std::io::stderr)
        .with_ansi(colours);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::warn!(%error, "the log is already started");
    }
}

/// Checks a log filter.
///
/// # Errors
/// What is accepted.
pub fn check_filter(text: &str) -> Result<String, String> {
    let checked = EnvFilter::try_new(text).map(|_| text.to_owned());
    checked.map_err(|error| format!("{error}; expected levels, also of parts of the server: `info`, or `warn,beespace=debug`"))
}

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The metrics. Clones share them. Label values are our own words and never untrusted text, so that there are few.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    builds: Family<Labels<2>, Counter>,
    build_seconds: Histogram,
    step_seconds: Histogram,
    /// Responses to webhook deliveries.
    pub deliveries: WebhookMetrics,
    evaluations: Family<Labels<2>, Counter>,
    evaluation_seconds: Histogram,
    notices: Family<Labels<1>, Counter>,
    log_bytes: Counter,
    queue: Family<Labels<1>, Gauge>,
    in_progress: Family<Labels<1>, Gauge>,
    plugin_slots: Family<Labels<2>, Gauge>,
    rows_read: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("beespace");
        let long = || Histogram::new(exponential_buckets(0.25, 2.0, 15));
        let short = || Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        let metrics = Self {
            registry: Arc::default(),
            builds: Family::default(),
            build_seconds: long(),
            step_seconds: long(),
            deliveries: WebhookMetrics::default(),
            evaluations: Family::default(),
            evaluation_seconds: short(),
            notices: Family::default(),
            log_bytes: Counter::default(),
            queue: Family::default(),
            in_progress: Family::default(),
            plugin_slots: Family::default(),
            rows_read: Counter::default(),
        };
        registry.register("build", "Version of the running server", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("builds", "Builds that ended", metrics.builds.clone());
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "build_duration",
            "Time from start to end of a build",
            seconds,
            metrics.build_seconds.clone(),
        );
        let seconds = Unit::Seconds;
        registry.register_with_unit("step_duration", "Time from start to end of a step", seconds, metrics.step_seconds.clone());
        metrics.deliveries.register(&mut registry);
        registry.register("policy_evaluations", "Policy evaluations", metrics.evaluations.clone());
        let evaluation = metrics.evaluation_seconds.clone();
        registry.register_with_unit("policy_evaluation", "Duration of a policy evaluation", Unit::Seconds, evaluation);
        registry.register("notices", "Notices by result", metrics.notices.clone());
        registry.register_with_unit("log", "Output of steps written to logs", Unit::Bytes, metrics.log_bytes.clone());
        registry.register("queue_length", "Rows in a queue, waiting or in progress", metrics.queue.clone());
        registry.register("queue_in_progress", "Rows of a queue that are in progress", metrics.in_progress.clone());
        registry.register("store_rows_read", "Rows of the store that were read", metrics.rows_read.clone());
        registry.register(
            "plugin_call_slots",
            "Slots for calls of each kind of plugin, used and free",
            metrics.plugin_slots.clone(),
        );
        Self { registry: Arc::new(registry), ..metrics }
    }
}

impl Metrics {
    /// A build ended.
    pub fn build_ended(&self, event: EventKind, status: Status, duration: Duration) {
        self.builds.get_or_create(&[("event", event.as_str()), ("result", status.as_str())]).inc();
        self.build_seconds.observe(duration.as_secs_f64());
    }

    /// A step that had started ended.
    pub fn step_ended(&self, duration: Duration) {
        self.step_seconds.observe(duration.as_secs_f64());
    }

    /// A policy was evaluated; mode and outcome as in the decision.
    pub fn evaluated(&self, mode: &'static str, verdict: &'static str, duration: Duration) {
        self.evaluations.get_or_create(&[("mode", mode), ("verdict", verdict)]).inc();
        self.evaluation_seconds.observe(duration.as_secs_f64());
    }

    /// A notice reached this state: see [`beespace_core::notice::NoticeState`].
    pub fn notice(&self, result: &'static str) {
        self.notices.get_or_create(&[("result", result)]).inc();
    }

    /// Output of a step arrived.
    pub fn add_log_bytes(&self, bytes: u64) {
        self.log_bytes.inc_by(bytes);
    }

    /// The number of rows in a queue.
    pub fn set_queue_length(&self, queue: &'static str, count: u64) {
        set(&self.queue, [("queue", queue)], count);
    }

    /// The number of rows of the store that have been read so far.
    pub fn set_rows_read(&self, count: u64) {
        self.rows_read.inner().store(count, Ordering::Relaxed);
    }

    /// The number of rows of a queue that are in progress.
    pub fn set_in_progress(&self, queue: &'static str, count: usize) {
        set(&self.in_progress, [("queue", queue)], count);
    }

    /// The calls of one kind of plugin.
    pub fn set_plugin_slots(&self, kind: &'static str, slots: CallSlots) {
        set(&self.plugin_slots, [("kind", kind), ("state", "used")], slots.used);
        set(&self.plugin_slots, [("kind", kind), ("state", "free")], slots.total.saturating_sub(slots.used));
    }

    /// All metrics, as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "could not encode the metrics");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# EOF");
        }
        text
    }
}

fn set<const N: usize>(family: &Family<Labels<N>, Gauge>, labels: Labels<N>, count: impl TryInto<i64>) {
    family.get_or_create(&labels).set(count.try_into().unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_conventional_names() {
        let metrics = Metrics::default();
        metrics.build_ended(EventKind::Push, Status::Success, Duration::from_secs(3));
        metrics.evaluated("enforce", "deny", Duration::from_micros(80));
        metrics.add_log_bytes(12);
        let text = metrics.text();
        for line in [
            "beespace_build_info{version=",
            "beespace_builds_total{event=\"push\",result=\"success\"} 1",
            "beespace_build_duration_seconds_count 1",
            "beespace_policy_evaluations_total{mode=\"enforce\",verdict=\"deny\"} 1",
            "beespace_log_bytes_total 12",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
