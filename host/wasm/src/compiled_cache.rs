//! The cache of compiled components on disk, which reduces the start of the server from seconds to milliseconds.
//!
//! Compiled code is machine code that runs unchecked. It is therefore never accepted from outside. The cache directory is
//! accessible only to the server's user, and each file carries an HMAC, under a key of the server, over exactly the bytes that
//! are loaded. A file whose HMAC does not match is deleted, and the component is compiled again.

use std::hash::{Hash as _, Hasher};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use beespace_core::digest::Digest;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

const TAG_LEN: usize = 32;

/// The directory of the cache and the key that authenticates its files.
#[derive(Clone)]
pub struct CacheOptions {
    /// The cache directory. It is created with mode 0700 if it is missing.
    pub dir: PathBuf,
    /// The HMAC key: at least 32 secret bytes.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for CacheOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheOptions").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// The open cache.
#[derive(Debug)]
pub(crate) struct AotCache {
    options: CacheOptions,
    /// Digest of the engine's settings and version. It is part of the file names, so files of another engine are never loaded.
    compatibility: Digest,
}

impl AotCache {
    pub(crate) fn open(options: CacheOptions, engine: &Engine) -> Result<Self, String> {
        if options.key.len() < TAG_LEN {
            return Err(format!("the key of the plugin cache has {} bytes; at least {TAG_LEN} are required", options.key.len()));
        }
        let dir = options.dir.display();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&options.dir)
            .map_err(|error| format!("the plugin cache {dir} cannot be created: {error}"))?;
        let metadata = std::fs::metadata(&options.dir).map_err(|error| format!("the plugin cache {dir}: {error}"))?;
        if metadata.mode() & 0o077 != 0 || metadata.uid() != own_uid() {
            return Err(format!(
                "the plugin cache {dir} holds machine code, so it must be owned by the server's user and closed to others: \
                 chown it and `chmod 700 {dir}`"
            ));
        }
        let mut hash = StableHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hash);
        let cache = Self { compatibility: Digest(hash.0.finalize().into()), options };
        cache.remove_stale_files();
        Ok(cache)
    }

    /// Deletes files of other engines and unfinished files that a crash left behind. A file that cannot be deleted is harmless.
    fn remove_stale_files(&self) {
        let ending = format!(".{}.cwasm", self.compatibility.hex());
        for entry in std::fs::read_dir(&self.options.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if (name.ends_with(".cwasm") && !name.ends_with(&ending)) || name.ends_with(".part") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Loads the compiled component if the cache has an intact copy.
    pub(crate) fn load(&self, engine: &Engine, component: Digest) -> Option<Component> {
        let path = self.path(component);
        let bytes = std::fs::read(&path).ok()?;
        match self.verified(component, &bytes).and_then(|code| deserialize(engine, code)) {
            Some(component) => Some(component),
            None => {
                tracing::warn!(path = %path.display(), "a compiled plugin in the cache is damaged; compiling it again");
                let _ = std::fs::remove_file(&path);
                None
            }
        }
    }

    /// Stores a compiled component. A failure is logged only, because the component can run without the cache.
    pub(crate) fn store(&self, digest: Digest, component: &Component) {
        let stored = component
            .serialize()
            .map_err(|error| std::io::Error::other(format!("{error:#}")))
            .and_then(|code| self.write(digest, &code));
        if let Err(error) = stored {
            tracing::warn!(dir = %self.options.dir.display(), "a compiled plugin could not be cached: {error}");
        }
    }

    fn write(&self, digest: Digest, code: &[u8]) -> std::io::Result<()> {
        let path = self.path(digest);
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let unfinished = path.with_extension(format!("{}.part", hex::encode(random)));
        let written = self.write_file(&unfinished, digest, code).and_then(|()| std::fs::rename(&unfinished, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
        written?;
        std::fs::File::open(&self.options.dir)?.sync_all()
    }

    fn write_file(&self, path: &Path, digest: Digest, code: &[u8]) -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let tag = self.mac(digest, code).map_err(std::io::Error::other)?.finalize().into_bytes();
        file.write_all(&tag)?;
        file.write_all(code)?;
        file.sync_all()
    }

    fn path(&self, component: Digest) -> PathBuf {
        self.options.dir.join(format!("{}.{}.cwasm", component.hex(), self.compatibility.hex()))
    }

    fn verified<'a>(&self, component: Digest, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (tag, code) = bytes.split_at_checked(TAG_LEN)?;
        self.mac(component, code).ok()?.verify_slice(tag).ok()?;
        Some(code)
    }

    fn mac(&self, component: Digest, code: &[u8]) -> Result<Hmac<Sha256>, hmac::digest::InvalidLength> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.options.key)?;
        Ok(mac.chain_update(component.0).chain_update(self.compatibility.0).chain_update(code))
    }
}

#[expect(unsafe_code, reason = "the bytes carry the server's MAC, which is verified over the copy in memory, not over the file")]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `code` is the output of `Component::serialize`: it is covered by a MAC whose key only the server knows.
    unsafe { Component::deserialize(engine, code) }.ok()
}

#[expect(unsafe_code, reason = "std has no way to ask for the effective user")]
fn own_uid() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// A hasher whose result is stable. Those of `std` may change with the compiler, but file names must not.
struct StableHasher(Sha256);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
