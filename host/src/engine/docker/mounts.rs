//! Volumes as mounts of a container.

use beespace_core::ids::StageId;
use bollard::models::{Mount, MountType, MountVolumeOptions};

use super::injected_files::HOST_DIRECTORY;
use super::names::Names;

pub(super) fn volume_mount(name: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Default::default()
    }
}

/// The volume with the scripts of a stage. The engine creates it with the first container that mounts it: the stage's upload
/// container.
pub(super) fn scripts_mount(names: &Names, stage: StageId, read_only: bool) -> Mount {
    let labels = Some(names.stage_labels(stage));
    let options = MountVolumeOptions { labels, no_copy: Some(true), ..Default::default() };
    Mount { volume_options: Some(options), ..volume_mount(&names.scripts(stage), HOST_DIRECTORY, read_only) }
}
