//! The free space of the data directory, and whether it is enough to start a stage.

use std::path::Path;
use std::time::Duration;

use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;

use crate::config::Config;

/// The folder of the logs in the data directory.
pub const LOGS_DIR: &str = "logs";

/// The interval between two checks of a disk that is too full.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(15);

/// The free space of a file system for the server's own user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeSpace {
    pub bytes: u64,
    /// The files that can still be created; none if the file system does not limit them.
    pub files: Option<u64>,
}

/// The free space of the file system that contains `dir`.
///
/// # Errors
/// The system cannot report it.
pub fn free_space(dir: &Path) -> std::io::Result<FreeSpace> {
    let stats = rustix::fs::statvfs(dir)?;
    let files = (stats.f_files > 0).then_some(stats.f_favail);
    Ok(FreeSpace { bytes: stats.f_bavail.saturating_mul(stats.f_frsize), files })
}

fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    free_space(dir).map(|free| free.bytes)
}

/// The free bytes, if they are enough to start a stage.
///
/// # Errors
/// Why no stage may start, and what to do.
pub fn check_free_space(config: &Config) -> Result<u64, Reason> {
    let (dir, limit) = (&config.data.dir, config.limits.free_disk);
    let (dir, free) = match free_bytes(&dir.join(LOGS_DIR)) {
        // Logs may have a disk of their own.
        Ok(of_logs) if free_bytes(dir).is_ok_and(|of_all| of_logs < of_all) => (dir.join(LOGS_DIR), Ok(of_logs)),
        _ => (dir.clone(), free_bytes(dir)),
    };
    match free {
        Ok(free) if free >= limit => Ok(free),
        Ok(free) => Err(Reason::new(
            ReasonCode::DiskFull,
            format!("the disk of {} has {} free, and stages need {}", dir.display(), mebibytes(free), mebibytes(limit)),
        )
        .help("free disk space there, or lower `[limits] free_disk`; waiting stages then start by themselves")),
        Err(error) => {
            Err(Reason::new(ReasonCode::DiskFull, format!("the free space of {} cannot be determined: {error}", dir.display())))
        }
    }
}

/// Why a log is paused, and what to do.
#[must_use]
pub fn log_paused_reason() -> Reason {
    Reason::new(ReasonCode::DiskFull, "the disk of the logs is full: containers pause when they print, and no output is lost")
        .help("free disk space under `data.dir`; the log then continues by itself")
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_disk_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(dir.path()).is_ok());
        assert!(free_bytes(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn a_full_disk_of_the_logs_alone_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[data]\ndir = \"{}\"\n[gogs]\nurl = \"http://gogs.local\"\ntoken = \"t\"\n[limits]\nfree_disk = \"1KiB\"\n",
            dir.path().display()
        );
        let config = Config::read(&text, None, []).unwrap().config;
        assert!(check_free_space(&config).is_ok());
        // A file system that never has a free byte.
        std::os::unix::fs::symlink("/proc", dir.path().join(LOGS_DIR)).unwrap();
        let full = check_free_space(&config).unwrap_err();
        assert!(full.code == ReasonCode::DiskFull && full.message.contains("/logs has 0 MiB free"), "{full}");
    }
}
