//! Where a container's mounts and its secrets go.

use std::collections::BTreeSet;

use super::{Bounds, Findings, Site};
use crate::plan::{MountSource, SecretTarget};

/// Directories of the kernel, and our own: nothing is put over or into them.
const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev", "/.beespace"];

/// Directories that a container does not work without: nothing is put over them, though into them is fine.
const SYSTEM: [&str; 9] = ["/bin", "/boot", "/etc", "/lib", "/lib64", "/run", "/sbin", "/usr", "/var"];

pub(super) fn check(site: &Site<'_>, bounds: &Bounds, findings: &mut Findings) {
    let mut taken = BTreeSet::new();
    for (number, mount) in site.container.mounts.iter().enumerate() {
        let pointer = site.at(&format!("mounts/{number}/path"));
        path(&mount.path, &pointer, &mut taken, findings);
        let kind = match &mount.source {
            MountSource::Workspace => continue,
            MountSource::Cache { .. } => "cache",
            MountSource::Volume(_) => "volume",
        };
        let message =
            format!("A {kind} is mounted at {:?}; this version mounts the workspace only, not yet a {kind}", mount.path);
        findings.add("not-yet", site.at(&format!("mounts/{number}/source")), message, "Take the mount out");
    }
    for (number, mount) in site.container.secrets.iter().enumerate() {
        let pointer = site.at(&format!("secrets/{number}"));
        if !bounds.secrets.contains(&mount.secret) {
            let message =
                format!("The plan asks for the secret {:?}, which the pipeline does not pass to this step", mount.secret);
            let remedy = "Name it in the step's `env` with `from_secret`";
            findings.add("secret-not-passed", format!("{pointer}/secret"), message, remedy);
        }
        if let SecretTarget::File(target) = &mount.target {
            path(target, &format!("{pointer}/target"), &mut taken, findings);
        }
    }
}

fn path<'a>(path: &'a str, pointer: &str, taken: &mut BTreeSet<&'a str>, findings: &mut Findings) {
    let problem = if !is_plain_absolute(path) {
        Some("is not an absolute path without `.`, `..`, empty parts and control characters")
    } else if path == "/" || SYSTEM.contains(&path) || RESERVED.iter().any(|reserved| is_within(path, reserved)) {
        Some("belongs to the system")
    } else if !taken.insert(path) {
        Some("is used twice")
    } else {
        None
    };
    if let Some(problem) = problem {
        let message = format!("{path:?}, where the plan mounts something, {problem}");
        findings.add("mount-path", pointer.to_owned(), message, "Choose another path, such as /cache or /workspace");
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
