//! The directory of checkouts, and the disk space that must stay free beside them.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use super::{SourceError, TreeSize};
use crate::disk::{self, FreeSpace};

/// The interval between two looks at the disk while git writes.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The directory of checkouts. The server's store may be on the same disk, so a checkout never uses the last space there.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// Created when it is needed.
    pub directory: PathBuf,
    /// The bytes that stay free.
    pub reserve: u64,
}

impl Scratch {
    pub(super) async fn create(&self) -> Result<(), SourceError> {
        let created = tokio::fs::create_dir_all(&self.directory).await;
        created.map_err(|error| SourceError::internal(format!("cannot create the scratch directory: {error}")))
    }

    /// An error if a tree of this size does not fit.
    pub(super) fn check_room(&self, size: &TreeSize) -> Result<(), SourceError> {
        missing(self.free()?, self.reserve, size).map_or(Ok(()), |missing| {
            let message = format!("the checkout does not fit on the disk of {}: {missing}", self.directory.display());
            Err(SourceError::NoRoom(message))
        })
    }

    /// The error if less than the reserve is free.
    pub(super) fn is_full(&self) -> Option<SourceError> {
        let free = self.free().ok()?;
        let missing = missing(free, self.reserve, &TreeSize::default())?;
        Some(SourceError::DiskFull(format!("{}: {missing}", self.directory.display())))
    }

    /// Returns once less than the reserve is free. A tree may need more space than its objects tell: attributes can change
    /// the content of files, the history has a size of its own, and others write to the disk, too.
    pub(super) async fn until_full(&self) -> SourceError {
        loop {
            sleep(CHECK_INTERVAL).await;
            if let Some(full) = self.is_full() {
                return full;
            }
        }
    }

    fn free(&self) -> Result<FreeSpace, SourceError> {
        let (free, directory) = (disk::free_space(&self.directory), self.directory.display());
        free.map_err(|error| SourceError::Internal(format!("the free space of {directory} cannot be determined: {error}")))
    }
}

/// The space or files that a disk lacks for a tree in addition to the reserve.
fn missing(free: FreeSpace, reserve: u64, size: &TreeSize) -> Option<String> {
    if free.bytes < size.bytes.saturating_add(reserve) {
        let [free, bytes, reserve] = [free.bytes, size.bytes, reserve].map(|bytes| bytes >> 20);
        let needed = if bytes == 0 { String::new() } else { format!("the files need {bytes} MiB, and ") };
        return Some(format!("{free} MiB are free, {needed}{reserve} MiB are reserved (`[limits] free_disk`)"));
    }
    let free = free.files.filter(|free| *free < size.files)?;
    Some(format!("{free} more files can be created there, and the commit has {}", size.files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_needs_its_bytes_and_files_beside_the_reserve() {
        const MIB: u64 = 1 << 20;
        let size = TreeSize { files: 10, bytes: 3 * MIB, ..TreeSize::default() };
        let free = |bytes, files| missing(FreeSpace { bytes, files }, 2 * MIB, &size);
        assert_eq!(free(5 * MIB, Some(10)), None);
        assert_eq!(free(5 * MIB, None), None);
        let text = "4 MiB are free, the files need 3 MiB, and 2 MiB are reserved (`[limits] free_disk`)";
        assert_eq!(free(5 * MIB - 1, None).unwrap(), text);
        assert_eq!(free(5 * MIB, Some(9)).unwrap(), "9 more files can be created there, and the commit has 10");
    }
}
