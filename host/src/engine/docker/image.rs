//! Images: the gate's, which we make ourselves, and the users', which are pulled.

use std::time::Duration;

use beespace_core::units::show_duration;
use bollard::body_full;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions};
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tokio::time::Instant;

use super::Docker;
use super::client::{QUICK, SLOW, found};
use super::names::filter;
use crate::engine::{EngineError, GATE, OutputSender, say};

/// The gate inside of its image.
pub(super) const GATE_PATH: &str = "/beespace-gate";
/// A pull that says nothing for this long is stuck.
const SILENCE: Duration = Duration::from_secs(5 * 60);
/// How often a pull says how far it is.
const PACE: Duration = Duration::from_secs(2);

/// An image is not to be had; a sentence for people.
#[derive(Debug)]
pub(super) struct Missing(pub(super) String);

impl Docker {
    /// The name of the gate's image.
    pub(super) fn gate_image(&self) -> String {
        let digest = hex::encode(Sha256::digest(GATE));
        self.names.gate_image(digest.get(..16).unwrap_or(&digest))
    }

    /// Makes the gate's image where it is not there, and drops those of other versions of ours.
    pub(super) async fn make_gate_image(&self) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let image = self.gate_image();
        let (repository, tag) = image.split_once(':').unwrap_or((&image, "latest"));
        let mut changes = vec![format!("ENTRYPOINT [\"{GATE_PATH}\"]")];
        changes.extend(self.names.instance_labels().iter().map(|(key, value)| format!("LABEL {key}={value}")));
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).changes(changes).build();
        let layer = gate_layer()?;
        let import = async {
            let mut steps = std::pin::pin!(api.create_image(Some(options), Some(body_full(layer.into())), None));
            while let Some(step) = steps.next().await {
                step?;
            }
            Ok(())
        };
        self.client.call("import the gate's image", SLOW, import).await?;
        self.drop_old_gates(&image).await
    }

    async fn drop_old_gates(&self, current: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let ours = ListImagesOptionsBuilder::new().filters(&filter(&self.names.instance_labels())).build();
        for image in self.client.call("list images", QUICK, api.list_images(Some(ours))).await? {
            for tag in image.repo_tags.iter().filter(|tag| *tag != current) {
                // One that still holds a network is refused, and goes the next time.
                let removal = api.remove_image(tag, None::<RemoveImageOptions>, None);
                let _ = self.client.call("remove an old image of the gate", SLOW, removal).await;
            }
        }
        Ok(())
    }

    /// Whether the engine has an image.
    pub(super) async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        let api = self.client.api().await?;
        Ok(found(self.client.call("inspect an image", QUICK, api.inspect_image(image)).await)?.is_some())
    }

    /// Pulls an image and tells the log how it goes.
    pub(super) async fn pull(&self, image: &str, output: &OutputSender) -> Result<Result<(), Missing>, EngineError> {
        let api = self.client.api().await?;
        say(output, format!("pulling {image}")).await;
        let began = Instant::now();
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image)).build();
        let mut steps = std::pin::pin!(api.create_image(Some(options), None, None));
        let mut progress = Progress::default();
        let mut told = Instant::now();
        loop {
            match tokio::time::timeout(SILENCE, steps.next()).await {
                Err(_) => {
                    return Ok(Err(Missing(format!(
                        "the pull of {image} got stuck: no progress for {}",
                        show_duration(SILENCE)
                    ))));
                }
                Ok(None) => break,
                Ok(Some(Ok(step))) => progress.take(&step),
                Ok(Some(Err(error))) => match self.client.explain("pull", error) {
                    EngineError::Refused { status, message, .. } => return Ok(Err(missing(image, status, &message))),
                    other => return Err(other),
                },
            }
            if told.elapsed() >= PACE {
                told = Instant::now();
                say(output, progress.to_string()).await;
            }
        }
        say(output, format!("pulled {image} in {:.1} s", began.elapsed().as_secs_f64())).await;
        Ok(Ok(()))
    }
}

/// The engine takes a name without tag for "all tags".
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

fn missing(image: &str, status: u16, message: &str) -> Missing {
    let absent = status == 404 || ["not found", "manifest unknown", "does not exist"].iter().any(|text| message.contains(text));
    if absent {
        Missing(format!(
            "no such image {image}; check its name and tag, and whether the engine may read that registry ({message})"
        ))
    } else {
        Missing(format!("the image {image} could not be pulled: {message}"))
    }
}

/// How many layers there are and how many are done.
#[derive(Debug, Default)]
struct Progress {
    layers: std::collections::BTreeMap<String, bool>,
}

impl Progress {
    fn take(&mut self, step: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&step.id, &step.status) else { return };
        match status.as_str() {
            "Pull complete" | "Already exists" => self.layers.insert(id.clone(), true),
            "Pulling fs layer" | "Downloading" | "Waiting" => self.layers.insert(id.clone(), false),
            _ => None,
        };
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = self.layers.values().filter(|done| **done).count();
        write!(f, "{done} of {} layers", self.layers.len())
    }
}

/// The gate, and the place where a workspace is mounted, open to every user: an engine gives a new volume the mode of the
/// directory that it first covers.
fn gate_layer() -> Result<Vec<u8>, EngineError> {
    let mut tar = Builder::new(Vec::new());
    let mut entry = |path: &str, kind: EntryType, mode: u32, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, path, bytes)
    };
    entry("beespace-gate", EntryType::Regular, 0o755, GATE)?;
    entry("workspace/", EntryType::Directory, 0o777, &[])?;
    Ok(tar.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_means_latest() {
        assert_eq!(with_tag("busybox"), "busybox:latest");
        assert_eq!(with_tag("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        assert_eq!(with_tag("localhost:5000/a/b:3"), "localhost:5000/a/b:3");
        assert_eq!(with_tag("a@sha256:00"), "a@sha256:00");
    }

    #[test]
    fn the_gate_is_static_and_small() {
        assert!(GATE.starts_with(b"\x7fELF"));
        assert!(GATE.len() <= 1_000_000, "{} bytes", GATE.len());
        assert!(!GATE.windows(11).any(|window| window == b"/lib64/ld-l"), "asks for a dynamic linker");
    }
}
