//! `[limits]`: the resource limits of builds, and the disk space that must stay free.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use beespace_core::plan::Limits;

use super::reader::Section;
use super::value::{Cpus, GitMemory, PositiveSize, Size, StepMemory};

/// The timeout of a stage whose pipeline sets none, unless `stage_timeout` is shorter.
const STAGE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3_600);

/// The shortest time between two builds of one schedule.
const SCHEDULE_INTERVAL: Duration = Duration::from_secs(300);

/// The limits of the instance. A pipeline file can only lower them.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// The longest timeout of a stage.
    pub stage_timeout: Duration,
    /// The timeout of a stage whose pipeline sets none; at most `stage_timeout`.
    pub stage_timeout_default: Duration,
    /// Containers of one stage that run at once; further containers wait.
    pub stage_containers: NonZeroU16,
    /// Containers of all stages that run at once; further containers wait.
    pub containers: NonZeroU16,
    /// Stages of one repository that run at once. `None`: `[engine] capacity`, less one if more than one repository is enabled.
    pub repository_capacity: Option<NonZeroU16>,
    /// The CPU time of each container, in thousandths of a CPU; `None`: unlimited.
    pub step_cpu: Option<u32>,
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
    /// The shortest time between two builds of one schedule.
    pub schedule_interval: Duration,
    /// The files of a commit that is checked out or compared with another one.
    pub checkout_files: NonZeroU32,
    /// The bytes of the files of a commit that is checked out.
    pub checkout_bytes: u64,
}

impl LimitsConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        let stage_timeout = section.value("stage_timeout", Duration::from_secs(6 * 3_600));
        let stage_timeout_default = section.value("stage_timeout_default", STAGE_TIMEOUT_DEFAULT.min(stage_timeout));
        if stage_timeout_default > stage_timeout {
            section.conflict("stage_timeout_default", "must not be longer than `limits.stage_timeout`");
        }
        Self {
            stage_timeout,
            stage_timeout_default,
            stage_containers: section.value("stage_containers", NonZeroU16::MIN.saturating_add(15)),
            containers: section.value("containers", NonZeroU16::MIN.saturating_add(63)),
            repository_capacity: section.optional("repository_capacity"),
            step_cpu: section.optional("step_cpu").map(|Cpus(millis)| millis),
            step_memory: section.value("step_memory", StepMemory(4 << 30)).0,
            step_pids: section.value("step_pids", NonZeroU16::MIN.saturating_add(511)),
            log_bytes: section.value("log_bytes", PositiveSize(1 << 30)).0,
            free_disk: section.value("free_disk", Size(2 << 30)).0,
            git_memory: section.value("git_memory", GitMemory(1 << 30)).0,
            schedule_interval: section.value("schedule_interval", SCHEDULE_INTERVAL),
            checkout_files: section.value("checkout_files", NonZeroU32::MIN.saturating_add(999_999)),
            checkout_bytes: section.value("checkout_bytes", PositiveSize(16 << 30)).0,
        }
    }

    /// The limits of every container.
    #[must_use]
    pub fn of_container(&self) -> Limits {
        Limits {
            cpu_millis: self.step_cpu,
            memory_bytes: Some(self.step_memory),
            pids: Some(u32::from(self.step_pids.get())),
            timeout_seconds: None,
        }
    }

    /// The timeout of a stage whose pipeline sets `timeout`.
    #[must_use]
    pub fn timeout_of_stage(&self, timeout: Option<Duration>) -> Duration {
        timeout.unwrap_or(self.stage_timeout_default).min(self.stage_timeout)
    }
}
