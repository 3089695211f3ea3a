//! `[plugins]`: how large plugins may be. The defaults let components in that are written in Python or JavaScript.

use beespace_core::units;

use super::reader::Section;
use super::value::{Kind, PositiveSize, Value};

/// The limits of every plugin.
#[derive(Debug, Clone)]
pub struct PluginsConfig {
    /// The largest component that is loaded, in bytes.
    pub component_bytes: u64,
    /// The memory of one call, in bytes.
    pub memory: u64,
}

/// The memory of one call.
struct CallMemory(u64);

impl Value for CallMemory {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a size from 1MiB to 512MiB";
    fn parse(text: &str) -> Option<Self> {
        units::parse_size(text).filter(|bytes| (1 << 20..=512 << 20).contains(bytes)).map(Self)
    }
    fn show(&self) -> String {
        units::format_size(self.0)
    }
}

impl PluginsConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            component_bytes: section.value("component_bytes", PositiveSize(32 << 20)).0,
            memory: section.value("memory", CallMemory(128 << 20)).0,
        }
    }
}
