//! Streams of uncompressed tar for uploads to an engine: sources, scripts, secrets.

use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use beespace_core::digest::Digest;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// An uncompressed tar as a stream of bytes.
pub(super) type TarStream = BoxStream<'static, io::Result<Bytes>>;

/// Size of a chunk of the stream, in bytes.
const CHUNK: usize = 256 * 1024;
/// The number of chunks that may be packed before the engine has received them.
const CHUNKS_IN_FLIGHT: usize = 4;

/// The content of a tar. All paths are absolute paths in the container.
#[derive(Default)]
pub(super) struct TarContents {
    pub(super) files: Vec<HostFile>,
    /// A directory of the host, and its path in the container.
    pub(super) tree: Option<(PathBuf, &'static str)>,
}

/// A file that the host made; it may be secret. Every user can read it, because the image selects the user of a container.
#[derive(Clone)]
pub(super) struct HostFile {
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
}

impl HostFile {
    pub(super) fn digest(&self) -> Digest {
        Digest::of_parts([self.path.as_bytes(), &self.bytes])
    }
}

/// Packs a tar on a thread of its own. All entries belong to root, and those of the tree are open to every user. Symbolic links
/// stay links and are never followed. Entries that are neither file, directory nor link are omitted.
pub(super) fn pack(contents: TarContents) -> TarStream {
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    tokio::task::spawn_blocking(move || {
        let mut chunks = ChunkWriter { sender: sender.clone(), chunk: Vec::with_capacity(CHUNK) };
        let packed = write(&contents, &mut chunks).and_then(|()| chunks.flush());
        if let Err(error) = packed {
            // This fails if the receiver is gone; it needs no error then.
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver).boxed()
}

fn write(contents: &TarContents, to: &mut impl Write) -> io::Result<()> {
    let mut tar = Builder::new(to);
    for HostFile { path, bytes } in &contents.files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o444);
        tar.append_data(&mut header, path.trim_start_matches('/'), bytes.as_slice())?;
    }
    if let Some((directory, at)) = &contents.tree {
        append_tree(&mut tar, directory, Path::new(at.trim_start_matches('/')))?;
    }
    tar.finish()
}

fn append_tree(tar: &mut Builder<impl Write>, directory: &Path, at: &Path) -> io::Result<()> {
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let path = directory.join(&relative);
        let metadata = std::fs::symlink_metadata(&path)?;
        let name = at.join(&relative);
        if metadata.is_dir() {
            tar.append_data(&mut header(&metadata, EntryType::Directory, 0), name, io::empty())?;
            for entry in std::fs::read_dir(&path)? {
                pending.push(relative.join(entry?.file_name()));
            }
        } else if metadata.is_symlink() {
            tar.append_link(&mut header(&metadata, EntryType::Symlink, 0), name, std::fs::read_link(&path)?)?;
        } else if metadata.is_file() {
            let file = std::fs::File::open(&path)?;
            tar.append_data(&mut header(&metadata, EntryType::Regular, metadata.len()), name, file)?;
        }
    }
    Ok(())
}

fn header(metadata: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    let executable = metadata.is_dir() || metadata.permissions().mode() & 0o100 != 0;
    header.set_mode(if executable { 0o777 } else { 0o666 });
    header
}

/// Sends what is written to it in chunks.
struct ChunkWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    chunk: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Ok(chunk.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::io::Read as _;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

    use super::*;

    /// Names that do not fit into the fields of a plain tar header, or that programs like to misread.
    fn odd_names() -> Vec<PathBuf> {
        let deep = (0..10).map(|_| "d".repeat(200)).collect::<Vec<_>>().join("/");
        let long = [format!("{}/{}", "p".repeat(75), "f".repeat(75)), "n".repeat(255), format!("{deep}/file")];
        let odd = ["new\nline", "tab\there", "-dash", "blank ", "quo\"te", "back\\slash", "日本語"];
        let names = long.into_iter().chain(odd.map(str::to_owned)).map(PathBuf::from);
        names.chain([PathBuf::from(OsStr::from_bytes(b"latin-\xe9"))]).collect()
    }

    #[tokio::test]
    async fn every_name_and_link_of_a_tree_arrives_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        for name in odd_names() {
            let path = folder.path().join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name.as_os_str().as_bytes()).unwrap();
        }
        let links = [("short", 20), ("long", 150), ("longer", 304)];
        for (name, length) in links {
            std::os::unix::fs::symlink("t".repeat(length), folder.path().join(name)).unwrap();
        }
        let contents = TarContents { files: Vec::new(), tree: Some((folder.path().to_owned(), "/workspace")) };
        let chunks: Vec<_> = pack(contents).map(Result::unwrap).collect().await;
        let mut archive = tar::Archive::new(io::Cursor::new(chunks.concat()));
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = PathBuf::from(std::ffi::OsString::from_vec(entry.path_bytes().into_owned()));
            let name = name.strip_prefix("workspace").unwrap().to_owned();
            let mut content = Vec::new();
            match entry.header().entry_type() {
                EntryType::Regular => drop(entry.read_to_end(&mut content).unwrap()),
                EntryType::Symlink => content = entry.link_name_bytes().unwrap().into_owned(),
                _ => continue,
            }
            found.insert(name, content);
        }
        let files = odd_names().into_iter().map(|name| (name.clone(), name.into_os_string().into_vec()));
        let links = links.map(|(name, length)| (PathBuf::from(name), "t".repeat(length).into_bytes()));
        assert_eq!(found, files.chain(links).collect());
    }
}
