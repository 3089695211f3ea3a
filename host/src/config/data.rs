//! `[data]`: the location of the server's data.

use std::path::PathBuf;

use super::reader::Section;

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
        Self { dir: section.value("dir", PathBuf::from("/var/lib/beespace")), key_file: section.optional("key_file") }
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
