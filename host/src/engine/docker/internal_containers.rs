//! Containers of the pause image. No code of the user ever runs in one: they own a stage's network, or only exist so that files
//! can be uploaded to their volumes.

use std::sync::Arc;

use bollard::models::{ContainerCreateBody, HostConfig, Mount};
use tokio::sync::OnceCell;

use super::containers::Containers;
use super::images::Images;
use super::names::{Labels, Names};
use crate::engine::EngineError;

/// Attempts to import the pause image for one container.
const MAX_IMPORTS: u32 = 3;

/// Makes containers of the pause image. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct InternalContainers {
    names: Names,
    images: Images,
    containers: Containers,
    /// Whether the engine can run an init process in a container. Tried once.
    init_works: Arc<OnceCell<bool>>,
}

impl InternalContainers {
    pub(super) fn new(names: Names, images: Images, containers: Containers) -> Self {
        Self { names, images, containers, init_works: Arc::default() }
    }

    /// A container of the pause image without a network, capabilities or privileges.
    pub(super) fn body(&self, labels: Labels, mounts: Vec<Mount>) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(self.images.pause_image()),
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

    /// Creates one. If the pause image is absent, imports it first. Another process of this instance may remove it again, because
    /// it stops.
    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let mut imports = 0;
        loop {
            match self.containers.create("create an internal container", name, body.clone()).await {
                Err(EngineError::Refused { status: 404, .. }) if imports < MAX_IMPORTS => {
                    imports += 1;
                    self.images.import_pause_image().await?;
                }
                created => return created,
            }
        }
    }

    pub(super) async fn start(&self, name: &str) -> Result<(), EngineError> {
        self.containers.start_with_permit("start an internal container", name).await
    }

    /// Whether containers can have an init process, which forwards TERM and reaps zombies. This is tried once, because some
    /// engines accept the setting without having the program (Debian's Podman).
    pub(super) async fn init_works(&self) -> Result<bool, EngineError> {
        let probe = async || {
            let name = self.names.init_probe();
            let mut body = self.body(self.names.instance_labels(), Vec::new());
            if let Some(host) = &mut body.host_config {
                host.init = Some(true);
            }
            self.containers.remove(&name).await?;
            let started = match self.create(&name, body).await {
                Ok(()) => self.start(&name).await,
                Err(error) => Err(error),
            };
            self.containers.remove(&name).await?;
            match started {
                Ok(()) => Ok(true),
                Err(EngineError::Refused { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.init_works.get_or_try_init(probe).await.copied()
    }
}
