//! The resources that guests hold handles to. `bindgen!` needs these types, so they are separate from the host functions that use
//! them.

use crate::ports::secrets::SecretValue;

/// A secret that a guest has opened. The value stays in the host.
#[expect(unreachable_pub, reason = "the generated code re-exports it")]
pub struct HostSecret {
    pub(crate) name: String,
    pub(crate) secret: SecretValue,
}

impl std::fmt::Debug for HostSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An artifact that a guest has opened. The type has no values, because there are no artifacts yet.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated code re-exports it")]
pub enum HostArtifact {}
