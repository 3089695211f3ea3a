//! `[retention]`: how long builds are kept.

use std::time::Duration;

use super::reader::Section;

/// What may be removed some day. Nothing is where nothing is said.
#[derive(Debug, Clone)]
pub struct RetentionConfig {
    /// How long after its end a build stays, and a delivery after it came; none: for ever.
    pub builds: Option<Duration>,
}

impl RetentionConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        Self { builds: section.optional("builds") }
    }
}
