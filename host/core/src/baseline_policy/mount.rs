//! Rules for the paths of a container's mounts and secrets.

use std::collections::BTreeSet;

use super::{Findings, LocatedContainer, StepBounds};
use crate::plan::{MountSource, SecretTarget};

/// Directories of the kernel, of Beespace and of programs: nothing may be mounted over them or inside them. If a mount replaced
/// the programs, the container would not be the one that the policies have seen.
const RESERVED_DIRECTORIES: [&str; 14] = [
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/local/bin",
    "/.beespace",
];

/// Directories that every container needs: nothing may be mounted over them, but a directory inside them may be mounted.
const REQUIRED_DIRECTORIES: [&str; 5] = ["/", "/etc", "/run", "/usr", "/var"];

/// The directory of shared memory, which is a `tmpfs` in every container.
const SHARED_MEMORY: &str = "/dev/shm";

pub(super) fn check(site: &LocatedContainer<'_>, bounds: &StepBounds, findings: &mut Findings) {
    let mut taken = BTreeSet::new();
    for (number, mount) in site.container.mounts.iter().enumerate() {
        let pointer = site.pointer_to(&format!("mounts/{number}/path"));
        check_mount_path(&mount.path, &pointer, &mut taken, findings);
        let kind = match &mount.source {
            MountSource::Workspace => continue,
            MountSource::Cache { .. } => "cache",
            MountSource::Volume(_) => "volume",
        };
        let message = format!("A {kind} is mounted at {:?}; this version supports only mounts of the workspace", mount.path);
        findings.add("not-yet", site.pointer_to(&format!("mounts/{number}/source")), message, "Remove the mount");
    }
    for path in site.container.tmpfs.keys() {
        let pointer = site.pointer_to(&format!("tmpfs/{}", path.replace('~', "~0").replace('/', "~1")));
        // A program may need more shared memory than the engine's default.
        if path != SHARED_MEMORY {
            check_mount_path(path, &pointer, &mut taken, findings);
        }
    }
    for (number, mount) in site.container.secrets.iter().enumerate() {
        let pointer = site.pointer_to(&format!("secrets/{number}"));
        if !bounds.secrets.contains(&mount.secret) {
            let message =
                format!("The plan requests the secret {:?}, which the pipeline does not pass to this step", mount.secret);
            let remedy = "Pass the secret in the step's `env` with `from_secret`";
            findings.add("secret-not-passed", format!("{pointer}/secret"), message, remedy);
        }
        if let SecretTarget::File(target) = &mount.target {
            check_secret_file(target, &format!("{pointer}/target"), &mut taken, findings);
        }
    }
}

/// Whether a volume may be mounted at `path` in a container.
#[must_use]
pub fn is_mountable(path: &str) -> bool {
    let is_reserved =
        REQUIRED_DIRECTORIES.contains(&path) || RESERVED_DIRECTORIES.iter().any(|reserved| is_within(path, reserved));
    // A `:` is not allowed, because engines write mounts as `source:path:options`.
    is_plain_absolute(path) && !path.contains(':') && !is_reserved
}

fn check_mount_path<'a>(path: &'a str, pointer: &str, taken: &mut BTreeSet<&'a str>, findings: &mut Findings) {
    let problem =
        if is_mountable(path) { "is used twice" } else { "is a system path, is not absolute, or contains `:`, `.` or `..`" };
    if !is_mountable(path) || !taken.insert(path) {
        let message = format!("The mount path {path:?} {problem}");
        findings.add("mount-path", pointer.to_owned(), message, "Use another path, such as /cache or /workspace");
    }
}

/// A secret file is mounted together with its directory, so the directory must be mountable.
fn check_secret_file<'a>(file: &'a str, pointer: &str, taken: &mut BTreeSet<&'a str>, findings: &mut Findings) {
    let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
    if !is_plain_absolute(file) || !is_mountable(directory) || !taken.insert(file) {
        let message =
            format!("The secret cannot be written to {file:?}: the directory is a system path, or the file is used twice");
        findings.add("mount-path", pointer.to_owned(), message, "Use a separate directory, as in /secrets/token");
    }
}

/// `/a/b`, or `/` itself.
pub(super) fn is_plain_absolute(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    path.len() <= 4_096
        && !path.chars().any(char::is_control)
        && (rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

fn is_within(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
