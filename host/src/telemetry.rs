//! What the server says of itself: its log, as text or JSON, and its figures for Prometheus.

mod webhook;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use beespace_core::event::EventKind;
use beespace_core::status::Status;
use beespace_wasm::CallSlots;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

pub use webhook::WebhookMetrics;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Sends the server's log to stderr. `filter` as in `info,beespace=debug`.
pub fn start(format: LogFormat, filter: &str) {
    // A journal or a file keeps no colours.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder =
        tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(std::io::stderr).with_ansi(colours);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::warn!(%error, "the log has been started already");
    }
}

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The figures. Clones share them. Values of labels are words of ours, never text of strangers, so that there are few.
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
    plugin_slots: Family<Labels<1>, Gauge>,
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
        registry.register("build", "What runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("builds", "Builds that ended", metrics.builds.clone());
        let seconds = Unit::Seconds;
        registry.register_with_unit("build_duration", "From start to end of a build", seconds, metrics.build_seconds.clone());
        registry.register_with_unit("step_duration", "From start to end of a step", Unit::Seconds, metrics.step_seconds.clone());
        metrics.deliveries.register(&mut registry);
        registry.register("policy_evaluations", "Policies asked", metrics.evaluations.clone());
        let evaluation = metrics.evaluation_seconds.clone();
        registry.register_with_unit("policy_evaluation", "Time a policy took", Unit::Seconds, evaluation);
        registry.register("notices", "Notices by what came of them", metrics.notices.clone());
        registry.register_with_unit("log", "Text of steps kept", Unit::Bytes, metrics.log_bytes.clone());
        registry.register("queue_length", "Rows that wait for a worker or are in its hands", metrics.queue.clone());
        registry.register("queue_in_hand", "Rows that a worker is working on", metrics.in_progress.clone());
        registry.register("store_rows_read", "Rows of the store that were looked at", metrics.rows_read.clone());
        registry.register("plugin_places", "Places for calls of plugins", metrics.plugin_slots.clone());
        Self { registry: Arc::new(registry), ..metrics }
    }
}

impl Metrics {
    /// A build ended.
    pub fn build_ended(&self, event: EventKind, status: Status, took: Duration) {
        self.builds.get_or_create(&[("event", event.as_str()), ("result", status.as_str())]).inc();
        self.build_seconds.observe(took.as_secs_f64());
    }

    /// A step ended that had begun.
    pub fn step_ended(&self, took: Duration) {
        self.step_seconds.observe(took.as_secs_f64());
    }

    /// A policy was asked: mode and outcome, as in the decision.
    pub fn evaluated(&self, mode: &'static str, verdict: &'static str, took: Duration) {
        self.evaluations.get_or_create(&[("mode", mode), ("verdict", verdict)]).inc();
        self.evaluation_seconds.observe(took.as_secs_f64());
    }

    /// An attempt at a notice: `sent`, `retry`, `dead`, `suspended`.
    pub fn notice(&self, result: &'static str) {
        self.notices.get_or_create(&[("result", result)]).inc();
    }

    /// Output of a step came in.
    pub fn add_log_bytes(&self, bytes: u64) {
        self.log_bytes.inc_by(bytes);
    }

    /// So many rows are in a queue.
    pub fn set_queue_length(&self, queue: &'static str, count: u64) {
        set(&self.queue, [("queue", queue)], count);
    }

    /// So many rows of the store have been read so far.
    pub fn set_rows_read(&self, count: u64) {
        self.rows_read.inner().store(count, Ordering::Relaxed);
    }

    /// So many rows of a queue are worked on.
    pub fn set_in_progress(&self, queue: &'static str, count: usize) {
        set(&self.in_progress, [("queue", queue)], count);
    }

    /// So busy are the plugins.
    pub fn set_plugin_slots(&self, places: CallSlots) {
        set(&self.plugin_slots, [("state", "taken")], places.taken);
        set(&self.plugin_slots, [("state", "free")], places.total.saturating_sub(places.taken));
    }

    /// All figures, as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the figures cannot be written");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# EOF");
        }
        text
    }
}

fn set(family: &Family<Labels<1>, Gauge>, labels: Labels<1>, count: impl TryInto<i64>) {
    family.get_or_create(&labels).set(count.try_into().unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_names_of_the_field() {
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
