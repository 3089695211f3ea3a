//! `[limits]`: the resource limits of builds, and the disk space that must stay free.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use super::reader::Section;
use super::value::{GitMemory, Size};

/// The limits of the instance.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// The timeout of a stage whose pipeline sets none.
    pub stage_timeout: Duration,
    /// The memory limit of each container, in bytes.
    pub step_memory: u64,
    /// The maximum number of processes in each container.
    pub step_pids: NonZeroU16,
    /// The maximum size of a step's log, in bytes. Further output is dropped, and the log states this.
    pub log_bytes: u64,
    /// The free space on the data directory's disk below which no stage starts, in bytes.
    pub free_disk: u64,
    /// The data memory of each git process, in bytes. Packs are mapped and do not count.
    pub git_memory: u64,
    /// The files of a commit that is checked out or compared with another one.
    pub checkout_files: NonZeroU32,
    /// The bytes of the files of a commit that is checked out.
    pub checkout_bytes: u64,
}

impl LimitsConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            stage_timeout: section.value("stage_timeout", Duration::from_secs(3_600)),
            step_memory: section.value("step_memory", Size(4 << 30)).0,
            step_pids: section.value("step_pids", NonZeroU16::MIN.saturating_add(511)),
            log_bytes: section.value("log_bytes", Size(1 << 30)).0,
            free_disk: section.value("free_disk", Size(2 << 30)).0,
            git_memory: section.value("git_memory", GitMemory(1 << 30)).0,
            checkout_files: section.value("checkout_files", NonZeroU32::MIN.saturating_add(999_999)),
            checkout_bytes: section.value("checkout_bytes", Size(16 << 30)).0,
        }
    }
}
