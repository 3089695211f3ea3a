//! A stage in its room: opened, its workspace filled, swept away, and found again.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use beespace_core::ids::{StageId, StepId};
use beespace_core::plan::WORKSPACE;
use bollard::body_try_stream;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerState, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions, UploadToContainerOptionsBuilder,
};
use futures::StreamExt as _;
use futures::future::{join, join_all, try_join};

use super::Docker;
use super::client::{ignore_not_found, optional};
use super::deferred_start::ContainerInspect;
use super::injected_files::HOST_DIRECTORY;
use super::names::{Labels, label_filter, stage_of, waits};
use super::run::sole_script;
use super::timeouts::CallKind;
use crate::engine::tar_stream::{self, TarContents};
use crate::engine::{EngineError, Launch};

/// How often something that is in the way of a removal is waited for, and how long each time.
pub(super) const MAX_REMOVAL_TRIES: u32 = 20;
pub(super) const REMOVAL_PAUSE: Duration = Duration::from_millis(100);

impl Docker {
    pub(super) async fn open_stage(&self, stage: StageId) -> Result<(), EngineError> {
        let room = self.assign_network(stage).await?;
        try_join(self.ensure_running(&room), self.create_upload_container(stage)).await?;
        self.init_works().await.map(|_| ())
    }

    /// The container of ours through which the workspace and the scripts are filled; it is never started. Made here because an engine gives a new
    /// volume the mode of the directory that it first covers, and ours is open to every user.
    pub(super) async fn create_upload_container(&self, stage: StageId) -> Result<(), EngineError> {
        let mounts = vec![volume_mount(&self.names.workspace(stage), WORKSPACE, false), self.scripts_mount(stage, false)];
        let filler = self.internal_container(self.names.stage_labels(stage), mounts);
        match self.create_internal(&self.names.upload_container(stage), filler).await {
            // Made when the stage was opened before.
            Err(EngineError::Refused { status: 409, .. }) => Ok(()),
            other => other,
        }
    }

    /// Where the scripts of a stage lie. The volume comes into being with the filler.
    pub(super) fn scripts_mount(&self, stage: StageId, read_only: bool) -> Mount {
        let labels = Some(self.names.stage_labels(stage));
        let options = MountVolumeOptions { labels, no_copy: Some(true), ..Default::default() };
        Mount { volume_options: Some(options), ..volume_mount(&self.names.scripts(stage), HOST_DIRECTORY, read_only) }
    }

    pub(super) async fn create_volume(&self, name: &str, labels: &Labels) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let volume = VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels.clone()), ..Default::default() };
        self.client.call("make a volume", CallKind::Quick, api.create_volume(volume)).await.map(|_| ())
    }

    /// A container of the gate's image: nothing of the user ever runs in one.
    pub(super) fn internal_container(&self, labels: Labels, mounts: Vec<Mount>) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(self.pause_image()),
            labels: Some(labels),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                mounts: Some(mounts),
                cap_drop: Some(vec!["ALL".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                pids_limit: Some(16),
                memory: Some(32 << 20),
                memory_swap: Some(32 << 20),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Makes one, and the image first where it is absent.
    pub(super) async fn create_internal(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let options = || Some(CreateContainerOptionsBuilder::new().name(name).build());
        let create = async || {
            self.client.call("make a container of the gate", CallKind::Slow, api.create_container(options(), body.clone())).await
        };
        let mut created = create().await;
        if let Err(EngineError::Refused { status: 404, .. }) = created {
            self.import_pause_image().await?;
            created = create().await;
        }
        created.map(|_| ())
    }

    pub(super) async fn start_internal(&self, name: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let _start = self.start_permits.acquire().await;
        self.client
            .call("start a container of the gate", CallKind::Slow, api.start_container(name, None::<StartContainerOptions>))
            .await
    }

    /// Whether containers can have an init process, which forwards TERM and reaps: tried once, because engines say yes and mean no (Debian's
    /// Podman lacks the program).
    pub(super) async fn init_works(&self) -> Result<bool, EngineError> {
        let probe = async || {
            let name = format!(
                "{}-probe",
                self.names.workspace(StageId { build: no_build(), stage: beespace_core::ids::StageNumber(0) })
            );
            let mut body = self.internal_container(self.names.instance_labels(), Vec::new());
            if let Some(host) = &mut body.host_config {
                host.init = Some(true);
            }
            self.remove_container(&name).await?;
            let started = match self.create_internal(&name, body).await {
                Ok(()) => self.start_internal(&name).await,
                Err(error) => Err(error),
            };
            self.remove_container(&name).await?;
            match started {
                Ok(()) => Ok(true),
                Err(EngineError::Refused { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.init.get_or_try_init(probe).await.copied()
    }

    /// The sources and the scripts in one tar, because the engine unpacks each in a process of its own.
    pub(super) async fn fill_stage(
        &self,
        stage: StageId,
        sources: Option<&Path>,
        launches: &[Launch],
    ) -> Result<(), EngineError> {
        let mut contents = TarContents { tree: sources.map(|sources| (sources.to_owned(), WORKSPACE)), ..TarContents::default() };
        let mut scripts = Vec::new();
        for launch in launches {
            if let Some(script) = sole_script(launch)? {
                scripts.push((launch, script.digest()));
                contents.files.push(script);
            }
        }
        match self.upload(&self.names.upload_container(stage), contents).await {
            Err(EngineError::Refused { status: 404, .. }) => return Err(EngineError::NotOpen(stage)),
            uploaded => uploaded?,
        }
        let mut ahead = self.ahead();
        scripts.into_iter().for_each(|(launch, script)| ahead.note_script(launch, script));
        Ok(())
    }

    /// Puts files into the volumes of a container of ours that was made for it and is never started: an upload into a container of the user's could be
    /// turned against the engine (CVE-2026-41567, CVE-2026-41568).
    pub(super) async fn upload(&self, name: &str, contents: TarContents) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        // An error of the source would reach us as one of the connection, so it is put aside on its way.
        let (aside, mut failed) = tokio::sync::mpsc::channel(1);
        let tar = tar_stream::pack(contents).inspect(move |piece| {
            if let Err(error) = piece {
                let _ = aside.try_send(std::io::Error::new(error.kind(), error.to_string()));
            }
        });
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let upload = api.upload_to_container(name, Some(options), body_try_stream(tar));
        let uploaded = self.client.call("fill a volume", CallKind::Transfer, upload).await;
        if let Ok(error) = failed.try_recv() {
            return Err(EngineError::SourcesUnreadable(error));
        }
        uploaded
    }

    /// The room of an open stage.
    pub(super) async fn require_open(&self, stage: StageId) -> Result<String, EngineError> {
        let Some(room) = self.network_of_stage(stage).await? else { return Err(EngineError::NotOpen(stage)) };
        let state = self.state(&room).await?;
        if state.is_some_and(|state| state.running == Some(true)) { Ok(room) } else { Err(EngineError::NotOpen(stage)) }
    }

    /// The state of a container; `None` where there is no such container.
    pub(super) async fn look(&self, name: &str) -> Result<Option<ContainerInspect>, EngineError> {
        let api = self.client.api().await?;
        let inspect = api.inspect_container(name, None::<InspectContainerOptions>);
        let container = optional(self.client.call("inspect a container", CallKind::Quick, inspect).await)?;
        Ok(container.map(|container| ContainerInspect {
            waits: container.config.and_then(|config| config.labels).is_some_and(|labels| waits(&labels)),
            state: container.state.unwrap_or_default(),
        }))
    }

    pub(super) async fn state(&self, name: &str) -> Result<Option<ContainerState>, EngineError> {
        Ok(self.look(name).await?.map(|look| look.state))
    }

    pub(super) async fn remove_container(&self, name: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        self.remove_with_retry("remove a container", || {
            api.remove_container(name, Some(RemoveContainerOptionsBuilder::new().force(true).v(true).build()))
        })
        .await
    }

    /// Removes everything of a stage but its workspace, which says how its room is called: the next one is called so, too.
    pub(super) async fn close_stage(&self, stage: StageId) -> Result<(), EngineError> {
        self.remove_containers_and_network(stage).await?;
        self.remove_volumes(&self.names.stage_labels(stage), Some(&self.names.workspace(stage))).await
    }

    /// Removes everything of a stage. The workspace goes last: it says which room is the stage's.
    pub(super) async fn destroy_stage(&self, stage: StageId) -> Result<(), EngineError> {
        let removed = self.remove_containers_and_network(stage).await;
        let workspace = removed.is_err().then(|| self.names.workspace(stage));
        removed.and(self.remove_volumes(&self.names.stage_labels(stage), workspace.as_deref()).await)
    }

    /// Removes the containers of a stage and its room.
    async fn remove_containers_and_network(&self, stage: StageId) -> Result<(), EngineError> {
        let labels = self.names.stage_labels(stage);
        self.ahead().forget(|step| step.stage_id() == stage);
        let room = async {
            match self.network_of_stage(stage).await? {
                Some(room) => self.remove_network(&room).await,
                None => Ok(()),
            }
        };
        let (containers, room) = join(self.remove_containers(&labels), room).await;
        // What was made ahead meanwhile is gone, too.
        self.ahead().forget(|step| step.stage_id() == stage);
        containers.and(room)
    }

    /// Removes the containers of a step and their parcels.
    pub(super) async fn release_step(&self, step: StepId) -> Result<(), EngineError> {
        let labels = self.names.step_labels(step);
        self.ahead().forget(|of| of == step);
        self.remove_containers(&labels).await?;
        self.remove_volumes(&labels, None).await
    }

    async fn remove_containers(&self, labels: &Labels) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&label_filter(labels)).build();
        let containers = self.client.call("list containers", CallKind::Quick, api.list_containers(Some(containers))).await?;
        let ids: Vec<String> = containers.into_iter().filter_map(|container| container.id).collect();
        join_all(ids.iter().map(|id| self.remove_container(id))).await.into_iter().collect()
    }

    async fn remove_volumes(&self, labels: &Labels, except: Option<&str>) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let volumes = ListVolumesOptionsBuilder::new().filters(&label_filter(labels)).build();
        let volumes = self.client.call("list volumes", CallKind::Quick, api.list_volumes(Some(volumes))).await?.volumes;
        let names = volumes.into_iter().flatten().map(|volume| volume.name);
        let names: Vec<String> = names.filter(|name| except != Some(name.as_str())).collect();
        let removed = names
            .iter()
            .map(|name| self.remove_with_retry("remove a volume", || api.remove_volume(name, None::<RemoveVolumeOptions>)));
        join_all(removed).await.into_iter().collect()
    }

    /// Tries again while something that is on its way out stands in the way.
    pub(super) async fn remove_with_retry<F: Future<Output = Result<(), Error>>>(
        &self,
        call: &'static str,
        remove: impl Fn() -> F,
    ) -> Result<(), EngineError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match ignore_not_found(self.client.call(call, CallKind::Slow, remove()).await) {
                Err(EngineError::Refused { status: 403 | 409 | 500, .. }) if tries < MAX_REMOVAL_TRIES => {
                    tokio::time::sleep(REMOVAL_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    pub(super) async fn list_stages(&self) -> Result<Vec<StageId>, EngineError> {
        let api = self.client.api().await?;
        let ours: HashMap<String, Vec<String>> = label_filter(&self.names.instance_labels());
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
        let containers = self.client.call("list containers", CallKind::Quick, api.list_containers(Some(containers))).await?;
        let volumes = ListVolumesOptionsBuilder::new().filters(&ours).build();
        let volumes =
            self.client.call("list volumes", CallKind::Quick, api.list_volumes(Some(volumes))).await?.volumes.unwrap_or_default();
        let labels = containers.into_iter().filter_map(|container| container.labels);
        let labels = labels.chain(volumes.into_iter().map(|volume| volume.labels));
        let stages: BTreeSet<StageId> = labels.filter_map(|labels| stage_of(&labels)).collect();
        Ok(stages.into_iter().collect())
    }
}

/// A volume in a container.
pub(super) fn volume_mount(name: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Default::default()
    }
}

/// No build has this id.
fn no_build() -> beespace_core::ids::BuildId {
    beespace_core::ids::BuildId(uuid::Uuid::nil())
}
