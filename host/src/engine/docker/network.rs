//! Rooms: a network, and the holder that keeps it open. Making one takes the engine longer than all else a stage needs, so some stand ready
//! before anybody asks for them.
//!
//! The holder also closes its network to what must not be reached from it: [`super::fence`].
//!
//! A room has a name of its own. The stage that took it says so on its workspace, which is made before and removed after the room: whatever a
//! crash leaves, a room is either some workspace's or nobody's. A room serves one stage and is never handed on: its containers may have
//! written to what the holder shares with them.

use std::collections::BTreeSet;

use beespace_core::ids::StageId;
use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptions, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};
use futures::future::try_join_all;
use ipnet::Ipv4Net;

use super::client::optional;
use super::names::{Labels, label_filter, network_of};
use super::timeouts::CallKind;
use super::{Docker, isolation};
use crate::engine::EngineError;

/// How often addresses are chosen for one network.
const MAX_SUBNET_TRIES: u32 = 8;

impl Docker {
    /// The room of a stage; `None` where the stage is not open.
    pub(super) async fn network_of_stage(&self, stage: StageId) -> Result<Option<String>, EngineError> {
        let api = self.client.api().await?;
        let name = self.names.workspace(stage);
        let volume = optional(self.client.call("inspect a volume", CallKind::Quick, api.inspect_volume(&name)).await)?;
        Ok(volume.and_then(|volume| network_of(&volume.labels)))
    }

    /// Gives a stage the room that it has, else one that stands ready, else the name of one that is still to be made.
    pub(super) async fn assign_network(&self, stage: StageId) -> Result<String, EngineError> {
        if let Some(room) = self.network_of_stage(stage).await? {
            return Ok(room);
        }
        // Held until the workspace says whose the room is.
        let mut ready = self.prewarmed.lock().await;
        let room = ready.last().cloned().unwrap_or_else(|| self.names.new_network());
        self.create_volume(&self.names.workspace(stage), &self.names.workspace_labels(stage, &room)).await?;
        ready.pop();
        Ok(room)
    }

    /// Sees to it that the room is there and its network held.
    pub(super) async fn ensure_running(&self, room: &str) -> Result<(), EngineError> {
        match self.state(room).await? {
            Some(state) if state.running == Some(true) => return Ok(()),
            Some(_) => {}
            None => self.create_with_pause(room).await?,
        }
        let mut held = self.attach(room, false).await?;
        self.start_internal(room).await?;
        let word = held.first_word(self.options.waits.quick).await;
        if word.as_deref() == Some(isolation::READY) {
            return Ok(());
        }
        // Nobody shall take it for one that holds. Another one is told anew what to do.
        self.remove_container(room).await?;
        Err(match word {
            Some(word) => EngineError::IsolationFailed { said: String::from_utf8_lossy(&word).trim().to_owned() },
            // The engine went away, or the line to it broke.
            None => EngineError::PauseNotReady,
        })
    }

    /// A network, and its holder, which is not started.
    async fn create_with_pause(&self, room: &str) -> Result<(), EngineError> {
        let labels = self.names.network_labels(room);
        let (own, networks) = self.create_network(room, &labels).await?;
        let mut holder = self.internal_container(labels, Vec::new());
        holder.hostname = Some("beespace".to_owned());
        holder.cmd = Some(isolation::isolation_rules(self.options.metadata_access, self.options.network_pool, own, &networks));
        if let Some(host) = &mut holder.host_config {
            host.network_mode = Some(room.to_owned());
            // The holder's alone: who shares its network cannot undo what it does there.
            host.cap_add = Some(vec!["NET_ADMIN".to_owned()]);
        }
        self.create_internal(room, holder).await
    }

    /// The addresses of a new network, and all networks that are there.
    async fn create_network(&self, name: &str, labels: &Labels) -> Result<(Ipv4Net, Vec<Network>), EngineError> {
        let api = self.client.api().await?;
        let mut tries = 0;
        loop {
            tries += 1;
            // Asked first, because older engines make a second network of the same name.
            let networks = self.list_networks(None).await?;
            if let Some(network) = networks.iter().find(|network| network.name.as_deref() == Some(name)) {
                let cause = || format!("the network {name} has no addresses");
                let own = isolation::subnet_of(network)
                    .ok_or_else(|| EngineError::InvalidResponse { call: "list networks", cause: cause() })?;
                return Ok((own, networks));
            }
            let pool = self.options.network_pool;
            let own = isolation::free_subnet(pool, &networks, uuid::Uuid::now_v7().as_u64_pair().1);
            let own = own.ok_or_else(|| EngineError::NoSubnetLeft { pool, said: "all are taken".to_owned() })?;
            let range = IpamConfig { subnet: Some(own.to_string()), ..Default::default() };
            let network = NetworkCreateRequest {
                name: name.to_owned(),
                driver: Some("bridge".to_owned()),
                labels: Some(labels.clone()),
                // The pool has none, and what engines choose themselves nobody is closed to.
                enable_ipv6: Some(false),
                ipam: Some(Ipam { config: Some(vec![range]), ..Default::default() }),
                ..Default::default()
            };
            match self.client.call("make a network", CallKind::Slow, api.create_network(network)).await {
                Ok(_) => return Ok((own, networks)),
                // Somebody else has chosen the same meanwhile. Engines have no code of their own for it.
                Err(EngineError::Refused { message, .. }) if is_subnet_taken(&message) => {
                    if tries == MAX_SUBNET_TRIES {
                        return Err(EngineError::NoSubnetLeft { pool, said: message });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes the holder and its network.
    pub(super) async fn remove_network(&self, room: &str) -> Result<(), EngineError> {
        self.remove_container(room).await?;
        let api = self.client.api().await?;
        self.remove_with_retry("remove a network", || api.remove_network(room)).await
    }

    /// Makes rooms until `wanted` of them stand ready, and removes those beyond it and those that are nobody's.
    pub(super) async fn prewarm(&self, wanted: usize) -> Result<(), EngineError> {
        let mut beyond = self.orphaned_networks().await?;
        {
            let mut ready = self.prewarmed.lock().await;
            let kept = ready.len().min(wanted);
            beyond.extend(ready.drain(kept..));
        }
        try_join_all(beyond.iter().map(|room| self.remove_network(room))).await?;
        // One at a time: who is at work meanwhile needs the engine more.
        while self.prewarmed.lock().await.len() < wanted {
            let room = self.names.new_network();
            self.ensure_running(&room).await?;
            self.prewarmed.lock().await.push(room);
        }
        Ok(())
    }

    /// Rooms that neither stand ready nor are any workspace's: left by a process before this one.
    async fn orphaned_networks(&self) -> Result<Vec<String>, EngineError> {
        let ready = self.prewarmed.lock().await;
        let rooms = self.own_networks().await?;
        let api = self.client.api().await?;
        // Asked last: a room is made after its workspace.
        let volumes = ListVolumesOptionsBuilder::new().filters(&label_filter(&self.names.instance_labels())).build();
        let volumes = self.client.call("list volumes", CallKind::Quick, api.list_volumes(Some(volumes))).await?.volumes;
        let taken: BTreeSet<String> = volumes.into_iter().flatten().filter_map(|volume| network_of(&volume.labels)).collect();
        Ok(rooms.into_iter().filter(|room| !taken.contains(room) && !ready.contains(room)).collect())
    }

    async fn list_networks(&self, which: Option<ListNetworksOptions>) -> Result<Vec<Network>, EngineError> {
        let api = self.client.api().await?;
        self.client.call("list networks", CallKind::Quick, api.list_networks(which)).await
    }

    async fn own_networks(&self) -> Result<BTreeSet<String>, EngineError> {
        let api = self.client.api().await?;
        let ours = label_filter(&self.names.instance_labels());
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
        let containers = self.client.call("list containers", CallKind::Quick, api.list_containers(Some(containers))).await?;
        let networks = self.list_networks(Some(ListNetworksOptionsBuilder::new().filters(&ours).build())).await?;
        let labels = containers.into_iter().filter_map(|container| container.labels);
        let labels = labels.chain(networks.into_iter().filter_map(|network| network.labels));
        Ok(labels.filter_map(|labels| network_of(&labels)).collect())
    }
}

/// Docker: "Pool overlaps with other one on this address space"; Podman: "subnet … is already used on the host or by another config".
fn is_subnet_taken(message: &str) -> bool {
    message.contains("overlap") || message.contains("already used")
}
