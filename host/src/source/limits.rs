//! The limits of what a commit may cost the server.

/// Limits of git's work on a commit, which a pusher chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    /// The data memory of each git process, in bytes. Packs are mapped and do not count.
    pub git_memory: u64,
    /// The files of a commit that is checked out or compared with another one.
    pub checkout_files: u64,
    /// The bytes of the files of a commit that is checked out.
    pub checkout_bytes: u64,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self { git_memory: 1 << 30, checkout_files: 1_000_000, checkout_bytes: 16 << 30 }
    }
}
