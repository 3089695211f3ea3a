//! From a container of a plan to the body of Docker's `create`. This module lists every option that a container can have; a plan
//! cannot request more.

use std::collections::{BTreeMap, HashMap};

use beespace_core::baseline_policy::is_mountable;
use beespace_core::digest::{Digest, canonical_json};
use beespace_core::plan::{Container, MountSource, Network, WORKSPACE};
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountVolumeOptions};

use super::deferred_start::{may_defer, wait_for_start_signal};
use super::images::ImageFacts;
use super::injected_files::InjectedFiles;
use super::mounts::volume_mount;
use super::names::{Labels, mark_deferred_start};
use super::options::DockerOptions;
use crate::engine::container_io::Launch;
use crate::engine::tar_stream::HostFile;

/// The capabilities that are added back after all are dropped. Package managers, `su`, `chown` and databases in images need them,
/// and none of them has an effect outside the container.
const CAPABILITIES: [&str; 8] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "KILL", "NET_BIND_SERVICE"];

/// The inputs of `create` besides the plan.
pub(super) struct CreateContext<'a> {
    pub(super) options: &'a DockerOptions,
    pub(super) image: &'a ImageFacts,
    /// The stage's workspace volume.
    pub(super) workspace: &'a str,
    pub(super) workspace_labels: Labels,
    /// The stage's network, and its pause container of the same name.
    pub(super) network: &'a str,
    /// The container's name. The names of the volumes with its files begin with it.
    pub(super) name: &'a str,
    pub(super) labels: Labels,
    /// The labels of the volumes with its files.
    pub(super) file_labels: Labels,
    /// The volume with the scripts of the stage.
    pub(super) scripts: Mount,
    /// The name of the container's script in that volume.
    pub(super) script_name: &'a str,
    /// Whether the engine can run an init process in a container.
    pub(super) init: bool,
}

/// The complete request to the engine for one container.
pub(super) struct ContainerSpec {
    pub(super) body: ContainerCreateBody,
    pub(super) upload: FileUpload,
}

/// The container's files, and the volumes to which they are uploaded.
pub(super) enum FileUpload {
    None,
    /// To the scripts of the stage.
    SharedScript(HostFile),
    /// To volumes that only this container mounts.
    OwnVolumes {
        mounts: Vec<Mount>,
        files: Vec<HostFile>,
    },
}

impl ContainerSpec {
    /// Whether the container's program waits for the start signal.
    pub(super) fn is_deferred(&self) -> bool {
        self.body.open_stdin == Some(true)
    }

    /// Equal for two specifications that lead to the same container.
    pub(super) fn digest(&self) -> Digest {
        // A body that cannot be written as JSON cannot be sent to the engine either.
        let body = canonical_json(&serde_json::to_value(&self.body).unwrap_or_default());
        let files = match &self.upload {
            FileUpload::None => &[][..],
            FileUpload::SharedScript(script) => std::slice::from_ref(script),
            FileUpload::OwnVolumes { files, .. } => files,
        };
        let files = files.iter().flat_map(|file| [file.path.as_bytes(), &file.bytes]);
        Digest::of_parts(std::iter::once(body.as_bytes()).chain(files))
    }
}

impl CreateContext<'_> {
    /// The volume with the files of one directory.
    fn file_volume(&self, index: usize) -> String {
        format!("{}-files-{index}", self.name)
    }

    /// The volumes with the container's files. The engine creates them, with their labels, with the first container that mounts
    /// them.
    fn file_mounts(&self, files: &InjectedFiles) -> Vec<Mount> {
        if files.sole_script().is_some() {
            return vec![self.scripts.clone()];
        }
        let directories = files.directories.keys().enumerate();
        let mounts = directories.map(|(index, directory)| volume_mount(&self.file_volume(index), directory, true));
        let options = MountVolumeOptions { labels: Some(self.file_labels.clone()), no_copy: Some(true), ..Default::default() };
        mounts.map(|mount| Mount { volume_options: Some(options.clone()), ..mount }).collect()
    }

    /// The specification of a container. `Err` is a text for people: the container cannot be started.
    pub(super) fn spec(self, launch: &Launch, container: &Container) -> Result<ContainerSpec, String> {
        check_image(self.image, container)?;
        check_host_access(container)?;
        let files = InjectedFiles::pack(container, &launch.secrets, self.script_name)?;
        let mounts = self.file_mounts(&files);
        let upload = if let Some(script) = files.sole_script() {
            FileUpload::SharedScript(script)
        } else if mounts.is_empty() {
            FileUpload::None
        } else {
            let writable = mounts.iter().cloned().map(|mount| Mount { read_only: Some(false), ..mount });
            FileUpload::OwnVolumes { mounts: writable.collect(), files: files.files().collect() }
        };
        Ok(ContainerSpec { body: self.body(launch, container, files, mounts)?, upload })
    }

    fn body(
        self,
        launch: &Launch,
        container: &Container,
        files: InjectedFiles,
        file_mounts: Vec<Mount>,
    ) -> Result<ContainerCreateBody, String> {
        let mut mounts = workspace_mounts(self.workspace, container)?;
        // `no_copy`: the image's own files at that path are not copied into the volume. The labels count if the volume has just
        // been removed, because the engine then creates it again.
        let options = MountVolumeOptions { labels: Some(self.workspace_labels), no_copy: Some(true), ..Default::default() };
        for mount in &mut mounts {
            mount.volume_options = Some(options.clone());
        }
        mounts.extend(file_mounts);
        let network = network_mode(container.network, self.network)?;
        let env = environment(launch, container, files.env);
        let all_env: Vec<&str> = self.image.env.iter().chain(&env).map(String::as_str).collect();
        let is_deferred = files.command.is_some() && may_defer(&all_env, container.workdir.as_deref(), &mounts, self.workspace);
        let mut labels = self.labels;
        let mut command = files.command.clone();
        if is_deferred {
            mark_deferred_start(&mut labels);
            command = command.map(wait_for_start_signal);
        }
        let memory = saturating_i64(container.limits.memory_bytes.unwrap_or(self.options.memory));
        Ok(ContainerCreateBody {
            image: Some(self.image.pinned.clone()),
            env: Some(env),
            entrypoint: command.or_else(|| container.entrypoint.clone()),
            open_stdin: Some(is_deferred),
            // The engine closes the input when the connection that was attached before the start ends.
            stdin_once: Some(is_deferred),
            cmd: if files.command.is_some() { None } else { container.args.clone() },
            working_dir: Some(container.workdir.clone().unwrap_or_else(|| WORKSPACE.to_owned())),
            user: container.user.clone(),
            labels: Some(labels),
            host_config: Some(HostConfig {
                mounts: Some(mounts),
                network_mode: Some(network),
                memory: Some(memory),
                // The same as `memory`: no swap.
                memory_swap: Some(memory),
                pids_limit: Some(container.limits.pids.unwrap_or(self.options.pids).into()),
                nano_cpus: container.limits.cpu_millis.or(self.options.cpu_millis).map(|millis| i64::from(millis) * 1_000_000),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                init: Some(self.init),
                tmpfs: tmpfs_options(container),
                log_config: Some(log_config(self.options.log_bytes)),
                ..Default::default()
            }),
            ..Default::default()
        })
    }
}

/// The engine's own copy of the output, in one file that is not rotated while we read it. `local` is not used because it loses
/// the end of output that is followed, and `none` because it can block a container forever.
fn log_config(bytes: u64) -> HostConfigLogConfig {
    // Twice the size, because JSON represents some bytes as six.
    let size = bytes.saturating_mul(2).max(1 << 20);
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some([("max-size".to_owned(), size.to_string()), ("max-file".to_owned(), "1".to_owned())].into()),
    }
}

fn network_mode(network: Network, stage: &str) -> Result<String, String> {
    match network {
        Network::BuildDefault => Ok(format!("container:{stage}")),
        Network::None => Ok("none".to_owned()),
        Network::Host => Err("the network of the engine's machine is not available to steps".to_owned()),
        Network::EgressAllowList => Err("an allow-list for the container's network is not supported yet".to_owned()),
    }
}

/// The baseline policy denies what gives access to the engine's machine; this engine cannot grant it either.
fn check_host_access(container: &Container) -> Result<(), String> {
    if container.privileged || !container.devices.is_empty() {
        return Err("privileged containers and devices are not available to steps".to_owned());
    }
    Ok(())
}

/// Whether a container can be created from an image. `Err` is a text for people.
fn check_image(image: &ImageFacts, container: &Container) -> Result<(), String> {
    let mounts = container.mounts.iter().filter(|mount| mount.source == MountSource::Workspace);
    let mounts: Vec<&str> = mounts.map(|mount| mount.path.as_str()).chain([WORKSPACE]).collect();
    let is_hiding = |volume: &&String| {
        let volume = volume.trim_end_matches('/');
        let is_below = |mount: &&str| volume.strip_prefix(mount.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'));
        !mounts.contains(&volume) && mounts.iter().any(is_below)
    };
    if let Some(volume) = image.volumes.iter().find(is_hiding) {
        return Err(format!(
            "the image {} has a `VOLUME {volume}`, which would hide that directory of the workspace from this step: build an \
             image without it, or use another one",
            container.image
        ));
    }
    let has_words = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
    let is_given = container.script.is_some() || has_words(&container.entrypoint) || has_words(&container.args);
    if is_given || image.has_command { Ok(()) } else { Err(nothing_to_run(&container.image)) }
}

/// The text for a step without a command whose image has none either.
pub(super) fn nothing_to_run(image: &str) -> String {
    format!(
        "there is nothing to run: the image {image} has no command of its own; add `run`, or `entrypoint` and `args`, to the step"
    )
}

fn workspace_mounts(workspace: &str, container: &Container) -> Result<Vec<Mount>, String> {
    let mut mounts = BTreeMap::from([(WORKSPACE, false)]);
    for mount in &container.mounts {
        match mount.source {
            MountSource::Workspace => {}
            MountSource::Cache { .. } => return Err(format!("caches are not supported yet ({})", mount.path)),
            MountSource::Volume(_) => return Err(format!("volumes of other containers are not supported yet ({})", mount.path)),
        }
        if !is_mountable(&mount.path) {
            return Err(format!("{:?} is not a valid mount path", mount.path));
        }
        mounts.insert(&mount.path, mount.read_only);
    }
    Ok(mounts.into_iter().map(|(path, read_only)| volume_mount(workspace, path, read_only)).collect())
}

/// The options of a container's directories in memory. Programs may run from them, unlike from those of Docker's default.
fn tmpfs_options(container: &Container) -> Option<HashMap<String, String>> {
    let options = |size: &Option<u64>| {
        let size = size.map_or(String::new(), |bytes| format!(",size={bytes}"));
        format!("rw,exec,nosuid,nodev,mode=1777{size}")
    };
    let mounts = container.tmpfs.iter().map(|(path, size)| (path.clone(), options(size)));
    (!container.tmpfs.is_empty()).then(|| mounts.collect())
}

fn environment(launch: &Launch, container: &Container, secrets: BTreeMap<String, String>) -> Vec<String> {
    let mut env: BTreeMap<String, String> = launch.env.clone();
    env.extend(container.env.clone());
    trust_workspace(&mut env);
    env.extend(secrets);
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Adds `safe.directory` to the git settings in the variables. Root owns the files of the workspace, and git refuses to work for
/// any other user without this setting. An invalid count stays as it is, and git reports it.
fn trust_workspace(env: &mut BTreeMap<String, String>) {
    const COUNT: &str = "GIT_CONFIG_COUNT";
    let count = env.get(COUNT).map_or(Some(0), |count| count.parse::<u16>().ok());
    if let Some((count, next)) = count.and_then(|count| Some((count, count.checked_add(1)?))) {
        env.insert(format!("GIT_CONFIG_KEY_{count}"), "safe.directory".to_owned());
        env.insert(format!("GIT_CONFIG_VALUE_{count}"), "*".to_owned());
        env.insert(COUNT.to_owned(), next.to_string());
    }
}

fn saturating_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_trusted_beside_the_users_own_git_settings() {
        let trusted = |own: &[(&str, &str)]| {
            let mut env = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            trust_workspace(&mut env);
            env.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let first = ["GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"];
        assert_eq!(trusted(&[]), first);
        let own = [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "user.name"), ("GIT_CONFIG_VALUE_0", "ci")];
        let both = [
            "GIT_CONFIG_COUNT=2",
            "GIT_CONFIG_KEY_0=user.name",
            "GIT_CONFIG_KEY_1=safe.directory",
            "GIT_CONFIG_VALUE_0=ci",
            "GIT_CONFIG_VALUE_1=*",
        ];
        assert_eq!(trusted(&own), both);
        assert_eq!(trusted(&[("GIT_CONFIG_COUNT", "many")]), ["GIT_CONFIG_COUNT=many"]);
    }

    fn container(json: serde_json::Value) -> Container {
        let mut all = serde_json::json!({ "id": "step", "image": "tool:1" });
        all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn image(volumes: &[&str], has_command: bool) -> ImageFacts {
        let volumes = volumes.iter().map(|volume| (*volume).to_owned()).collect();
        ImageFacts { pinned: "sha256:1d".to_owned(), env: Vec::new(), volumes, has_command }
    }

    #[test]
    fn a_volume_of_the_image_never_hides_a_part_of_the_workspace() {
        let run = container(serde_json::json!({ "script": "true" }));
        let check = |volumes: &[&str], container: &Container| check_image(&image(volumes, true), container);
        for volumes in [&["/workspace"][..], &["/workspace/"], &["/workspaces/x", "/data"], &[]] {
            assert_eq!(check(volumes, &run), Ok(()), "{volumes:?}");
        }
        assert!(check(&["/data", "/workspace/cache"], &run).unwrap_err().contains("`VOLUME /workspace/cache`"));
        let mount = |path: &str| serde_json::json!({ "source": "workspace", "path": path });
        let second = container(serde_json::json!({ "script": "true", "mounts": [mount("/src"), mount("/workspace/cache")] }));
        assert!(check(&["/src/target"], &second).unwrap_err().contains("/src/target"));
        assert_eq!(check(&["/src", "/workspace/cache"], &second), Ok(()));
    }

    #[test]
    fn a_step_without_anything_to_run_is_refused_with_the_remedy() {
        let check = |has_command, json| check_image(&image(&[], has_command), &container(json));
        assert!(check(false, serde_json::json!({})).unwrap_err().contains("add `run`"));
        for json in [serde_json::json!({ "script": "x" }), serde_json::json!({ "args": ["x"] })] {
            assert_eq!(check(false, json), Ok(()));
        }
        assert_eq!(check(true, serde_json::json!({})), Ok(()));
    }
}
