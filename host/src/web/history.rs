//! The chart of a repository's recent builds: their durations and statuses.

use std::time::Duration;

use beespace_core::build::Build;
use beespace_core::time::Timestamp;

use super::icon::StatusLabel;
use crate::urls::Urls;
use crate::view::{build_title, time};

/// A build that takes longer than this many times the median gets a bar of full height, so that the others stay readable.
const MAX_MEDIANS: u32 = 4;

/// The chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The duration that the full height stands for.
    pub scale: String,
    /// The oldest build first.
    pub bars: Vec<HistoryBar>,
}

/// One build in the chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryBar {
    pub href: String,
    /// Name, status, duration and title.
    pub label: String,
    pub status: StatusLabel,
    /// Top and height of the bar, in percent.
    pub top: u64,
    pub height: u64,
}

impl History {
    /// The chart of builds that are given newest first; `None` without builds.
    #[must_use]
    pub fn new(urls: &Urls, newest: &[Build], now: Timestamp) -> Option<Self> {
        let duration = |build: &Build| build.started_at.map(|start| build.finished_at.unwrap_or(now).since(start));
        let scale = scale(newest.iter().filter_map(duration).collect());
        let bar = |build: &Build| {
            let height = height(duration(build).unwrap_or_default(), scale);
            let took = time::elapsed(build.started_at, build.finished_at, now);
            let took = if took.is_empty() { took } else { format!(", {took}") };
            HistoryBar {
                href: urls.build(build),
                label: format!("{}, {}{took}: {}", build_title::build_name(build), build.status, build_title::build_title(build)),
                status: StatusLabel(build.status),
                top: 100 - height,
                height,
            }
        };
        let bars: Vec<HistoryBar> = newest.iter().rev().map(bar).collect();
        (!bars.is_empty()).then(|| Self { scale: time::format_duration(scale), bars })
    }
}

/// The duration that the full height stands for: the longest one, but at most a multiple of the median.
fn scale(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    let median = durations.get(durations.len() / 2).copied().unwrap_or_default();
    durations.last().copied().unwrap_or_default().min(median * MAX_MEDIANS)
}

/// The height of a bar in percent. The bar of a very short build is still visible.
fn height(duration: Duration, scale: Duration) -> u64 {
    let percent = duration.as_millis() * 100 / scale.as_millis().max(1);
    u64::try_from(percent).unwrap_or(100).clamp(6, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_build_does_not_flatten_the_others() {
        let seconds = |all: &[u64]| all.iter().map(|seconds| Duration::from_secs(*seconds)).collect::<Vec<_>>();
        let with_one_long = scale(seconds(&[10, 12, 9, 3_600, 11]));
        assert_eq!(with_one_long, Duration::from_secs(44));
        assert_eq!([10, 3_600].map(|length| height(Duration::from_secs(length), with_one_long)), [22, 100]);
        assert_eq!(scale(seconds(&[10, 12, 9])), Duration::from_secs(12), "otherwise the longest build has the full height");
        assert_eq!(height(Duration::ZERO, scale(Vec::new())), 6);
    }
}
