//! Components inside the binary.
pub const BUNDLED: &[(&str, &[u8])] = &[];
pub fn bundled(name: &str) -> Option<&'static [u8]> {
    BUNDLED.iter().find(|(other, _)| *other == name).map(|(_, b)| *b)
}
