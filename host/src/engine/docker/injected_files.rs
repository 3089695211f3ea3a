//! What the host hands to a container as files: its script and its secrets. A script without secrets lies with the others of its stage, in a volume that
//! the stage's containers mount read-only. Everything else has a volume for each directory, that only this container mounts, read-only, and that
//! goes when the step is released.

use std::collections::BTreeMap;

use beespace_core::baseline_policy::is_mountable;
use beespace_core::plan::{Container, SecretTarget};
use beespace_core::script::{is_variable_name, quote};
use secrecy::{ExposeSecret as _, SecretString};

use crate::engine::tar_stream::HostFile;

/// Where the host puts what is its own. No plan can mount anything here.
pub(super) const HOST_DIRECTORY: &str = "/.beespace";

/// The files of one directory.
#[derive(Default)]
pub(super) struct Directory {
    files: BTreeMap<String, Vec<u8>>,
}

/// Parcels by their directory, and what of the secrets could not become one.
#[derive(Default)]
pub(super) struct InjectedFiles {
    pub(super) directories: BTreeMap<String, Directory>,
    /// Secrets that are variables of the container itself.
    pub(super) env: BTreeMap<String, String>,
    /// The command that runs the script, where there is one.
    pub(super) command: Option<Vec<String>>,
}

impl InjectedFiles {
    /// Packs a container's script, under this name, and secrets. `Err` is a sentence for people: the container cannot be started.
    pub(super) fn pack(
        container: &Container,
        secrets: &BTreeMap<String, SecretString>,
        script_name: &str,
    ) -> Result<Self, String> {
        let mut parcels = Self::default();
        let mut exports = String::new();
        for mount in &container.secrets {
            let value = secrets.get(&mount.secret).ok_or_else(|| format!("the secret {:?} was not given to it", mount.secret))?;
            let value = value.expose_secret();
            match &mount.target {
                SecretTarget::File(path) => parcels.add_file(path, value.as_bytes().to_vec())?,
                SecretTarget::Env(name) if value.contains('\0') => {
                    return Err(format!("the secret {:?} holds a NUL byte, which no variable can ({name})", mount.secret));
                }
                SecretTarget::Env(name) if container.script.is_some() => {
                    if !is_variable_name(name) {
                        return Err(format!("{name:?} is no name of a variable: expected letters, digits and `_`"));
                    }
                    exports.push_str(&format!("export {name}={}\n", quote(value)));
                }
                SecretTarget::Env(name) => {
                    parcels.env.insert(name.clone(), value.to_owned());
                }
            }
        }
        if let Some(script) = &container.script {
            let path = format!("{HOST_DIRECTORY}/{script_name}");
            parcels.add_file(&path, script.as_bytes().to_vec())?;
            let mut command = vec!["/bin/sh".to_owned(), "-e".to_owned(), path];
            if !exports.is_empty() {
                parcels.add_file(&format!("{HOST_DIRECTORY}/secrets"), exports.into_bytes())?;
                let load = format!(". {HOST_DIRECTORY}/secrets && exec {}", command.join(" "));
                command = vec!["/bin/sh".to_owned(), "-c".to_owned(), load];
            }
            parcels.command = Some(command);
        }
        Ok(parcels)
    }

    /// The script, where it is all there is: nothing that another container of the stage must not see.
    pub(super) fn sole_script(&self) -> Option<HostFile> {
        let is_alone = self.command.is_some() && self.directories.keys().eq([HOST_DIRECTORY]);
        let (script, other) = (self.files().next(), self.files().nth(1));
        script.filter(|_| is_alone && other.is_none())
    }

    fn add_file(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), String> {
        let unfit = || format!("{path:?} is no place for a file: expected an absolute path outside of the system's directories");
        let (directory, name) = path.rsplit_once('/').ok_or_else(unfit)?;
        if name.is_empty() || name == "." || name == ".." || (directory != HOST_DIRECTORY && !is_mountable(directory)) {
            return Err(unfit());
        }
        self.directories.entry(directory.to_owned()).or_default().files.insert(name.to_owned(), bytes);
        Ok(())
    }

    pub(super) fn files(&self) -> impl Iterator<Item = HostFile> {
        self.directories.iter().flat_map(|(directory, parcel)| {
            parcel.files.iter().map(move |(name, bytes)| HostFile { path: format!("{directory}/{name}"), bytes: bytes.clone() })
        })
    }
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

    #[test]
    fn secrets_of_a_script_are_not_in_its_environment() {
        let parcels =
            InjectedFiles::pack(&container(Some("true"), SecretTarget::Env("A".to_owned())), &secrets(), "script").unwrap();
        assert!(parcels.env.is_empty());
        let files = &parcels.directories[HOST_DIRECTORY].files;
        assert_eq!(files["secrets"], b"export A='it'\\''s'\n");
        assert_eq!(files["script"], b"true");
    }

    #[test]
    fn a_script_is_alone_where_no_secret_is_a_file_of_the_host() {
        let alone = |script, target| {
            InjectedFiles::pack(&container(script, target), &secrets(), "script").unwrap().sole_script().is_some()
        };
        assert!(!alone(Some("true"), SecretTarget::Env("A".to_owned())));
        assert!(!alone(Some("true"), SecretTarget::File("/run/secrets/x".to_owned())));
        assert!(!alone(None, SecretTarget::Env("A".to_owned())));
        let mut plain = container(Some("true"), SecretTarget::Env("A".to_owned()));
        plain.secrets.clear();
        let script = InjectedFiles::pack(&plain, &secrets(), "script").unwrap().sole_script().unwrap();
        assert_eq!((script.path.as_str(), script.bytes.as_slice()), ("/.beespace/script", &b"true"[..]));
    }

    #[test]
    fn a_secret_that_was_not_given_refuses_the_start() {
        let error =
            InjectedFiles::pack(&container(None, SecretTarget::Env("A".to_owned())), &BTreeMap::new(), "script").err().unwrap();
        assert_eq!(error, "the secret \"s\" was not given to it");
    }

    #[test]
    fn files_never_cover_what_is_the_systems() {
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
            let packed = InjectedFiles::pack(&container(None, SecretTarget::File(path.to_owned())), &secrets(), "script");
            assert!(packed.is_err(), "{path}");
        }
        for path in ["/run/secrets/x", "/etc/app/key", "/workspace/.key/x", "/root/.ssh/id"] {
            let packed = InjectedFiles::pack(&container(None, SecretTarget::File(path.to_owned())), &secrets(), "script");
            assert!(packed.is_ok(), "{path}");
        }
    }
}
