//! How much room the data directory has left, and whether that is enough to start a stage.

use std::path::Path;

use beespace_core::reason::Reason;

use crate::config::Config;

/// Where logs lie in the data directory.
pub const LOGS_DIR: &str = "logs";

/// The code of the reason for which a stage waits.
pub const DISK_FULL: &str = "disk-full";

/// Bytes that the server's own user may still write.
///
/// # Errors
/// The system does not tell.
pub fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let told = rustix::fs::statvfs(dir)?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}

/// Free bytes where a stage may start.
///
/// # Errors
/// Why none may, and what to do about it.
pub fn check_free_space(config: &Config) -> Result<u64, Reason> {
    let (dir, limit) = (&config.data.dir, config.limits.min_free_disk);
    let (dir, free) = match free_bytes(&dir.join(LOGS_DIR)) {
        // Logs may have a disk of their own.
        Ok(of_logs) if free_bytes(dir).is_ok_and(|of_all| of_logs < of_all) => (dir.join(LOGS_DIR), Ok(of_logs)),
        _ => (dir.clone(), free_bytes(dir)),
    };
    match free {
        Ok(free) if free >= limit => Ok(free),
        Ok(free) => Err(Reason::new(
            DISK_FULL,
            format!("the disk of {} has {} free, and no stage starts under {}", dir.display(), mebibytes(free), mebibytes(limit)),
        )
        .help("make room there, or lower `[limits] free_disk`; what waits starts by itself")),
        Err(error) => Err(Reason::new(DISK_FULL, format!("the disk of {} cannot be asked: {error}", dir.display()))),
    }
}

/// Why a log does not grow, and what to do about it.
#[must_use]
pub fn log_paused_reason() -> Reason {
    Reason::new(DISK_FULL, "the disk of the logs is full: what containers print waits, and nothing of it is lost")
        .help("make room under `data.dir`; it goes on by itself")
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_tells_its_room_and_a_missing_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(dir.path()).is_ok());
        assert!(free_bytes(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn a_full_disk_of_the_logs_alone_is_told() {
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
        assert!(full.code == DISK_FULL && full.message.contains("/logs has 0 MiB free"), "{full}");
    }
}
