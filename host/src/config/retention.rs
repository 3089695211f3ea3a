//! `[retention]`: how long builds are kept.

use std::time::Duration;

use super::reader::Section;

/// The retention period. By default, nothing is removed.
#[derive(Debug, Clone)]
pub struct RetentionConfig {
    /// How long a build is kept after its end, and a delivery after its arrival; `None`: forever.
    pub builds: Option<Duration>,
}

impl RetentionConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        Self { builds: section.optional("builds") }
    }
}
