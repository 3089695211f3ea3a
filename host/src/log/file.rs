//! The two files of a log: opening, recovery after a crash, appending a frame.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::LogError;
use super::frame::Header;
use super::origin::OriginOffset;

/// An open log and its index.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    log: File,
    index: File,
    /// Whether the directory entry of the log is synced.
    is_dir_synced: AtomicBool,
}

impl Files {
    /// Opens an existing log; `None` if there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, LogError> {
        match File::open(path) {
            Ok(_) => Self::create(path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("opened", path)(error)),
        }
    }

    /// Opens or creates the files, readable only by the owner.
    pub(super) fn create(path: &Path) -> Result<Self, LogError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed("opened", dir))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let index_path = index_path(path);
        Ok(Self {
            path: path.to_owned(),
            log: options.open(path).map_err(failed("opened", path))?,
            index: options.open(&index_path).map_err(failed("opened", &index_path))?,
            is_dir_synced: AtomicBool::new(false),
        })
    }

    /// The number of frames in the index.
    pub(super) fn frames(&self) -> Result<u64, LogError> {
        let len = self.index.metadata().map_err(failed("read", &self.path))?.len();
        Ok(len / Header::LEN as u64)
    }

    /// The header of a frame; `None` after the last one. Fails if the entry of the frame is damaged: a reader that took it for
    /// the end would silently leave out the rest of the log, and a follower would wait for it forever.
    pub(super) fn header(&self, frame: u64) -> Result<Option<Header>, LogError> {
        let damaged = || LogError::Damaged {
            path: index_path(&self.path),
            detail: format!("the entry of frame {frame} does not match its checksum"),
        };
        self.index_entry(frame)?.map(|entry| entry.ok_or_else(damaged)).transpose()
    }

    /// The header of a frame if the index has an intact one.
    pub(super) fn intact_header(&self, frame: u64) -> Result<Option<Header>, LogError> {
        Ok(self.index_entry(frame)?.flatten())
    }

    /// The entry of a frame; `None` after the last complete one, `Some(None)` if it is damaged.
    fn index_entry(&self, frame: u64) -> Result<Option<Option<Header>>, LogError> {
        let mut bytes = [0; Header::LEN];
        match self.index.read_exact_at(&mut bytes, frame * Header::LEN as u64) {
            Ok(()) => Ok(Some(Header::decode(&bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(failed("read", &self.path)(error)),
        }
    }

    /// The header of the last frame in the index.
    pub(super) fn last(&self) -> Result<Option<Header>, LogError> {
        let mut frames = self.frames()?;
        while let Some(frame) = frames.checked_sub(1) {
            if let Some(header) = self.intact_header(frame)? {
                return Ok(Some(header));
            }
            frames = frame;
        }
        Ok(None)
    }

    /// The compressed body of a frame.
    pub(super) fn body(&self, header: &Header) -> Result<Vec<u8>, LogError> {
        let mut body = vec![0; header.body_len as usize];
        let at = header.offset + Header::LEN as u64;
        self.log.read_exact_at(&mut body, at).map_err(failed("read", &self.path))?;
        Ok(body)
    }

    /// The offsets of all origins at the end of a frame.
    pub(super) fn offsets(&self, header: &Header) -> Result<Vec<OriginOffset>, LogError> {
        header.offsets(&self.body(header)?).ok_or_else(|| self.damaged(header))
    }

    pub(super) fn damaged(&self, header: &Header) -> LogError {
        LogError::Damaged {
            path: self.path.clone(),
            detail: format!(
                "the frame at byte {} (from line {}) does not match its checksum",
                header.offset,
                header.lines_before + 1
            ),
        }
    }

    /// Appends a frame, first to the log and then to the index, so the index never refers to a missing frame.
    pub(super) fn append(&self, frame: u64, header: &Header, body: &[u8]) -> Result<(), LogError> {
        let encoded = header.encode();
        self.log.write_all_at(&[&encoded, body].concat(), header.offset).map_err(failed("written", &self.path))?;
        self.index.write_all_at(&encoded, frame * Header::LEN as u64).map_err(failed("written", &self.path))
    }

    /// Syncs the log to disk. The index is not synced, because it can be rebuilt.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        self.log.sync_data().map_err(failed("written", &self.path))?;
        if let Some(dir) = self.path.parent().filter(|_| !self.is_dir_synced.load(Ordering::Relaxed)) {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("written", dir))?;
            self.is_dir_synced.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether the index matches the length of the log.
    pub(super) fn is_consistent(&self) -> Result<bool, LogError> {
        let log_len = self.log.metadata().map_err(failed("read", &self.path))?.len();
        let index_len = self.index.metadata().map_err(failed("read", &self.path))?.len();
        let end = self.last()?.map_or(0, |last| last.end_offset());
        Ok(log_len == end && index_len == self.frames()? * Header::LEN as u64)
    }

    /// Rebuilds the index: reads the log from the start to the last intact frame. Returns the number of frames and the last
    /// header. The caller must ensure that no writer exists.
    pub(super) fn rebuild_index(&self) -> Result<(u64, Option<Header>), LogError> {
        let (mut frames, mut last, mut end) = (0, None::<Header>, 0);
        while let Some(header) = self.frame_at(end)?.filter(|header| header.follows(last.as_ref())) {
            if self.intact_header(frames)? != Some(header) {
                let at = frames * Header::LEN as u64;
                self.index.write_all_at(&header.encode(), at).map_err(failed("written", &self.path))?;
            }
            (frames, last, end) = (frames + 1, Some(header), header.end_offset());
        }
        self.index.set_len(frames * Header::LEN as u64).map_err(failed("written", &self.path))?;
        Ok((frames, last))
    }

    /// Recovers the log for a new writer: rebuilds the index and truncates the log after the last intact frame.
    pub(super) fn recover(&self) -> Result<(u64, Option<Header>), LogError> {
        let (frames, last) = self.rebuild_index()?;
        let end = last.map_or(0, |last| last.end_offset());
        self.log.set_len(end).map_err(failed("written", &self.path))?;
        Ok((frames, last))
    }

    /// The header of the frame at this offset, if the frame is intact.
    fn frame_at(&self, offset: u64) -> Result<Option<Header>, LogError> {
        let mut bytes = [0; Header::LEN];
        let whole = self.log.read_exact_at(&mut bytes, offset).map(|()| Header::decode(&bytes));
        let header = match whole {
            Ok(Some(header)) if header.offset == offset => header,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(failed("read", &self.path)(error)),
        };
        let log_len = self.log.metadata().map_err(failed("read", &self.path))?.len();
        Ok((header.end_offset() <= log_len && header.matches(&self.body(&header)?)).then_some(header))
    }
}

fn index_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".index");
    name.into()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { action, path, source }
}
