//! The components that are embedded in the binary, so that one file is a complete Beespace. `build.rs` writes the list.

include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// Returns the bytes of a bundled component.
#[must_use]
pub fn bundled(name: &str) -> Option<&'static [u8]> {
    BUNDLED.iter().find(|(other, _)| *other == name).map(|(_, component)| *component)
}
