//! The engine's images: whether one is present, pulling one, and the image of pause containers, which is imported.

use std::pin::pin;

use beespace_core::units::format_duration;
use bollard::body_full;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions};
use futures::StreamExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Client, optional};
use super::names::{Names, label_filter};
use super::pause_image;
use super::pull::{FIRST_REPORT, MAX_REPORT_INTERVAL, PullOutcome, PullProgress, explain_failure, with_tag};
use super::timeouts::CallKind;
use crate::engine::EngineError;
use crate::engine::launch::{OutputSender, write_host_line};

/// The images of one engine. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Images {
    client: Client,
    names: Names,
}

impl Images {
    pub(super) fn new(client: Client, names: Names) -> Self {
        Self { client, names }
    }

    /// Whether the engine has an image.
    pub(super) async fn is_present(&self, image: &str) -> Result<bool, EngineError> {
        let api = self.client.api().await?;
        Ok(optional(self.client.call("inspect an image", CallKind::Quick, api.inspect_image(image)).await)?.is_some())
    }

    /// Pulls an image and reports the progress in the step's log.
    pub(super) async fn pull(&self, image: &str, output: &OutputSender) -> Result<PullOutcome, EngineError> {
        let api = self.client.api().await?;
        write_host_line(output, format!("pulling {image}")).await;
        let began = Instant::now();
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image)).build();
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
        self.is_present(image).await?;
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

    /// Imports the image of pause containers, and removes those of other versions of this program.
    pub(super) async fn import_pause_image(&self) -> Result<(), EngineError> {
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
        self.client.call("import the pause image", CallKind::Slow, import).await?;
        self.remove_old_pause_images(&image).await
    }

    async fn remove_old_pause_images(&self, current: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let own = ListImagesOptionsBuilder::new().filters(&label_filter(&self.names.instance_labels())).build();
        for image in self.client.call("list images", CallKind::Quick, api.list_images(Some(own))).await? {
            for tag in image.repo_tags.iter().filter(|tag| *tag != current) {
                // The engine refuses to remove an image that a container still uses. The next import tries again.
                let removal = api.remove_image(tag, None::<RemoveImageOptions>, None);
                let _ = self.client.call("remove an old pause image", CallKind::Slow, removal).await;
            }
        }
        Ok(())
    }
}
