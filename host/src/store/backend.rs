//! The storage backend of redb. Rows are read on the async threads. A page in the operating system's page cache is copied
//! directly, within microseconds. A read that must wait for the disk first moves the other tasks of its thread to another thread
//! (`block_in_place`), so a slow disk delays only the task that reads.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use rustix::io::ReadWriteFlags;
use tokio::runtime::{Handle, RuntimeFlavor};

/// A file whose slow reads delay only the task that reads.
#[derive(Debug)]
pub(super) struct OffloadingBackend<B> {
    backend: B,
    /// A second handle to the same file, for reads from the page cache.
    page_cache: Option<File>,
}

impl OffloadingBackend<FileBackend> {
    /// Opens or creates the file.
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let storage = |error: io::Error| DatabaseError::Storage(error.into());
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(storage)?;
        let memory = Some(file.try_clone().map_err(storage)?);
        Ok(Self { backend: FileBackend::new(file)?, page_cache: memory })
    }
}

impl<B> OffloadingBackend<B> {
    /// Reads from the page cache. Returns whether all bytes were cached; `false` if the file system does not support this read.
    fn read_from_page_cache(&self, offset: u64, out: &mut [u8]) -> bool {
        let (Some(memory), wanted) = (&self.page_cache, out.len()) else { return false };
        let read = rustix::io::preadv2(memory, &mut [io::IoSliceMut::new(out)], offset, ReadWriteFlags::NOWAIT);
        read.is_ok_and(|read| read == wanted)
    }
}

/// Runs a blocking call. On a worker thread of a multi-threaded runtime, another thread first takes over the other tasks.
fn run_blocking<T>(wait: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

impl<B: StorageBackend> StorageBackend for OffloadingBackend<B> {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.read_from_page_cache(offset, out) {
            return Ok(());
        }
        run_blocking(|| self.backend.read(offset, out))
    }

    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    /// A disk that completes a read when the test allows it.
    #[derive(Debug)]
    struct SlowDisk {
        is_asked: Arc<Notify>,
        answers: Mutex<Receiver<()>>,
    }

    impl StorageBackend for SlowDisk {
        fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            self.is_asked.notify_one();
            self.answers.lock().unwrap().recv_timeout(Duration::from_secs(20)).map_err(io::Error::other)
        }

        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow_disk() -> (OffloadingBackend<SlowDisk>, Arc<Notify>, Sender<()>) {
        let (answer, answers) = channel();
        let is_asked = Arc::new(Notify::new());
        let disk = SlowDisk { is_asked: Arc::clone(&is_asked), answers: Mutex::new(answers) };
        (OffloadingBackend { backend: disk, page_cache: None }, is_asked, answer)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_continue_while_one_waits_for_the_disk() {
        let (file, is_asked, answer) = slow_disk();
        let reading = tokio::spawn(async move { file.read(0, &mut [0; 8]) });
        // The read blocks the only worker thread. That the second task runs shows that another thread has taken over.
        let other = tokio::spawn(async move {
            is_asked.notified().await;
            answer.send(()).unwrap();
        });
        other.await.unwrap();
        reading.await.unwrap().unwrap();
    }

    #[test]
    fn a_thread_outside_the_runtime_blocks() {
        let (file, _, answer) = slow_disk();
        answer.send(()).unwrap();
        file.read(0, &mut [0; 8]).unwrap();
    }

    #[test]
    fn written_bytes_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = OffloadingBackend::open(&folder.path().join("file")).unwrap();
        file.set_len(8192).unwrap();
        file.write(4096, b"bees").unwrap();
        let mut out = [0; 4];
        file.read(4096, &mut out).unwrap();
        assert_eq!(&out, b"bees");
        assert!(file.read(8190, &mut out).is_err(), "a read beyond the end fails");
    }
}
