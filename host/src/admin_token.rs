//! The admin token: created at the first start, and stored in the data directory.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use beespace_core::digest::Digest;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// The shortest token that is accepted, in characters.
const MIN_LENGTH: usize = 32;

/// The token that gives its holder all rights on this server.
#[derive(Debug, Clone)]
pub struct AdminToken(SecretString);

impl AdminToken {
    /// Reads the token from a file. If the file does not exist, creates it with 256 random bits that only the server's user can
    /// read.
    ///
    /// # Errors
    /// The file cannot be created or read, or the token in it is too short.
    pub fn load_or_create(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            let mut bytes = [0_u8; 32];
            getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system's random generator failed: {error}"))?;
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let mut file = file.with_context(|| format!("cannot create {}", path.display()))?;
            writeln!(file, "bee_{}", hex::encode(bytes))?;
            file.sync_all()?;
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let token = text.trim();
        anyhow::ensure!(
            token.len() >= MIN_LENGTH,
            "{} does not contain a token of at least {MIN_LENGTH} characters; remove the file to get a new token",
            path.display()
        );
        Ok(Self(SecretString::from(token.to_owned())))
    }

    /// A digest that changes with the token. It differs from the token's own hash, so it cannot be compared with hashes from
    /// elsewhere.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of_parts([b"beespace admin token".as_slice(), self.0.expose_secret().as_bytes()])
    }

    /// Whether this is the token. The comparison takes constant time, and both sides are hashed first to hide even their lengths.
    #[must_use]
    pub fn matches(&self, token: &str) -> bool {
        let expected = Digest::of(self.0.expose_secret());
        Digest::of(token).0.ct_eq(&expected.0).into()
    }
}
