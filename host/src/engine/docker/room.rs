//! Rooms: a network, and the holder that keeps it open. Making one takes the engine longer than all else a stage needs, so some stand ready
//! before anybody asks for them.
//!
//! The holder also closes its network to the metadata services of clouds, where machines keep what lets them in elsewhere.
//!
//! A room has a name of its own. The stage that took it says so on its workspace, which is made before and removed after the room: whatever a
//! crash leaves, a room is either some workspace's or nobody's. A room serves one stage and is never handed on: its containers may have
//! written to what the holder shares with them.

use std::collections::BTreeSet;

use beespace_core::ids::StageId;
use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::{
    InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};
use futures::future::try_join_all;

use super::Docker;
use super::client::found;
use super::names::{Labels, filter, room_of};
use super::waits::Wait;
use crate::engine::EngineError;

/// How a holder ends that cannot close its network to metadata services (`host/gate`).
const NOT_CLOSED: i64 = 3;

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
            None => {
                let labels = self.names.room_labels(room);
                self.make_network(room, &labels).await?;
                let mut holder = self.own_container(labels, Vec::new());
                holder.hostname = Some("beespace".to_owned());
                let guards = !self.options.metadata_access;
                holder.cmd = guards.then(|| vec!["guard".to_owned()]);
                if let Some(host) = &mut holder.host_config {
                    host.network_mode = Some(room.to_owned());
                    // The holder's alone: who shares its network cannot undo what it does there.
                    host.cap_add = guards.then(|| vec!["NET_ADMIN".to_owned()]);
                }
                self.create_own(room, holder).await?;
            }
        }
        self.start_own(room).await?;
        match self.state(room).await? {
            Some(state) if state.exit_code == Some(NOT_CLOSED) && state.running != Some(true) => Err(EngineError::NotClosed),
            _ => Ok(()),
        }
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

    async fn all_rooms(&self) -> Result<BTreeSet<String>, EngineError> {
        let api = self.client.api().await?;
        let ours = filter(&self.names.instance_labels());
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
        let containers = self.client.call("list containers", Wait::Quick, api.list_containers(Some(containers))).await?;
        let networks = ListNetworksOptionsBuilder::new().filters(&ours).build();
        let networks = self.client.call("list networks", Wait::Quick, api.list_networks(Some(networks))).await?;
        let labels = containers.into_iter().filter_map(|container| container.labels);
        let labels = labels.chain(networks.into_iter().filter_map(|network| network.labels));
        Ok(labels.filter_map(|labels| room_of(&labels)).collect())
    }
}
