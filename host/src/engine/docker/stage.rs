//! A stage's network, its holder and its workspace: made, filled, swept away, and found again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use beespace_core::ids::StageId;
use beespace_core::plan::WORKSPACE;
use bollard::body_try_stream;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerState, HostConfig, Mount, MountType, NetworkCreateRequest, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    StartContainerOptions, UploadToContainerOptionsBuilder,
};
use futures::StreamExt as _;
use futures::future::{join, join_all};

use super::Docker;
use super::client::{absent_is_fine, found};
use super::names::{Labels, filter, stage_of};
use super::waits::Wait;
use crate::engine::{EngineError, TarStream};

/// How often something that is in the way of a removal is waited for, and how long each time.
const REMOVAL_TRIES: u32 = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(100);

impl Docker {
    pub(super) async fn open_stage(&self, stage: StageId) -> Result<(), EngineError> {
        let (name, labels) = (self.names.stage(stage), self.names.stage_labels(stage));
        self.make_volume(&name, &labels).await?;
        self.make_network(&name, &labels).await?;
        match self.state(&name).await? {
            Some(state) if state.running == Some(true) => return Ok(()),
            Some(_) => {}
            None => {
                let mut holder = self.own_container(labels, vec![volume(&name, WORKSPACE, false)]);
                holder.hostname = Some("beespace".to_owned());
                if let Some(host) = &mut holder.host_config {
                    host.network_mode = Some(name.clone());
                }
                self.create_own(&name, holder).await?;
            }
        }
        self.start_own(&name).await?;
        self.init_works().await.map(|_| ())
    }

    pub(super) async fn make_volume(&self, name: &str, labels: &Labels) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let volume = VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels.clone()), ..Default::default() };
        self.client.call("make a volume", Wait::Quick, api.create_volume(volume)).await.map(|_| ())
    }

    async fn make_network(&self, name: &str, labels: &Labels) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        // Asked first, because older engines make a second network of the same name.
        let known =
            self.client.call("inspect a network", Wait::Quick, api.inspect_network(name, None::<InspectNetworkOptions>)).await;
        if found(known)?.is_some() {
            return Ok(());
        }
        let network = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        match self.client.call("make a network", Wait::Slow, api.create_network(network)).await {
            Ok(_) => Ok(()),
            // Engines have no code of their own for it; all of them say this.
            Err(EngineError::Refused { message, .. }) if message.contains("address pool") => {
                Err(EngineError::NoNetworkLeft { message })
            }
            Err(error) => Err(error),
        }
    }

    /// A container of the gate's image: nothing of the user ever runs in one.
    fn own_container(&self, labels: Labels, mounts: Vec<Mount>) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(self.gate_image()),
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
    async fn create_own(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let options = || Some(CreateContainerOptionsBuilder::new().name(name).build());
        let create = async || {
            self.client.call("make a container of the gate", Wait::Slow, api.create_container(options(), body.clone())).await
        };
        let mut created = create().await;
        if let Err(EngineError::Refused { status: 404, .. }) = created {
            self.make_gate_image().await?;
            created = create().await;
        }
        created.map(|_| ())
    }

    async fn start_own(&self, name: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let _start = self.starts.acquire().await;
        self.client
            .call("start a container of the gate", Wait::Slow, api.start_container(name, None::<StartContainerOptions>))
            .await
    }

    /// Whether containers can have an init process, which forwards TERM and reaps: tried once, because engines say yes and mean no (Debian's
    /// Podman lacks the program).
    pub(super) async fn init_works(&self) -> Result<bool, EngineError> {
        let probe = async || {
            let name =
                format!("{}-probe", self.names.stage(StageId { build: nobody(), stage: beespace_core::ids::StageNumber(0) }));
            let mut body = self.own_container(self.names.instance_labels(), Vec::new());
            if let Some(host) = &mut body.host_config {
                host.init = Some(true);
            }
            self.remove_container(&name).await?;
            let started = match self.create_own(&name, body).await {
                Ok(()) => self.start_own(&name).await,
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

    pub(super) async fn fill_workspace(&self, stage: StageId, tar: TarStream) -> Result<(), EngineError> {
        self.require_open(stage).await?;
        let name = self.names.stage(stage);
        let mounts = vec![volume(&name, WORKSPACE, false)];
        self.upload(&format!("{name}-fill"), self.names.stage_labels(stage), mounts, WORKSPACE, tar).await
    }

    /// Puts a tar into volumes, through a container of ours that is made for it and never started: an upload into a container of
    /// the user's could be turned against the engine (CVE-2026-41567, CVE-2026-41568).
    pub(super) async fn upload(
        &self,
        name: &str,
        labels: Labels,
        mounts: Vec<Mount>,
        path: &str,
        tar: TarStream,
    ) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        self.remove_container(name).await?;
        self.create_own(name, self.own_container(labels, mounts)).await?;
        // An error of the source would reach us as one of the connection, so it is put aside on its way.
        let (aside, mut failed) = tokio::sync::mpsc::channel(1);
        let tar = tar.inspect(move |piece| {
            if let Err(error) = piece {
                let _ = aside.try_send(std::io::Error::new(error.kind(), error.to_string()));
            }
        });
        let options = UploadToContainerOptionsBuilder::new().path(path).build();
        let upload = api.upload_to_container(name, Some(options), body_try_stream(tar));
        let uploaded = self.client.call("fill a volume", Wait::Transfer, upload).await;
        let removed = self.remove_container(name).await;
        if let Ok(error) = failed.try_recv() {
            return Err(EngineError::Archive(error));
        }
        uploaded.and(removed)
    }

    pub(super) async fn require_open(&self, stage: StageId) -> Result<(), EngineError> {
        let state = self.state(&self.names.stage(stage)).await?;
        if state.is_some_and(|state| state.running == Some(true)) { Ok(()) } else { Err(EngineError::NotOpen(stage)) }
    }

    /// The state of a container; `None` where there is no such container.
    pub(super) async fn state(&self, name: &str) -> Result<Option<ContainerState>, EngineError> {
        let api = self.client.api().await?;
        let inspect = api.inspect_container(name, None::<InspectContainerOptions>);
        let container = found(self.client.call("inspect a container", Wait::Quick, inspect).await)?;
        Ok(container.map(|container| container.state.unwrap_or_default()))
    }

    pub(super) async fn remove_container(&self, name: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        self.insist("remove a container", || {
            api.remove_container(name, Some(RemoveContainerOptionsBuilder::new().force(true).v(true).build()))
        })
        .await
    }

    /// Removes everything that carries all of `labels`. Containers first: they hold the rest.
    pub(super) async fn sweep(&self, labels: &Labels) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&filter(labels)).build();
        let containers = self.client.call("list containers", Wait::Quick, api.list_containers(Some(containers))).await?;
        let ids: Vec<String> = containers.into_iter().filter_map(|container| container.id).collect();
        let mut results = join_all(ids.iter().map(|id| self.remove_container(id))).await;

        let volumes = ListVolumesOptionsBuilder::new().filters(&filter(labels)).build();
        let volumes =
            self.client.call("list volumes", Wait::Quick, api.list_volumes(Some(volumes))).await?.volumes.unwrap_or_default();
        let volumes = volumes
            .iter()
            .map(|volume| self.insist("remove a volume", || api.remove_volume(&volume.name, None::<RemoveVolumeOptions>)));
        let networks = ListNetworksOptionsBuilder::new().filters(&filter(labels)).build();
        let networks = self.client.call("list networks", Wait::Quick, api.list_networks(Some(networks))).await?;
        let networks: Vec<String> = networks.into_iter().filter_map(|network| network.id).collect();
        let networks = networks.iter().map(|id| self.insist("remove a network", || api.remove_network(id)));
        let (volumes, networks) = join(join_all(volumes), join_all(networks)).await;
        results.extend(volumes);
        results.extend(networks);
        results.into_iter().collect()
    }

    /// Tries again while something that is on its way out stands in the way.
    async fn insist<F: Future<Output = Result<(), Error>>>(
        &self,
        call: &'static str,
        remove: impl Fn() -> F,
    ) -> Result<(), EngineError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match absent_is_fine(self.client.call(call, Wait::Slow, remove()).await) {
                Err(EngineError::Refused { status: 403 | 409 | 500, .. }) if tries < REMOVAL_TRIES => {
                    tokio::time::sleep(REMOVAL_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    pub(super) async fn stages(&self) -> Result<Vec<StageId>, EngineError> {
        let api = self.client.api().await?;
        let ours: HashMap<String, Vec<String>> = filter(&self.names.instance_labels());
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
        let containers = self.client.call("list containers", Wait::Quick, api.list_containers(Some(containers))).await?;
        let volumes = ListVolumesOptionsBuilder::new().filters(&ours).build();
        let volumes =
            self.client.call("list volumes", Wait::Quick, api.list_volumes(Some(volumes))).await?.volumes.unwrap_or_default();
        let networks = ListNetworksOptionsBuilder::new().filters(&ours).build();
        let networks = self.client.call("list networks", Wait::Quick, api.list_networks(Some(networks))).await?;
        let labels = containers.into_iter().filter_map(|container| container.labels);
        let labels = labels.chain(volumes.into_iter().map(|volume| volume.labels));
        let labels = labels.chain(networks.into_iter().filter_map(|network| network.labels));
        let stages: BTreeSet<StageId> = labels.filter_map(|labels| stage_of(&labels)).collect();
        Ok(stages.into_iter().collect())
    }
}

/// A volume in a container.
pub(super) fn volume(name: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Default::default()
    }
}

/// No build has this id.
fn nobody() -> beespace_core::ids::BuildId {
    beespace_core::ids::BuildId(uuid::Uuid::nil())
}
