//! The files that the host puts into a container: its script and its secrets. A script without secrets is stored with the other
//! scripts of its stage, in a volume that the stage's containers mount read-only. All other files are in volumes, one for each
//! directory, that only this container mounts, read-only, and that are removed when the step is released.

use std::collections::BTreeMap;

use beespace_core::baseline_policy::is_mountable;
use beespace_core::plan::{Container, SecretTarget};
use beespace_core::script::{is_variable_name, quote};
use secrecy::{ExposeSecret as _, SecretString};

use crate::engine::EngineError;
use crate::engine::container_io::Launch;
use crate::engine::tar_stream::HostFile;

/// The directory for the host's own files. No plan can mount anything here.
pub(super) const HOST_DIRECTORY: &str = "/.beespace";

/// The beginning of every script. Git refuses to work in the workspace of another user, and a program that is started without the
/// container's variables (`su -`, `env -i`) does not see the setting there. Root therefore writes it to the system's
/// configuration in the container. It has no effect for another user or without git, prints nothing, and leaves the script's line
/// numbers alone.
const TRUST_WORKSPACE: &str = r"{ printf '\n[safe]\n\tdirectory = *\n' >>/etc/gitconfig; } 2>/dev/null || :; ";

/// The files of one directory.
#[derive(Default)]
pub(super) struct Directory {
    files: BTreeMap<String, Vec<u8>>,
}

/// A container's files by directory, and the variables and the command that its start needs.
#[derive(Default)]
pub(super) struct InjectedFiles {
    pub(super) directories: BTreeMap<String, Directory>,
    /// Secrets that are variables of the container itself.
    pub(super) env: BTreeMap<String, String>,
    /// The command that runs the script, if there is one.
    pub(super) command: Option<Vec<String>>,
}

impl InjectedFiles {
    /// Collects a container's script, under `script_name`, and its secrets. `Err` is a text for people: the container cannot be
    /// started.
    pub(super) fn pack(
        container: &Container,
        secrets: &BTreeMap<String, SecretString>,
        script_name: &str,
    ) -> Result<Self, String> {
        let mut files = Self::default();
        let mut exports = String::new();
        for mount in &container.secrets {
            let missing = || format!("the secret {:?} was not provided to the container", mount.secret);
            let value = secrets.get(&mount.secret).ok_or_else(missing)?.expose_secret();
            match &mount.target {
                SecretTarget::File(path) => files.add_file(path, value.as_bytes().to_vec())?,
                SecretTarget::Env(name) if value.contains('\0') => {
                    return Err(format!(
                        "the secret {:?} contains a NUL byte, which an environment variable cannot hold ({name})",
                        mount.secret
                    ));
                }
                SecretTarget::Env(name) if container.script.is_some() => {
                    if !is_variable_name(name) {
                        return Err(format!("{name:?} is not a valid variable name: use letters, digits and `_`"));
                    }
                    exports.push_str(&format!("export {name}={}\n", quote(value)));
                }
                SecretTarget::Env(name) => {
                    files.env.insert(name.clone(), value.to_owned());
                }
            }
        }
        if let Some(script) = &container.script {
            let path = format!("{HOST_DIRECTORY}/{script_name}");
            files.add_file(&path, format!("{TRUST_WORKSPACE}{script}").into_bytes())?;
            let mut command = container.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-e".to_owned()]);
            command.push(path);
            if !exports.is_empty() {
                files.add_file(&format!("{HOST_DIRECTORY}/secrets"), exports.into_bytes())?;
                let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
                let load = format!(". {HOST_DIRECTORY}/secrets && exec {}", words.join(" "));
                command = vec!["/bin/sh".to_owned(), "-c".to_owned(), load];
            }
            files.command = Some(command);
        }
        Ok(files)
    }

    /// The script, if it is the only file: then nothing must be hidden from the stage's other containers.
    pub(super) fn sole_script(&self) -> Option<HostFile> {
        let is_alone = self.command.is_some() && self.directories.keys().eq([HOST_DIRECTORY]);
        let (script, other) = (self.files().next(), self.files().nth(1));
        script.filter(|_| is_alone && other.is_none())
    }

    fn add_file(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), String> {
        let invalid = || format!("{path:?} cannot hold a file: use an absolute path outside the system's directories");
        let (directory, name) = path.rsplit_once('/').ok_or_else(invalid)?;
        if name.is_empty() || name == "." || name == ".." || (directory != HOST_DIRECTORY && !is_mountable(directory)) {
            return Err(invalid());
        }
        self.directories.entry(directory.to_owned()).or_default().files.insert(name.to_owned(), bytes);
        Ok(())
    }

    pub(super) fn files(&self) -> impl Iterator<Item = HostFile> {
        self.directories.iter().flat_map(|(directory, content)| {
            let file =
                move |(name, bytes): (&String, &Vec<u8>)| HostFile { path: format!("{directory}/{name}"), bytes: bytes.clone() };
            content.files.iter().map(file)
        })
    }
}

/// The index of a launch's container in its plan.
pub(super) fn container_index(launch: &Launch) -> Result<usize, EngineError> {
    let container = launch.container()?;
    let index = launch.plan.get().containers.iter().position(|other| other.id == container.id);
    Ok(index.unwrap_or_default())
}

/// The name of a container's script among the scripts of its stage. The shell prints it in error messages.
pub(super) fn script_name(launch: &Launch, index: usize) -> String {
    let (step, attempt) = (launch.step.step, launch.step.attempt);
    match (attempt, index) {
        (1, 0) => format!("script-{step}"),
        _ => format!("script-{step}.{attempt}.{index}"),
    }
}

/// The script of a launch, if it is the only file of its container. Files that cannot be packed are reported when the container
/// is started.
pub(super) fn sole_script(launch: &Launch) -> Result<Option<HostFile>, EngineError> {
    let name = script_name(launch, container_index(launch)?);
    let files = InjectedFiles::pack(launch.container()?, &launch.secrets, &name);
    Ok(files.ok().and_then(|files| files.sole_script()))
}

#[cfg(test)]
mod tests {
    use beespace_core::plan::SecretMount;

    use super::*;

    fn container(script: Option<&str>, target: SecretTarget) -> Container {
        let mut container: Container = serde_json::from_value(serde_json::json!({ "id": "step", "image": "x" })).unwrap();
        container.script = script.map(str::to_owned);
        container.secrets = vec![SecretMount { secret: "s".to_owned(), target }];
        container
    }

    fn secrets() -> BTreeMap<String, SecretString> {
        BTreeMap::from([("s".to_owned(), SecretString::from("it's"))])
    }

    fn pack(container: &Container) -> Result<InjectedFiles, String> {
        InjectedFiles::pack(container, &secrets(), "script")
    }

    #[test]
    fn secrets_of_a_script_are_not_in_the_containers_environment() {
        let files = pack(&container(Some("true"), SecretTarget::Env("A".to_owned()))).unwrap();
        assert!(files.env.is_empty());
        let files = &files.directories[HOST_DIRECTORY].files;
        assert_eq!(files["secrets"], b"export A='it'\\''s'\n");
        assert_eq!(files["script"], format!("{TRUST_WORKSPACE}true").into_bytes());
    }

    #[test]
    fn the_shell_of_a_script_keeps_its_options() {
        let mut container = container(Some("true"), SecretTarget::Env("A".to_owned()));
        container.shell = Some(["bash", "-eo", "pipefail"].map(str::to_owned).to_vec());
        let command = |container: &Container| pack(container).unwrap().command.unwrap().join(" ");
        assert_eq!(command(&container), "/bin/sh -c . /.beespace/secrets && exec 'bash' '-eo' 'pipefail' '/.beespace/script'");
        container.secrets.clear();
        assert_eq!(command(&container), "bash -eo pipefail /.beespace/script");
    }

    #[test]
    fn a_script_is_the_only_file_if_no_secret_is_a_file() {
        let is_sole = |script, target| pack(&container(script, target)).unwrap().sole_script().is_some();
        assert!(!is_sole(Some("true"), SecretTarget::Env("A".to_owned())));
        assert!(!is_sole(Some("true"), SecretTarget::File("/run/secrets/x".to_owned())));
        assert!(!is_sole(None, SecretTarget::Env("A".to_owned())));
        let mut plain = container(Some("true"), SecretTarget::Env("A".to_owned()));
        plain.secrets.clear();
        let script = pack(&plain).unwrap().sole_script().unwrap();
        assert_eq!(script.path, "/.beespace/script");
        assert_eq!(script.bytes, format!("{TRUST_WORKSPACE}true").into_bytes());
    }

    #[test]
    fn a_missing_secret_prevents_the_start() {
        let container = container(None, SecretTarget::Env("A".to_owned()));
        let error = InjectedFiles::pack(&container, &BTreeMap::new(), "script").err().unwrap();
        assert_eq!(error, "the secret \"s\" was not provided to the container");
    }

    #[test]
    fn files_never_cover_the_systems_directories() {
        for path in [
            "/etc/x",
            "/x",
            "x",
            "/run/../etc/x",
            "/bin/x",
            "/usr/bin/x",
            "/proc/1/x",
            "/.beespace/x/y",
            "/run/s/..",
            "/run/s/",
            "/a:b/c",
        ] {
            assert!(pack(&container(None, SecretTarget::File(path.to_owned()))).is_err(), "{path}");
        }
        for path in ["/run/secrets/x", "/etc/app/key", "/workspace/.key/x", "/root/.ssh/id"] {
            assert!(pack(&container(None, SecretTarget::File(path.to_owned()))).is_ok(), "{path}");
        }
    }
}
