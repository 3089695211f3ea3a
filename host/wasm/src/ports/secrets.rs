//! The secrets of the instance.

use zeroize::Zeroizing;

/// A secret with the hosts that may receive it.
#[derive(Clone)]
pub struct SecretValue {
    pub value: Zeroizing<Vec<u8>>,
    /// Hosts for which placeholders are replaced by the value, in the form of [`crate::EgressRule::host`]. Empty means none.
    pub hosts: Vec<String>,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretValue").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// The source of secret values.
pub trait SecretSource: Send + Sync {
    /// Returns the secret with this name, if it exists.
    ///
    /// # Errors
    /// A text for people if the secret could not be read.
    fn secret(&self, name: &str) -> Result<Option<SecretValue>, String>;
}
