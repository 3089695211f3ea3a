//! Components inside the binary, so that one file is a whole Beespace. `build.rs` writes the list.

include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// The bytes of a bundled component.
#[must_use]
pub fn bundled(name: &str) -> Option<&'static [u8]> {
    BUNDLED.iter().find(|(other, _)| *other == name).map(|(_, component)| *component)
}
