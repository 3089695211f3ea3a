//! The engine's images: what one contains, pulling one, and the image of pause containers, which is imported.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use beespace_core::image_ref::ImageRef;
use beespace_core::units::format_duration;
use bollard::body_full;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions};
use futures::StreamExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Client, optional};
use super::error::PauseImageRefused;
use super::names::{Names, label_filter};
use super::pause_image;
use super::pull::{FIRST_REPORT, MAX_REPORT_INTERVAL, PullOutcome, PullProgress, explain_failure};
use super::timeouts::CallKind;
use crate::engine::EngineError;
use crate::engine::container_io::{OutputSender, write_host_line};

/// How many images are remembered.
const MAX_REMEMBERED: usize = 1_000;

/// The facts of an image that affect the containers created from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageFacts {
    /// A reference that means exactly this image for ever: the name with the registry's digest, or the image's id if no registry
    /// has it under this name.
    pub(super) pinned: String,
    /// The variables that it sets.
    pub(super) env: Vec<String>,
    /// The paths at which an engine makes volumes of their own.
    pub(super) volumes: Vec<String>,
    /// Whether it has an entrypoint or a command.
    pub(super) has_command: bool,
}

impl ImageFacts {
    fn new(reference: &str, inspect: ImageInspect) -> Self {
        let config = inspect.config.unwrap_or_default();
        let wanted = reference.parse::<ImageRef>().ok().map(|image| image.name());
        let is_pinned = is_pinned(reference).then(|| reference.to_owned());
        let digests = inspect.repo_digests.unwrap_or_default();
        let digests = digests.iter().filter_map(|digest| digest.parse::<ImageRef>().ok());
        let digest = digests.filter(|digest| Some(digest.name()) == wanted).map(|digest| digest.normalized());
        Self {
            pinned: is_pinned.or_else(|| digest.min()).or(inspect.id).unwrap_or_else(|| reference.to_owned()),
            env: config.env.unwrap_or_default(),
            volumes: config.volumes.unwrap_or_default(),
            has_command: config.entrypoint.is_some_and(|words| !words.is_empty())
                || config.cmd.is_some_and(|words| !words.is_empty()),
        }
    }
}

/// Whether a reference means the same image for ever: it is an id, or has a digest.
fn is_pinned(reference: &str) -> bool {
    reference.starts_with("sha256:") || reference.contains("@sha256:")
}

/// The images of one engine. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Images {
    client: Client,
    names: Names,
    /// By pinned reference: what never changes is asked once.
    known: Arc<Mutex<HashMap<String, Arc<ImageFacts>>>>,
    /// Why the last import of the pause image failed.
    refused_import: Arc<Mutex<Option<PauseImageRefused>>>,
}

impl Images {
    pub(super) fn new(client: Client, names: Names) -> Self {
        Self { client, names, known: Arc::default(), refused_import: Arc::default() }
    }

    /// An image that the engine has; `None` if it has none under this reference.
    pub(super) async fn find(&self, reference: &str) -> Result<Option<Arc<ImageFacts>>, EngineError> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(reference) {
            return Ok(Some(Arc::clone(known)));
        }
        let api = self.client.api().await?;
        let inspect = self.client.call("inspect an image", CallKind::Quick, api.inspect_image(reference)).await;
        let Some(inspect) = optional(inspect)? else { return Ok(None) };
        let facts = Arc::new(ImageFacts::new(reference, inspect));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        if is_pinned(&facts.pinned) {
            known.insert(facts.pinned.clone(), Arc::clone(&facts));
        }
        Ok(Some(facts))
    }

    /// Forgets an image that the engine no longer has.
    pub(super) fn forget(&self, reference: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(reference);
    }

    /// Pulls an image and reports the progress in the step's log.
    pub(super) async fn pull(&self, image: &str, output: &OutputSender) -> Result<PullOutcome, EngineError> {
        let api = self.client.api().await?;
        write_host_line(output, format!("pulling {image}")).await;
        let began = Instant::now();
        let options = CreateImageOptionsBuilder::new().from_image(image).build();
        let mut updates = pin!(api.create_image(Some(options), None, None));
        let (mut progress, mut reported) = (PullProgress::default(), String::new());
        let (mut interval, mut report_due) = (FIRST_REPORT, began + FIRST_REPORT);
        let mut stalled = pin!(sleep(self.client.timeouts().pull_idle));
        loop {
            let update = tokio::select! {
                update = updates.next() => update,
                () = sleep_until(report_due) => {
                    interval = (interval * 2).min(MAX_REPORT_INTERVAL);
                    report_due += interval;
                    // A report without news is omitted.
                    if reported != progress.to_string() {
                        reported = progress.to_string();
                        write_host_line(output, reported.clone()).await;
                    }
                    continue;
                }
                () = &mut stalled => return self.stalled(image).await,
            };
            stalled.as_mut().reset(Instant::now() + self.client.timeouts().pull_idle);
            match update {
                None => break,
                Some(Ok(update)) => progress.update(&update),
                Some(Err(error)) => match self.client.map_error("pull", error) {
                    EngineError::Refused { message, .. } => return Ok(PullOutcome::Failed(explain_failure(image, &message))),
                    other => return Err(other),
                },
            }
        }
        write_host_line(output, format!("pulled {image} in {:.1} s", began.elapsed().as_secs_f64())).await;
        Ok(PullOutcome::Pulled)
    }

    /// The registry has stalled only if the engine itself still responds.
    async fn stalled(&self, image: &str) -> Result<PullOutcome, EngineError> {
        self.find(image).await?;
        let idle = format_duration(self.client.timeouts().pull_idle);
        Ok(PullOutcome::Failed(format!(
            "the image {image} could not be pulled: no data arrived for {idle}; check that its registry is up and that the \
             engine's host can reach it"
        )))
    }

    /// The name of the image of pause containers.
    pub(super) fn pause_image(&self) -> String {
        self.names.pause_image(&pause_image::DIGEST)
    }

    /// Why no stage can start: the engine has refused to import the image of pause containers.
    pub(super) fn refused_import(&self) -> Option<PauseImageRefused> {
        self.refused_import.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Imports the image of pause containers unless the engine has it.
    pub(super) async fn ensure_pause_image(&self) -> Result<(), EngineError> {
        if self.find(&self.pause_image()).await?.is_some() {
            *self.refused_import.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(());
        }
        self.import_pause_image().await
    }

    /// Imports the image of pause containers, and removes those of other versions of this program.
    pub(super) async fn import_pause_image(&self) -> Result<(), EngineError> {
        let imported = match self.try_import().await {
            Err(EngineError::Refused { message, .. }) => Err(PauseImageRefused { message }),
            other => Ok(other?),
        };
        *self.refused_import.lock().unwrap_or_else(PoisonError::into_inner) = imported.as_ref().err().cloned();
        imported?;
        self.remove_pause_images(Some(&self.pause_image())).await
    }

    async fn try_import(&self) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let image = self.pause_image();
        let (repository, tag) = image.split_once(':').unwrap_or((&image, "latest"));
        let mut changes = vec![format!("ENTRYPOINT [\"{}\"]", pause_image::PATH)];
        changes.extend(self.names.instance_labels().iter().map(|(key, value)| format!("LABEL {key}={value}")));
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).changes(changes).build();
        let layer = pause_image::layer()?;
        let import = async {
            let mut updates = pin!(api.create_image(Some(options), Some(body_full(layer.into())), None));
            while let Some(update) = updates.next().await {
                update?;
            }
            Ok(())
        };
        self.client.call("import the pause image", CallKind::Slow, import).await
    }

    /// Removes the pause images of this instance, except one. The engine keeps an image that a container still uses; the next
    /// removal tries again.
    pub(super) async fn remove_pause_images(&self, except: Option<&str>) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let own = ListImagesOptionsBuilder::new().filters(&label_filter(&self.names.instance_labels())).build();
        for image in self.client.call("list images", CallKind::Quick, api.list_images(Some(own))).await? {
            for tag in image.repo_tags.iter().filter(|tag| Some(tag.as_str()) != except) {
                let removal = api.remove_image(tag, None::<RemoveImageOptions>, None);
                let _ = self.client.call("remove a pause image", CallKind::Slow, removal).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ImageConfig;

    use super::*;

    fn facts(reference: &str, digests: &[&str]) -> ImageFacts {
        let digests = digests.iter().map(|digest| (*digest).to_owned()).collect();
        let inspect = ImageInspect { id: Some("sha256:1d".to_owned()), repo_digests: Some(digests), ..Default::default() };
        ImageFacts::new(reference, inspect)
    }

    #[test]
    fn an_image_is_pinned_to_the_digest_of_its_own_name_or_else_to_its_id() {
        let hex = "0a".repeat(32);
        let (own, other) = (format!("rust@sha256:{hex}"), format!("ghcr.io/acme/rust@sha256:{}", "0b".repeat(32)));
        let pinned = |reference: &str, digests: &[&str]| facts(reference, digests).pinned;
        assert_eq!(pinned("docker.io/library/rust:1", &[&other, &own]), format!("docker.io/library/rust@sha256:{hex}"));
        assert_eq!(pinned("docker.io/library/mine:1", &[&other, &own]), "sha256:1d");
        assert_eq!(pinned("docker.io/library/mine:1", &[]), "sha256:1d");
        let exact = format!("docker.io/library/rust@sha256:{hex}");
        assert_eq!(pinned(&exact, &[]), exact);
    }

    #[test]
    fn an_image_without_entrypoint_and_command_has_nothing_to_run() {
        let config = |cmd: &[&str]| {
            let cmd = cmd.iter().map(|word| (*word).to_owned()).collect();
            let config = ImageConfig { cmd: Some(cmd), ..Default::default() };
            ImageFacts::new("x", ImageInspect { config: Some(config), ..Default::default() })
        };
        assert!(config(&["sh"]).has_command && !config(&[]).has_command && !facts("x", &[]).has_command);
    }
}
