//! From a container of a plan to the body of Docker's `create`. Everything is listed here that a container can get; a plan has no way to ask for more.

use std::collections::BTreeMap;

use beespace_core::baseline_policy::is_mountable;
use beespace_core::digest::{Digest, canonical_json};
use beespace_core::plan::{Container, MountSource, Network, WORKSPACE};
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountVolumeOptions};

use super::DockerOptions;
use super::deferred_start::{may_defer, wait_for_start_signal};
use super::injected_files::InjectedFiles;
use super::names::{Labels, mark_deferred_start};
use super::stage::volume_mount;
use crate::engine::Launch;
use crate::engine::tar_stream::HostFile;

/// Given back after all are dropped: what package managers, `su`, `chown` and databases in images need, and nothing that reaches beyond the
/// container.
const CAPABILITIES: [&str; 8] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "KILL", "NET_BIND_SERVICE"];

/// What `create` needs to know besides the plan.
pub(super) struct CreateContext<'a> {
    pub(super) options: &'a DockerOptions,
    /// The stage's workspace.
    pub(super) workspace: &'a str,
    pub(super) workspace_labels: Labels,
    /// The holder of the stage's network.
    pub(super) network: &'a str,
    /// The container's name; its parcels' names begin with it.
    pub(super) name: &'a str,
    pub(super) labels: Labels,
    /// Of the volumes of its parcels.
    pub(super) file_labels: Labels,
    /// The scripts of the stage, and what its volume is made with.
    pub(super) scripts: Mount,
    /// What its own script is called there.
    pub(super) script_name: &'a str,
    pub(super) init: bool,
}

/// All that the engine is asked for one container.
pub(super) struct ContainerSpec {
    pub(super) body: ContainerCreateBody,
    pub(super) parcels: Freight,
}

/// What of a container's files is to be brought where.
pub(super) enum Freight {
    None,
    /// To the scripts of the stage.
    Script(HostFile),
    /// Into volumes of its own.
    OwnVolumes(Vec<Mount>, Vec<HostFile>),
}

impl ContainerSpec {
    /// Whether its container begins with waiting for its turn.
    pub(super) fn waits(&self) -> bool {
        self.body.open_stdin == Some(true)
    }

    /// The same for two orders that lead to the same container.
    pub(super) fn digest(&self) -> Digest {
        // A body that is no JSON is none that the engine could be asked for.
        let body = canonical_json(&serde_json::to_value(&self.body).unwrap_or_default());
        let files = match &self.parcels {
            Freight::None => &[][..],
            Freight::Script(script) => std::slice::from_ref(script),
            Freight::OwnVolumes(_, files) => files,
        };
        let files = files.iter().flat_map(|file| [file.path.as_bytes(), &file.bytes]);
        Digest::of_parts(std::iter::once(body.as_bytes()).chain(files))
    }
}

impl CreateContext<'_> {
    /// The volume of the parcel at a place.
    pub(super) fn file_volume(&self, place: usize) -> String {
        format!("{}-files-{place}", self.name)
    }

    /// Volumes that come into being, and carry their labels, with the first container that mounts them.
    fn file_mounts(&self, parcels: &InjectedFiles) -> Vec<Mount> {
        if parcels.sole_script().is_some() {
            return vec![self.scripts.clone()];
        }
        let directories = parcels.directories.keys().enumerate();
        let mounts = directories.map(|(place, directory)| volume_mount(&self.file_volume(place), directory, true));
        let options = MountVolumeOptions { labels: Some(self.file_labels.clone()), no_copy: Some(true), ..Default::default() };
        mounts.map(|mount| Mount { volume_options: Some(options.clone()), ..mount }).collect()
    }

    /// What to ask for. `Err` is a sentence for people: the container cannot be started.
    pub(super) fn order(self, launch: &Launch, container: &Container) -> Result<ContainerSpec, String> {
        let parcels = InjectedFiles::pack(container, &launch.secrets, self.script_name)?;
        let mounts = self.file_mounts(&parcels);
        let freight = if let Some(script) = parcels.sole_script() {
            Freight::Script(script)
        } else if mounts.is_empty() {
            Freight::None
        } else {
            let writable = mounts.iter().cloned().map(|mount| Mount { read_only: Some(false), ..mount });
            Freight::OwnVolumes(writable.collect(), parcels.files().collect())
        };
        Ok(ContainerSpec { body: self.body(launch, container, parcels, mounts)?, parcels: freight })
    }

    fn body(
        self,
        launch: &Launch,
        container: &Container,
        parcels: InjectedFiles,
        parcel_mounts: Vec<Mount>,
    ) -> Result<ContainerCreateBody, String> {
        let mut mounts = workspace_mounts(self.workspace, container)?;
        // The image's own files at that place stay where they are. The labels count where the volume has just gone: an engine makes it anew.
        let options = MountVolumeOptions { labels: Some(self.workspace_labels), no_copy: Some(true), ..Default::default() };
        for mount in &mut mounts {
            mount.volume_options = Some(options.clone());
        }
        mounts.extend(parcel_mounts);
        let network = match container.network {
            Network::BuildDefault => format!("container:{}", self.network),
            Network::None => "none".to_owned(),
            Network::EgressAllowList => return Err("an allow-list for its network is not possible yet".to_owned()),
        };
        let env = environment(launch, container, parcels.env);
        let waits = parcels.command.is_some() && may_defer(&env, container.workdir.as_deref(), &mounts, self.workspace);
        let mut labels = self.labels;
        let mut command = parcels.command.clone();
        if waits {
            mark_deferred_start(&mut labels);
            command = command.map(wait_for_start_signal);
        }
        let memory = saturating_i64(container.limits.memory_bytes.unwrap_or(self.options.memory));
        Ok(ContainerCreateBody {
            image: Some(container.image.clone()),
            env: Some(env),
            entrypoint: command.or_else(|| container.entrypoint.clone()),
            open_stdin: Some(waits),
            // Closed with the line on which it was started.
            stdin_once: Some(waits),
            cmd: if parcels.command.is_some() { None } else { container.args.clone() },
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
                nano_cpus: container.limits.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                init: Some(self.init),
                log_config: Some(log_config(self.options.log_bytes)),
                ..Default::default()
            }),
            ..Default::default()
        })
    }
}

/// The engine's own copy of the output, in one file that is never rotated away under us. Not `local_server`, which loses the end of what is followed,
/// and not `none`, which can block a container for good.
fn log_config(bytes: u64) -> HostConfigLogConfig {
    // Twice: JSON writes some bytes as six.
    let size = bytes.saturating_mul(2).max(1 << 20);
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some([("max-size".to_owned(), size.to_string()), ("max-file".to_owned(), "1".to_owned())].into()),
    }
}

fn workspace_mounts(workspace: &str, container: &Container) -> Result<Vec<Mount>, String> {
    let mut mounts = BTreeMap::from([(WORKSPACE, false)]);
    for mount in &container.mounts {
        match mount.source {
            MountSource::Workspace => {}
            MountSource::Cache { .. } => return Err(format!("caches are not possible yet ({})", mount.path)),
            MountSource::Volume(_) => return Err(format!("file sets of other containers are not possible yet ({})", mount.path)),
        }
        if !is_mountable(&mount.path) {
            return Err(format!("nothing can be mounted at {:?}", mount.path));
        }
        mounts.insert(&mount.path, mount.read_only);
    }
    Ok(mounts.into_iter().map(|(path, read_only)| volume_mount(workspace, path, read_only)).collect())
}

fn environment(launch: &Launch, container: &Container, secrets: BTreeMap<String, String>) -> Vec<String> {
    // The files of the workspace belong to root and the image's user may be another: without this git refuses to work there.
    let git = [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
    let mut env: BTreeMap<String, String> = launch.env.clone();
    env.extend(container.env.clone());
    if !env.contains_key("GIT_CONFIG_COUNT") {
        env.extend(git.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    env.extend(secrets);
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn saturating_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
