//! Encryption of secrets at rest. An instance has one key, in a file. The store contains secrets only in encrypted ("sealed")
//! form.
//!
//! To **seal** a value is to encrypt it with XChaCha20-Poly1305, with a random nonce of 24 bytes and the **location** of the row
//! (`secret/repository/7/TOKEN`) as associated data. A sealed value that was moved to another row cannot be decrypted, so an
//! attacker who can write to the store cannot give a step the secret of another repository. An attacker who has only the store
//! learns names, lengths and times, but no values.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Prefix of the only line of a key file. The key follows in base64.
const PREFIX: &str = "beespace-key-1:";
const VERSION: u8 = 1;
const ID_LEN: usize = 8;
const NONCE_LEN: usize = 24;

/// The key of this instance. `Debug` shows only its id.
#[derive(Clone)]
pub struct Key {
    bytes: Zeroizing<[u8; 32]>,
    id: KeyId,
}

/// Identifies a key without revealing anything about it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyId([u8; ID_LEN]);

/// A sealed value: version, key id, nonce, ciphertext.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(Vec<u8>);

/// An error of the key file or of a sealed value.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the key file {path} cannot be {action}: {source}")]
    Io {
        /// `read` or `created`.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "other users can read or change the key file {path} (mode {mode:03o}): run `chmod 600 {path}`, and \
         rotate all secrets if another user had access"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "the key file {path} does not contain a key: expected one line of `{PREFIX}` and 44 characters; \
         restore the file from your backup"
    )]
    NoKey { path: PathBuf },
    #[error(
        "the key file {path} is missing, and with it the key {wanted} for all secrets and webhooks of this store: restore it \
         from your backup (`data.key_file` sets its path); if the key is lost for good, move the store away too and start with a \
         new one"
    )]
    Missing { path: PathBuf, wanted: KeyId },
    #[error(
        "the key file {path} contains the key {have}, but the secrets and webhooks of this store are sealed with {wanted}: \
         restore the key file of this store (`data.key_file` sets its path)"
    )]
    Replaced { path: PathBuf, wanted: KeyId, have: KeyId },
    #[error(
        "{location} is sealed with the key {with}, but this server has the key {have}: restore that \
         key file, or set the value again"
    )]
    OtherKey { location: String, with: KeyId, have: KeyId },
    #[error("{location} cannot be decrypted: its row is damaged or was copied from another location; set the value again")]
    Broken { location: String },
    #[error("the system provides no random bytes: {0}")]
    NoRandom(String),
}

impl Key {
    /// Reads the key file. At the first start, when no key is `known` yet, it creates the file with mode 0600. Later the file
    /// must exist and contain the known key, because another key could not decrypt the store.
    ///
    /// # Errors
    /// [`SealError`] if the file cannot be read or created, is missing, is accessible to others, or contains something else. An
    /// existing file is never replaced.
    pub fn load_or_create(path: &Path, known: Option<KeyId>) -> Result<Self, SealError> {
        let key = match (std::fs::File::open(path), known) {
            (Ok(file), _) => Self::read(path, file)?,
            (Err(error), None) if error.kind() == std::io::ErrorKind::NotFound => Self::create(path)?,
            (Err(error), Some(wanted)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(SealError::Missing { path: path.to_owned(), wanted });
            }
            (Err(source), _) => return Err(SealError::Io { action: "read", path: path.to_owned(), source }),
        };
        match known {
            Some(wanted) if wanted != key.id => Err(SealError::Replaced { path: path.to_owned(), wanted, have: key.id }),
            _ => Ok(key),
        }
    }

    /// Creates a key from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let mut id = [0; ID_LEN];
        let digest = derive(&bytes, "key id");
        id.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        Self { bytes, id: KeyId(id) }
    }

    /// The id of this key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Encrypts a value for one location.
    ///
    /// # Errors
    /// [`SealError::NoRandom`], which does not happen in practice.
    pub fn seal(&self, location: &str, plaintext: &[u8]) -> Result<Sealed, SealError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|error| SealError::NoRandom(error.to_string()))?;
        let payload = Payload { msg: plaintext, aad: &associated_data(self.id, location) };
        let ciphertext = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SealError::Broken { location: location.to_owned() })?;
        Ok(Sealed([&[VERSION], &self.id.0[..], &nonce, &ciphertext].concat()))
    }

    /// Decrypts a value that was sealed for this location. The result is zeroized when dropped.
    ///
    /// # Errors
    /// [`SealError::OtherKey`] or [`SealError::Broken`].
    pub fn open(&self, location: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let broken = || SealError::Broken { location: location.to_owned() };
        let (id, rest) = sealed.0.strip_prefix(&[VERSION]).and_then(<[u8]>::split_first_chunk).ok_or_else(broken)?;
        if *id != self.id.0 {
            return Err(SealError::OtherKey { location: location.to_owned(), with: KeyId(*id), have: self.id });
        }
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(broken)?;
        let payload = Payload { msg: ciphertext, aad: &associated_data(self.id, location) };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| broken())
    }

    /// Derives a key for another purpose (the MAC of a cache, sessions) that does not reveal this key. The label contains the
    /// purpose and its version: `aot cache 1`.
    #[must_use]
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        derive(&self.bytes, &format!("use: {label}"))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*derive(&self.bytes, "seal 1")).into())
    }

    fn read(path: &Path, file: std::fs::File) -> Result<Self, SealError> {
        let io = |source| SealError::Io { action: "read", path: path.to_owned(), source };
        let mode = file.metadata().map_err(io)?.mode() & 0o777;
        // The group may read the file: orchestrators mount secret files for a non-root user this way.
        if mode & 0o027 != 0 {
            return Err(SealError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(1024).read_to_string(&mut text).map_err(io)?;
        let no_key = || SealError::NoKey { path: path.to_owned() };
        let encoded = text.trim_end().strip_prefix(PREFIX).ok_or_else(no_key)?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| no_key())?);
        bytes.as_slice().try_into().map(Self::from_bytes).map_err(|_| no_key())
    }

    fn create(path: &Path) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|error| SealError::NoRandom(error.to_string()))?;
        match write_new(path, &Zeroizing::new(format!("{PREFIX}{}\n", STANDARD.encode(*bytes)))) {
            Ok(()) => Ok(Self::from_bytes(*bytes)),
            // Another process has created the file in the meantime; its key is used.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::load_or_create(path, None),
            Err(source) => Err(SealError::Io { action: "created", path: path.to_owned(), source }),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Disables core dumps and access by other processes of the same user (ptrace). It must be called before any secret is read.
/// Child processes inherit the core limit, but not the protection from other processes.
///
/// # Errors
/// An error of the operating system.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A handler to which the kernel pipes dumps (systemd-coredump) ignores the limit, but respects this flag.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Writes the file atomically and durably. An existing file is not changed.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut draft = tempfile::Builder::new()
        .prefix(".key-")
        .make_in(dir, |path| std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path))?;
    draft.write_all(text.as_bytes())?;
    draft.as_file().sync_all()?;
    draft.persist_noclobber(path).map_err(|error| error.error)?;
    std::fs::File::open(dir)?.sync_all()
}

/// The associated data of the encryption: version, key id and location.
fn associated_data(id: KeyId, location: &str) -> Vec<u8> {
    [&[VERSION], &id.0[..], location.as_bytes()].concat()
}

/// One step of HKDF-Expand (RFC 5869). The key is uniformly random already, and one block is sufficient.
fn derive(key: &[u8; 32], label: &str) -> Zeroizing<[u8; 32]> {
    // HMAC pads a short key with zeros to the block size of the hash. Padding here excludes an invalid length.
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<sha2::Sha256>::new((&*block).into());
    mac.update(b"beespace ");
    mac.update(label.as_bytes());
    mac.update(&[1]);
    Zeroizing::new(mac.finalize().into_bytes().into())
}
