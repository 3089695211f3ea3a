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

use super::client::found;
use super::names::{Labels, filter, room_of};
use super::waits::Wait;
use super::{Docker, fence};
use crate::engine::EngineError;

/// How often addresses are chosen for one network.
const CHOICES: u32 = 8;

impl Docker {
    /// The room of a stage; `None` where the stage is not open.
    pub(super) async fn room_of_stage(&self, stage: StageId) -> Result<Option<String>, EngineError> {
        let api = self.client.api().await?;
        let name = self.names.stage(stage);
        let volume = found(self.client.call("inspect a volume", Wait::Quick, api.inspect_volume(&name)).await)?;
        Ok(volume.and_then(|volume| room_of(&volume.labels)))
    }

    /// Gives a stage the room that it has, else one that stands ready, else the name of one that is still to be made.
    pub(super) async fn take_room(&self, stage: StageId) -> Result<String, EngineError> {
        if let Some(room) = self.room_of_stage(stage).await? {
            return Ok(room);
        }
        // Held until the workspace says whose the room is.
        let mut ready = self.ready_rooms.lock().await;
        let room = ready.last().cloned().unwrap_or_else(|| self.names.new_room());
        self.make_volume(&self.names.stage(stage), &self.names.workspace_labels(stage, &room)).await?;
        ready.pop();
        Ok(room)
    }

    /// Sees to it that the room is there and its network held.
    pub(super) async fn hold(&self, room: &str) -> Result<(), EngineError> {
        match self.state(room).await? {
            Some(state) if state.running == Some(true) => return Ok(()),
            Some(_) => {}
            None => self.make_room(room).await?,
        }
        let mut held = self.attach(room, false).await?;
        self.start_own(room).await?;
        let word = held.first_word(self.options.waits.quick).await;
        if word.as_deref() == Some(fence::HELD) {
            return Ok(());
        }
        // Nobody shall take it for one that holds. Another one is told anew what to do.
        self.remove_container(room).await?;
        Err(match word {
            Some(word) => EngineError::NotClosed { said: String::from_utf8_lossy(&word).trim().to_owned() },
            // The engine went away, or the line to it broke.
            None => EngineError::NotHeld,
        })
    }

    /// A network, and its holder, which is not started.
    async fn make_room(&self, room: &str) -> Result<(), EngineError> {
        let labels = self.names.room_labels(room);
        let (own, networks) = self.make_network(room, &labels).await?;
        let mut holder = self.own_container(labels, Vec::new());
        holder.hostname = Some("beespace".to_owned());
        holder.cmd = Some(fence::orders(self.options.metadata_access, self.options.network_pool, own, &networks));
        if let Some(host) = &mut holder.host_config {
            host.network_mode = Some(room.to_owned());
            // The holder's alone: who shares its network cannot undo what it does there.
            host.cap_add = Some(vec!["NET_ADMIN".to_owned()]);
        }
        self.create_own(room, holder).await
    }

    /// The addresses of a new network, and all networks that are there.
    async fn make_network(&self, name: &str, labels: &Labels) -> Result<(Ipv4Net, Vec<Network>), EngineError> {
        let api = self.client.api().await?;
        let mut tries = 0;
        loop {
            tries += 1;
            // Asked first, because older engines make a second network of the same name.
            let networks = self.networks(None).await?;
            if let Some(network) = networks.iter().find(|network| network.name.as_deref() == Some(name)) {
                let cause = || format!("the network {name} has no addresses");
                let own = fence::own(network).ok_or_else(|| EngineError::Nonsense { call: "list networks", cause: cause() })?;
                return Ok((own, networks));
            }
            let pool = self.options.network_pool;
            let own = fence::free(pool, &networks, uuid::Uuid::now_v7().as_u64_pair().1);
            let own = own.ok_or_else(|| EngineError::NoNetworkLeft { pool, said: "all are taken".to_owned() })?;
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
            match self.client.call("make a network", Wait::Slow, api.create_network(network)).await {
                Ok(_) => return Ok((own, networks)),
                // Somebody else has chosen the same meanwhile. Engines have no code of their own for it.
                Err(EngineError::Refused { message, .. }) if says_taken(&message) => {
                    if tries == CHOICES {
                        return Err(EngineError::NoNetworkLeft { pool, said: message });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes the holder and its network.
    pub(super) async fn remove_room(&self, room: &str) -> Result<(), EngineError> {
        self.remove_container(room).await?;
        let api = self.client.api().await?;
        self.insist("remove a network", || api.remove_network(room)).await
    }

    /// Makes rooms until `wanted` of them stand ready, and removes those beyond it and those that are nobody's.
    pub(super) async fn stock_rooms(&self, wanted: usize) -> Result<(), EngineError> {
        let mut beyond = self.stray_rooms().await?;
        {
            let mut ready = self.ready_rooms.lock().await;
            let kept = ready.len().min(wanted);
            beyond.extend(ready.drain(kept..));
        }
        try_join_all(beyond.iter().map(|room| self.remove_room(room))).await?;
        // One at a time: who is at work meanwhile needs the engine more.
        while self.ready_rooms.lock().await.len() < wanted {
            let room = self.names.new_room();
            self.hold(&room).await?;
            self.ready_rooms.lock().await.push(room);
        }
        Ok(())
    }

    /// Rooms that neither stand ready nor are any workspace's: left by a process before this one.
    async fn stray_rooms(&self) -> Result<Vec<String>, EngineError> {
        let ready = self.ready_rooms.lock().await;
        let rooms = self.all_rooms().await?;
        let api = self.client.api().await?;
        // Asked last: a room is made after its workspace.
        let volumes = ListVolumesOptionsBuilder::new().filters(&filter(&self.names.instance_labels())).build();
        let volumes = self.client.call("list volumes", Wait::Quick, api.list_volumes(Some(volumes))).await?.volumes;
        let taken: BTreeSet<String> = volumes.into_iter().flatten().filter_map(|volume| room_of(&volume.labels)).collect();
        Ok(rooms.into_iter().filter(|room| !taken.contains(room) && !ready.contains(room)).collect())
    }

    async fn networks(&self, which: Option<ListNetworksOptions>) -> Result<Vec<Network>, EngineError> {
        let api = self.client.api().await?;
        self.client.call("list networks", Wait::Quick, api.list_networks(which)).await
    }

    async fn all_rooms(&self) -> Result<BTreeSet<String>, EngineError> {
        let api = self.client.api().await?;
        let ours = filter(&self.names.instance_labels());
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
        let containers = self.client.call("list containers", Wait::Quick, api.list_containers(Some(containers))).await?;
        let networks = self.networks(Some(ListNetworksOptionsBuilder::new().filters(&ours).build())).await?;
        let labels = containers.into_iter().filter_map(|container| container.labels);
        let labels = labels.chain(networks.into_iter().filter_map(|network| network.labels));
        Ok(labels.filter_map(|labels| room_of(&labels)).collect())
    }
}

/// Docker: "Pool overlaps with other one on this address space"; Podman: "subnet … is already used on the host or by another config".
fn says_taken(message: &str) -> bool {
    message.contains("overlap") || message.contains("already used")
}
