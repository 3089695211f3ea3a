//! `[limits]`: what a build may use where its pipeline says nothing, and what the machine must keep.

use std::num::NonZeroU16;
use std::time::Duration;

use super::reader::Section;
use super::value::Size;

/// Caps of the instance.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Of a stage whose pipeline names none.
    pub stage_timeout: Duration,
    /// Memory of each container, in bytes.
    pub step_memory: u64,
    /// Processes of each container.
    pub step_pids: NonZeroU16,
    /// Of one step's log, in bytes; what comes after is dropped and said so.
    pub log_size: u64,
    /// Free bytes on the disk of the data directory under which no stage starts.
    pub min_free_disk: u64,
}

impl LimitsConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            stage_timeout: section.value("stage_timeout", Duration::from_secs(3_600)),
            step_memory: section.value("step_memory", Size(4 << 30)).0,
            step_pids: section.value("step_pids", NonZeroU16::MIN.saturating_add(511)),
            log_size: section.value("log_bytes", Size(1 << 30)).0,
            min_free_disk: section.value("free_disk", Size(2 << 30)).0,
        }
    }
}
