//! How much room the data directory has left, and whether that is enough to start a stage.

use std::path::Path;

use beespace_core::outcome::Reason;

use crate::config::Config;

/// The code of the reason for which a stage waits.
pub const DISK_FULL: &str = "disk-full";

/// Bytes that the server's own user may still write.
///
/// # Errors
/// The system does not tell.
pub fn free(dir: &Path) -> std::io::Result<u64> {
    let told = rustix::fs::statvfs(dir)?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}

/// Free bytes where a stage may start.
///
/// # Errors
/// Why none may, and what to do about it.
pub fn room(config: &Config) -> Result<u64, Reason> {
    let (dir, limit) = (&config.data.dir, config.limits.free_disk);
    match free(dir) {
        Ok(free) if free >= limit => Ok(free),
        Ok(free) => Err(Reason::new(
            DISK_FULL,
            format!("the disk of {} has {} free, and no stage starts under {}", dir.display(), mebibytes(free), mebibytes(limit)),
        )
        .help("make room there, or lower `[limits] free_disk`; what waits starts by itself")),
        Err(error) => Err(Reason::new(DISK_FULL, format!("the disk of {} cannot be asked: {error}", dir.display()))),
    }
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
        assert!(free(dir.path()).is_ok());
        assert!(free(&dir.path().join("missing")).is_err());
    }
}
