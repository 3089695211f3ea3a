//! The networks of stages. A stage has a bridge network and a pause container that owns the network namespace, which all
//! containers of the stage share. Creating them takes the engine longer than everything else that a stage needs, so some networks
//! are prewarmed: created before a stage needs them.
//!
//! The pause container also installs the isolation rules of its network: [`super::isolation`].
//!
//! # Ownership
//!
//! A network has a name of its own, which it shares with its pause container. The stage that uses the network records its name as
//! a label of the workspace volume. The workspace is created before the network and removed after it, so after a crash a network
//! either belongs to a workspace or is an orphan. A network serves one stage and is never reused: the stage's
//! containers may have changed what the pause container shares with them.

use std::collections::BTreeSet;

use beespace_core::ids::StageId;
use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use bollard::query_parameters::{ListNetworksOptions, ListNetworksOptionsBuilder};
use futures::future::join_all;
use ipnet::Ipv4Net;
use tokio::sync::Mutex;

use super::client::{Client, optional};
use super::containers::Containers;
use super::deferred_start::DeferredStart;
use super::error::NetworkError;
use super::files::Files;
use super::internal_containers::InternalContainers;
use super::isolation::{READY, isolation_rules};
use super::names::{Labels, Names, label_filter, network_of};
use super::options::DockerOptions;
use super::subnet::{free_subnet, subnet_of};
use super::timeouts::CallKind;
use crate::engine::EngineError;

/// How often a subnet is chosen for one network.
const MAX_SUBNET_TRIES: u32 = 8;

/// The networks of one instance.
#[derive(Debug)]
pub(super) struct Networks {
    client: Client,
    names: Names,
    containers: Containers,
    internal: InternalContainers,
    files: Files,
    pool: Ipv4Net,
    metadata_access: bool,
    /// Networks that are ready for future stages.
    prewarmed: Mutex<Vec<String>>,
}

/// A created network.
struct CreatedNetwork {
    subnet: Ipv4Net,
    /// All networks that the engine had at that time.
    networks: Vec<Network>,
}

impl Networks {
    pub(super) fn new(
        client: Client,
        names: Names,
        containers: Containers,
        internal: InternalContainers,
        files: Files,
        options: &DockerOptions,
    ) -> Self {
        let (pool, metadata_access) = (options.network_pool, options.metadata_access);
        Self { client, names, containers, internal, files, pool, metadata_access, prewarmed: Mutex::default() }
    }

    /// The network of a stage; `None` if the stage has no workspace.
    pub(super) async fn of_stage(&self, stage: StageId) -> Result<Option<String>, EngineError> {
        let api = self.client.api().await?;
        let name = self.names.workspace(stage);
        let volume = optional(self.client.call("inspect a volume", CallKind::Quick, api.inspect_volume(&name)).await)?;
        Ok(volume.and_then(|volume| network_of(&volume.labels)))
    }

    /// The network of an open stage.
    pub(super) async fn of_open_stage(&self, stage: StageId) -> Result<String, EngineError> {
        let Some(network) = self.of_stage(stage).await? else { return Err(EngineError::NotOpen(stage)) };
        let state = self.containers.state(&network).await?;
        let is_running = state.is_some_and(|state| state.running == Some(true));
        if is_running { Ok(network) } else { Err(EngineError::NotOpen(stage)) }
    }

    /// Assigns a network to a stage, and creates the stage's workspace: the network that the stage already has, or a prewarmed
    /// one, or the name of one that is created later.
    pub(super) async fn assign(&self, stage: StageId) -> Result<String, EngineError> {
        if let Some(network) = self.of_stage(stage).await? {
            return Ok(network);
        }
        // Locked until the workspace's label shows to which stage the network belongs.
        let mut prewarmed = self.prewarmed.lock().await;
        let network = prewarmed.last().cloned().unwrap_or_else(|| self.names.new_network());
        self.files.create_volume(&self.names.workspace(stage), &self.names.workspace_labels(stage, &network)).await?;
        prewarmed.pop();
        Ok(network)
    }

    /// Ensures that a network exists and that its pause container runs and has installed the isolation rules.
    pub(super) async fn ensure_running(&self, network: &str) -> Result<(), EngineError> {
        match self.containers.state(network).await? {
            Some(state) if state.running == Some(true) => return Ok(()),
            Some(_) => {}
            None => self.create_with_pause(network).await?,
        }
        let mut attached = DeferredStart::attach(&self.containers, network, false).await?;
        self.internal.start(network).await?;
        let output = attached.first_output(self.client.timeouts().quick).await;
        if output.as_deref() == Some(READY) {
            return Ok(());
        }
        // Remove it, so that it is not mistaken for one that is ready. The next network gets its own rules.
        self.containers.remove(network).await?;
        Err(match output {
            Some(output) => NetworkError::IsolationFailed { message: String::from_utf8_lossy(&output).trim().to_owned() },
            None => NetworkError::PauseNotReady,
        }
        .into())
    }

    /// Creates a network and its pause container, which is not started.
    async fn create_with_pause(&self, network: &str) -> Result<(), EngineError> {
        let labels = self.names.network_labels(network);
        let created = self.create(network, &labels).await?;
        let mut pause = self.internal.body(labels, Vec::new());
        pause.hostname = Some("beespace".to_owned());
        pause.cmd = Some(isolation_rules(self.metadata_access, self.pool, created.subnet, &created.networks));
        if let Some(host) = &mut pause.host_config {
            host.network_mode = Some(network.to_owned());
            // Only for the pause container: the containers that share its network cannot undo its rules.
            host.cap_add = Some(vec!["NET_ADMIN".to_owned()]);
        }
        self.internal.create(network, pause).await
    }

    async fn create(&self, name: &str, labels: &Labels) -> Result<CreatedNetwork, EngineError> {
        let api = self.client.api().await?;
        let mut tries = 0;
        loop {
            tries += 1;
            // Older engines create a second network of the same name, so look first.
            let networks = self.list(None).await?;
            if let Some(network) = networks.iter().find(|network| network.name.as_deref() == Some(name)) {
                let cause = || format!("the network {name} has no addresses");
                let invalid = || EngineError::InvalidResponse { call: "list networks", cause: cause() };
                let subnet = subnet_of(network).ok_or_else(invalid)?;
                return Ok(CreatedNetwork { subnet, networks });
            }
            let pool = self.pool;
            let subnet = free_subnet(pool, &networks, uuid::Uuid::now_v7().as_u64_pair().1)
                .ok_or_else(|| NetworkError::NoSubnetLeft { pool, message: "all are in use".to_owned() })?;
            let request = network_request(name, labels, subnet);
            match self.client.call("create a network", CallKind::Slow, api.create_network(request)).await {
                Ok(_) => return Ok(CreatedNetwork { subnet, networks }),
                // Another process has chosen the same subnet in the meantime. Engines have no status code for this.
                Err(EngineError::Refused { message, .. }) if is_subnet_taken(&message) => {
                    if tries == MAX_SUBNET_TRIES {
                        return Err(NetworkError::NoSubnetLeft { pool, message }.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes a pause container and its network.
    pub(super) async fn remove(&self, network: &str) -> Result<(), EngineError> {
        self.containers.remove(network).await?;
        let api = self.client.api().await?;
        self.client.remove_with_retry("remove a network", || api.remove_network(network)).await
    }

    /// Creates networks until `wanted` of them are prewarmed. Removes surplus ones and orphans.
    pub(super) async fn prewarm(&self, wanted: usize) -> Result<(), EngineError> {
        let mut surplus = self.orphans().await?;
        {
            let mut prewarmed = self.prewarmed.lock().await;
            let kept = prewarmed.len().min(wanted);
            surplus.extend(prewarmed.drain(kept..));
        }
        // All of them are tried: a stopping server has no second chance.
        join_all(surplus.iter().map(|network| self.remove(network))).await.into_iter().collect::<Result<(), _>>()?;
        // One at a time: stages that run meanwhile need the engine more.
        while self.prewarmed.lock().await.len() < wanted {
            let network = self.names.new_network();
            self.ensure_running(&network).await?;
            self.prewarmed.lock().await.push(network);
        }
        Ok(())
    }

    /// Networks that are neither prewarmed nor belong to a workspace: an earlier process left them.
    async fn orphans(&self) -> Result<Vec<String>, EngineError> {
        let prewarmed = self.prewarmed.lock().await;
        let networks = self.all().await?;
        // Listed last, because a network is created after its workspace.
        let volumes = self.files.list_volumes(&self.names.instance_labels()).await?;
        let used: BTreeSet<String> = volumes.into_iter().filter_map(|volume| network_of(&volume.labels)).collect();
        Ok(networks.into_iter().filter(|network| !used.contains(network) && !prewarmed.contains(network)).collect())
    }

    /// The names of all networks and pause containers of this instance.
    async fn all(&self) -> Result<BTreeSet<String>, EngineError> {
        let labels = self.names.instance_labels();
        let containers = self.containers.list(&labels).await?;
        let networks = self.list(Some(ListNetworksOptionsBuilder::new().filters(&label_filter(&labels)).build())).await?;
        let labels = containers.into_iter().filter_map(|container| container.labels);
        let labels = labels.chain(networks.into_iter().filter_map(|network| network.labels));
        Ok(labels.filter_map(|labels| network_of(&labels)).collect())
    }

    async fn list(&self, which: Option<ListNetworksOptions>) -> Result<Vec<Network>, EngineError> {
        let api = self.client.api().await?;
        self.client.call("list networks", CallKind::Quick, api.list_networks(which)).await
    }
}

fn network_request(name: &str, labels: &Labels, subnet: Ipv4Net) -> NetworkCreateRequest {
    let config = IpamConfig { subnet: Some(subnet.to_string()), ..Default::default() };
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        labels: Some(labels.clone()),
        // The pool has no IPv6 addresses, and no isolation rule blocks those that an engine would choose itself.
        enable_ipv6: Some(false),
        ipam: Some(Ipam { config: Some(vec![config]), ..Default::default() }),
        ..Default::default()
    }
}

/// Docker: "Pool overlaps with other one on this address space"; Podman: "subnet … is already used on the host or by another
/// config".
fn is_subnet_taken(message: &str) -> bool {
    message.contains("overlap") || message.contains("already used")
}
