//! Operations on single containers, by name. This module does not depend on the purpose of a container.

use std::sync::Arc;
use std::time::Duration;

use beespace_core::time::Timestamp;
use bollard::models::{ContainerCreateBody, ContainerState, ContainerStateStatusEnum, ContainerSummary};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures::future::join_all;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit, TryAcquireError};

use super::client::{Client, optional};
use super::names::{Labels, is_deferred_start, label_filter};
use super::output::parse_time;
use super::timeouts::CallKind;
use crate::clock::now;
use crate::engine::EngineError;

/// The containers of one engine. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Containers {
    client: Client,
    /// From TERM to KILL.
    grace: Duration,
    start_permits: Arc<Semaphore>,
    max_concurrent_starts: usize,
}

/// A container as the engine describes it.
pub(super) struct ContainerInspect {
    pub(super) state: ContainerState,
    /// Its program waits for the start signal.
    pub(super) is_deferred: bool,
}

impl ContainerInspect {
    pub(super) fn is_running(&self) -> bool {
        self.state.running == Some(true)
    }

    pub(super) fn is_created(&self) -> bool {
        self.state.status == Some(ContainerStateStatusEnum::CREATED)
    }

    pub(super) fn started_at(&self) -> Timestamp {
        self.state.started_at.as_deref().and_then(parse_time).unwrap_or_else(now)
    }
}

impl Containers {
    pub(super) fn new(client: Client, grace: Duration) -> Self {
        // Beyond two starts per core an engine only gets slower.
        let max_concurrent_starts = 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { client, grace, start_permits: Arc::new(Semaphore::new(max_concurrent_starts)), max_concurrent_starts }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    pub(super) fn max_concurrent_starts(&self) -> usize {
        self.max_concurrent_starts
    }

    /// A permit to start a container. The engine is asked to start only a limited number of containers at the same time.
    pub(super) async fn start_permit(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.start_permits.acquire().await
    }

    /// A permit to start a container early: only while at least half of the permits are free, because others wait for their
    /// starts.
    pub(super) fn early_start_permit(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        if self.start_permits.available_permits() <= self.max_concurrent_starts / 2 {
            return Err(TryAcquireError::NoPermits);
        }
        self.start_permits.try_acquire()
    }

    pub(super) async fn create(&self, call: &'static str, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.client.call(call, CallKind::Slow, api.create_container(Some(options), body)).await.map(|_| ())
    }

    /// Starts a container. The caller has a permit.
    pub(super) async fn start(&self, name: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        self.client.call("start a container", CallKind::Slow, api.start_container(name, None::<StartContainerOptions>)).await
    }

    /// Starts a container as soon as there is a permit.
    pub(super) async fn start_with_permit(&self, call: &'static str, name: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let _permit = self.start_permit().await;
        self.client.call(call, CallKind::Slow, api.start_container(name, None::<StartContainerOptions>)).await
    }

    /// `None` if there is no such container.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<ContainerInspect>, EngineError> {
        let api = self.client.api().await?;
        let inspect = api.inspect_container(name, None::<InspectContainerOptions>);
        let container = optional(self.client.call("inspect a container", CallKind::Quick, inspect).await)?;
        Ok(container.map(|container| ContainerInspect {
            is_deferred: container.config.and_then(|config| config.labels).is_some_and(|labels| is_deferred_start(&labels)),
            state: container.state.unwrap_or_default(),
        }))
    }

    /// `None` if there is no such container.
    pub(super) async fn state(&self, name: &str) -> Result<Option<ContainerState>, EngineError> {
        Ok(self.inspect(name).await?.map(|inspect| inspect.state))
    }

    /// All containers that have these labels, running or not.
    pub(super) async fn list(&self, labels: &Labels) -> Result<Vec<ContainerSummary>, EngineError> {
        let api = self.client.api().await?;
        let options = ListContainersOptionsBuilder::new().all(true).filters(&label_filter(labels)).build();
        self.client.call("list containers", CallKind::Quick, api.list_containers(Some(options))).await
    }

    /// Kills and removes a container. An absent one is not an error.
    pub(super) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let remove = || api.remove_container(name, Some(RemoveContainerOptionsBuilder::new().force(true).v(true).build()));
        self.client.remove_with_retry("remove a container", remove).await
    }

    /// Removes all containers that have these labels. Tries all of them, and returns the first error.
    pub(super) async fn remove_all(&self, labels: &Labels) -> Result<(), EngineError> {
        let containers = self.list(labels).await?;
        let ids: Vec<String> = containers.into_iter().filter_map(|container| container.id).collect();
        join_all(ids.iter().map(|id| self.remove(id))).await.into_iter().collect()
    }

    /// Sends a signal to a container's first process.
    pub(super) async fn kill(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        self.client.call("kill a container", CallKind::Quick, api.kill_container(name, Some(options))).await
    }
}
