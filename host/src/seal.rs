//! Secrets at rest. One key for an instance, in a file; nothing secret is in the store but sealed with it.
//!
//! A seal is XChaCha20-Poly1305 with a random nonce of 24 bytes, bound to its **place** (`secret/repository/7/TOKEN`): a sealed
//! value moved to another row does not open, so nobody who can write the store can have a step given another's secret. Who has the
//! store alone learns names, lengths and times, and no value.

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

/// First line and only line of a key file, before the key in base64.
const PREFIX: &str = "beespace-key-1:";
const VERSION: u8 = 1;
const ID_LEN: usize = 8;
const NONCE_LEN: usize = 24;

/// The key of this instance. `Debug` tells its id only.
#[derive(Clone)]
pub struct Key {
    bytes: Zeroizing<[u8; 32]>,
    id: KeyId,
}

/// Tells keys apart without telling anything of them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyId([u8; ID_LEN]);

/// A sealed value: version, id of the key, nonce, ciphertext.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(Vec<u8>);

/// What is wrong with a key, or with a sealed value.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the key file {path} cannot be {action}: {source}")]
    Io {
        /// `read`, `containers`.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "the key file {path} can be read or changed by others (mode {mode:03o}): `chmod 600 {path}`, and change the secrets if somebody had access"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "the key file {path} does not hold a key: expected one line `{PREFIX}` and 44 characters; put back the file from your backup"
    )]
    NoKey { path: PathBuf },
    #[error(
        "the key file {path} is missing, and with it the key {wanted} that opens all secrets and hooks of this store: put it back from \
         your backup (`data.key_file` says where it lies); where it is lost for good, move the store away too, and begin anew"
    )]
    Missing { path: PathBuf, wanted: KeyId },
    #[error(
        "the key file {path} holds the key {have}, but the secrets and hooks of this store are sealed with {wanted}: put back the \
         file that belongs to this store (`data.key_file` says where it lies)"
    )]
    Replaced { path: PathBuf, wanted: KeyId, have: KeyId },
    #[error(
        "{place} was sealed with the key {with}, this server has the key {have}: put back that key file, or set the value again"
    )]
    OtherKey { place: String, with: KeyId, have: KeyId },
    #[error("{place} does not open: its row was damaged, or put here from another place; set the value again")]
    Broken { place: String },
    #[error("the system gives no random bytes: {0}")]
    NoRandom(String),
}

impl Key {
    /// Reads the key file. Where no key is `store_facts` yet, which is at the first start, it makes the file, 0600; otherwise it must be
    /// there and hold that key: another one would open nothing that is in the store.
    ///
    /// # Errors
    /// [`SealError`] when it cannot be read or made, is missing, is open to others, or holds something else. It is never replaced.
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

    /// A key of these bytes, from wherever they come.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let mut id = [0; ID_LEN];
        let digest = derive(&bytes, "key id");
        id.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        Self { bytes, id: KeyId(id) }
    }

    /// Which key this is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Seals a value for one place.
    ///
    /// # Errors
    /// [`SealError::NoRandom`]; in practice never.
    pub fn seal(&self, place: &str, plaintext: &[u8]) -> Result<Sealed, SealError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|error| SealError::NoRandom(error.to_string()))?;
        let payload = Payload { msg: plaintext, aad: &associated_data(self.id, place) };
        let ciphertext =
            self.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Broken { place: place.to_owned() })?;
        Ok(Sealed([&[VERSION], &self.id.0[..], &nonce, &ciphertext].concat()))
    }

    /// Opens what was sealed for this place. The result is wiped when dropped.
    ///
    /// # Errors
    /// [`SealError::OtherKey`] or [`SealError::Incomplete`].
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let broken = || SealError::Broken { place: place.to_owned() };
        let (id, rest) = sealed.0.strip_prefix(&[VERSION]).and_then(<[u8]>::split_first_chunk).ok_or_else(broken)?;
        if *id != self.id.0 {
            return Err(SealError::OtherKey { place: place.to_owned(), with: KeyId(*id), have: self.id });
        }
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(broken)?;
        let payload = Payload { msg: ciphertext, aad: &associated_data(self.id, place) };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| broken())
    }

    /// A key for another use (a cache's MAC, a session's), from which nobody learns this one. The label names the use and its
    /// version: `aot cache 1`.
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
        // Group may read: that is how orchestrators hand a secret file to a user that is not root.
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
            // Another process made it in the meantime: that one counts.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::load_or_create(path, None),
            Err(source) => Err(SealError::Io { action: "made", path: path.to_owned(), source }),
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

/// Called before anything secret is read. From now on the system writes no memory of this process to disk when it dies, and lets no other process of the user read it.
/// Processes that we start are not bound by the second part.
///
/// # Errors
/// The system's, where it refuses.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A handler that the kernel pipes dumps to (systemd-coredump) does not ask for the limit; it respects this.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// The file is there whole or not at all, also after a power cut; one that exists is not touched.
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

/// What a seal is bound to.
fn associated_data(id: KeyId, place: &str) -> Vec<u8> {
    [&[VERSION], &id.0[..], place.as_bytes()].concat()
}

/// One step of HKDF-Expand (RFC 5869): the key is uniformly random already, and one block is what we need.
fn derive(key: &[u8; 32], label: &str) -> Zeroizing<[u8; 32]> {
    // HMAC pads a short key with zeros to the hash's block; done here, there is no length that could be wrong.
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<sha2::Sha256>::new((&*block).into());
    mac.update(b"beespace ");
    mac.update(label.as_bytes());
    mac.update(&[1]);
    Zeroizing::new(mac.finalize().into_bytes().into())
}
