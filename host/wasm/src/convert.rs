//! Conversions between the types of `wit/` and those of `beespace_core`. The output of a plugin is untrusted: its size is
//! limited, its texts are truncated and sanitized, and its values are validated like user input.

pub(crate) mod from_wit;
pub(crate) mod plan;
pub(crate) mod to_wit;
