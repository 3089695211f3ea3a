//! The volumes of stages and steps, and uploads to them.

use std::path::Path;

use beespace_core::ids::{StageId, StepId};
use beespace_core::plan::WORKSPACE;
use bollard::body_try_stream;
use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions, UploadToContainerOptionsBuilder};
use futures::StreamExt as _;
use futures::future::join_all;

use super::client::Client;
use super::containers::Containers;
use super::create::FileUpload;
use super::internal_containers::InternalContainers;
use super::mounts::{scripts_mount, volume_mount};
use super::names::{Labels, Names, label_filter};
use super::timeouts::CallKind;
use crate::engine::EngineError;
use crate::engine::tar_stream::{self, HostFile, TarContents};

/// Volumes, and uploads to them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Files {
    client: Client,
    names: Names,
    containers: Containers,
    internal: InternalContainers,
}

impl Files {
    pub(super) fn new(client: Client, names: Names, containers: Containers, internal: InternalContainers) -> Self {
        Self { client, names, containers, internal }
    }

    pub(super) async fn create_volume(&self, name: &str, labels: &Labels) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let volume = VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels.clone()), ..Default::default() };
        self.client.call("create a volume", CallKind::Quick, api.create_volume(volume)).await.map(|_| ())
    }

    pub(super) async fn list_volumes(&self, labels: &Labels) -> Result<Vec<Volume>, EngineError> {
        let api = self.client.api().await?;
        let options = ListVolumesOptionsBuilder::new().filters(&label_filter(labels)).build();
        let volumes = self.client.call("list volumes", CallKind::Quick, api.list_volumes(Some(options))).await?.volumes;
        Ok(volumes.unwrap_or_default())
    }

    /// Removes all volumes that have these labels, except one. Tries all of them, and returns the first error.
    pub(super) async fn remove_volumes(&self, labels: &Labels, except: Option<&str>) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let names = self.list_volumes(labels).await?.into_iter().map(|volume| volume.name);
        let names: Vec<String> = names.filter(|name| except != Some(name.as_str())).collect();
        let removed = names.iter().map(|name| {
            self.client.remove_with_retry("remove a volume", || api.remove_volume(name, None::<RemoveVolumeOptions>))
        });
        join_all(removed).await.into_iter().collect()
    }

    /// Creates the container through which the workspace and the scripts of a stage are uploaded. It is never started. It is
    /// created when the stage is opened, because an engine gives a new volume the mode of the directory that it first covers, and
    /// the directory in our image is open to every user.
    pub(super) async fn create_upload_container(&self, stage: StageId) -> Result<(), EngineError> {
        let mounts = vec![volume_mount(&self.names.workspace(stage), WORKSPACE, false), scripts_mount(&self.names, stage, false)];
        let body = self.internal.body(self.names.stage_labels(stage), mounts);
        match self.internal.create(&self.names.upload_container(stage), body).await {
            // It exists since the stage was opened before.
            Err(EngineError::Refused { status: 409, .. }) => Ok(()),
            other => other,
        }
    }

    /// Uploads the sources and the scripts in one tar, because the engine unpacks each tar in a process of its own.
    pub(super) async fn fill(&self, stage: StageId, sources: Option<&Path>, scripts: Vec<HostFile>) -> Result<(), EngineError> {
        let contents = TarContents { files: scripts, tree: sources.map(|sources| (sources.to_owned(), WORKSPACE)) };
        match self.upload(&self.names.upload_container(stage), contents).await {
            Err(EngineError::Refused { status: 404, .. }) => Err(EngineError::NotOpen(stage)),
            uploaded => uploaded,
        }
    }

    /// Uploads the files of a container of a step.
    pub(super) async fn upload_files(&self, step: StepId, name: &str, upload: &FileUpload) -> Result<(), EngineError> {
        let (mounts, files) = match upload {
            FileUpload::None => return Ok(()),
            FileUpload::SharedScript(script) => return self.upload_script(step.stage_id(), script).await,
            FileUpload::OwnVolumes { mounts, files } => (mounts, files),
        };
        let upload_container = format!("{name}-fill");
        let body = self.internal.body(self.names.step_labels(step), mounts.clone());
        if let Err(EngineError::Refused { status: 409, .. }) = self.internal.create(&upload_container, body.clone()).await {
            self.containers.remove(&upload_container).await?;
            self.internal.create(&upload_container, body).await?;
        }
        self.upload(&upload_container, TarContents { files: files.clone(), ..TarContents::default() }).await
    }

    /// Uploads a script to the scripts of its stage.
    pub(super) async fn upload_script(&self, stage: StageId, script: &HostFile) -> Result<(), EngineError> {
        let upload_container = self.names.upload_container(stage);
        let contents = || TarContents { files: vec![script.clone()], ..TarContents::default() };
        match self.upload(&upload_container, contents()).await {
            // An external cleanup removed containers that were never started.
            Err(EngineError::Refused { status: 404, .. }) => {
                self.create_upload_container(stage).await?;
                self.upload(&upload_container, contents()).await
            }
            other => other,
        }
    }

    /// Uploads files to the volumes of a container of ours that was created for this and is never started. An upload to a
    /// container of the user could be used to attack the engine (CVE-2026-41567, CVE-2026-41568).
    async fn upload(&self, name: &str, contents: TarContents) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        // An error of the source would look like an error of the connection, so it is set aside while the tar is sent.
        let (set_aside, mut source_error) = tokio::sync::mpsc::channel(1);
        let tar = tar_stream::pack(contents).inspect(move |chunk| {
            if let Err(error) = chunk {
                let _ = set_aside.try_send(std::io::Error::new(error.kind(), error.to_string()));
            }
        });
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let upload = api.upload_to_container(name, Some(options), body_try_stream(tar));
        let uploaded = self.client.call("upload to a volume", CallKind::Transfer, upload).await;
        if let Ok(error) = source_error.try_recv() {
            return Err(EngineError::SourcesUnreadable(error));
        }
        uploaded
    }
}
