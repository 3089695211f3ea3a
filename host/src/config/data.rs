//! `[data]`: where everything that must last lies.

use std::path::PathBuf;

use super::reader::Section;

/// The data directory, 0700.
#[derive(Debug, Clone)]
pub struct DataConfig {
    pub dir: PathBuf,
    /// The key that seals secrets, where it shall not lie beside them.
    pub key_file: Option<PathBuf>,
}

impl DataConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        Self { dir: section.value("dir", PathBuf::from("/var/lib/beespace")), key_file: section.optional("key_file") }
    }

    /// The key that seals what is secret in the store.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.dir.join("key"))
    }

    /// The admin token that a command line on the same machine finds.
    #[must_use]
    pub fn admin_token_path(&self) -> PathBuf {
        self.dir.join("admin.token")
    }
}
