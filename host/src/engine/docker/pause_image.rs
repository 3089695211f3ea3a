//! The image of pause containers: our own program `beespace-pause` and a directory for the workspace, without anything else.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::engine::EngineError;

/// The program `beespace-pause` (`host/pause`) for the architecture of this host.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/beespace-pause"));

/// The path of the program in the image.
pub(super) const PATH: &str = "/beespace-pause";

/// The first bytes of the program's digest, which are part of the image's name.
pub(super) static DIGEST: LazyLock<String> = LazyLock::new(|| {
    let mut digest = hex::encode(Sha256::digest(PROGRAM));
    digest.truncate(16);
    digest
});

/// The image's one layer as a tar. The directory where a workspace is mounted is open to every user, because an engine gives a
/// new volume the mode of the directory that it first covers.
pub(super) fn layer() -> Result<Vec<u8>, EngineError> {
    let mut tar = Builder::new(Vec::new());
    let mut entry = |path: &str, kind: EntryType, mode: u32, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, path, bytes)
    };
    entry("beespace-pause", EntryType::Regular, 0o755, PROGRAM)?;
    entry("workspace/", EntryType::Directory, 0o777, &[])?;
    Ok(tar.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_program_prints_the_rule_that_it_cannot_apply_and_exits() {
        for rule in ["block nonsense", "allow 10.0.0.0/x", "block", "dance 10.0.0.0/8"] {
            let program = concat!(env!("OUT_DIR"), "/beespace-pause");
            let exited = std::process::Command::new(program).args(rule.split(' ')).output().unwrap();
            assert_eq!((exited.status.code(), String::from_utf8(exited.stdout).unwrap()), (Some(3), format!("cannot {rule}\n")));
        }
    }

    #[test]
    fn the_pause_program_is_static_and_small() {
        assert!(PROGRAM.starts_with(b"\x7fELF"));
        assert!(PROGRAM.len() <= 1_000_000, "{} bytes", PROGRAM.len());
        assert!(!PROGRAM.windows(11).any(|window| window == b"/lib64/ld-l"), "it needs a dynamic linker");
    }
}
