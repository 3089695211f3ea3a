//! `[data]`: the location of the server's data.

use std::path::PathBuf;

use super::reader::Section;
use super::value::AbsolutePath;

/// The data directory.
#[derive(Debug, Clone)]
pub struct DataConfig {
    /// The data directory. The server creates it with mode 0700.
    pub dir: PathBuf,
    /// The encryption key file, if it is not inside the data directory.
    pub key_file: Option<PathBuf>,
}

impl DataConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        let dir = section.value("dir", AbsolutePath(PathBuf::from("/var/lib/beespace"))).0;
        if let Some(file) = dir.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
            section.conflict("dir", &format!("cannot be a directory, because {} is a file", file.display()));
        }
        Self { dir, key_file: section.optional::<AbsolutePath>("key_file").map(|path| path.0) }
    }

    /// The file with the key that encrypts secrets in the store.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.dir.join("key"))
    }

    /// The file with the admin token, which the command line on the same machine reads.
    #[must_use]
    pub fn admin_token_path(&self) -> PathBuf {
        self.dir.join("admin.token")
    }
}
