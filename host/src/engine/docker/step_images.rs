//! Which image a plan's container runs. The engine always gets the complete name, of which there is only one interpretation.

use std::sync::Arc;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::image_ref::ImageRef;
use beespace_core::pipeline::Pull;
use beespace_core::plan::Container;

use super::images::{ImageFacts, Images};
use super::pull::PullOutcome;
use crate::engine::container_io::{Launch, OutputSender};
use crate::engine::{EngineError, ImageOutcome};

/// Finds and pulls the images of containers.
#[derive(Debug)]
pub(super) struct StepImages {
    pub(super) images: Images,
}

impl StepImages {
    /// The image of a launch if it can run without a request to its registry.
    pub(super) async fn find(&self, launch: &Launch) -> Result<Option<Arc<ImageFacts>>, EngineError> {
        let container = launch.container()?;
        match (&launch.image, reference(container)) {
            (Some(pinned), _) => self.images.find(pinned).await,
            (None, Ok(_)) if container.pull() == Pull::Always => Ok(None),
            (None, Ok(reference)) => self.images.find(&reference).await,
            (None, Err(_)) => Ok(None),
        }
    }

    /// The image of a launch, pulled if its plan wants it.
    pub(super) async fn pull(
        &self,
        launch: &Launch,
        output: &OutputSender,
    ) -> Result<ImageOutcome<Arc<ImageFacts>>, EngineError> {
        let container = launch.container()?;
        if launch.image.is_none() && container.pull() == Pull::Always {
            return self.request(container, None, output).await;
        }
        self.present_or_pulled(launch, output).await
    }

    /// The image of a launch that begins now. A build that has not determined its image gets the one that the engine has.
    pub(super) async fn present_or_pulled(
        &self,
        launch: &Launch,
        output: &OutputSender,
    ) -> Result<ImageOutcome<Arc<ImageFacts>>, EngineError> {
        let container = launch.container()?;
        let wanted = launch.image.as_deref();
        let found = match (wanted, reference(container)) {
            (Some(pinned), _) => self.images.find(pinned).await?,
            (None, Ok(reference)) => self.images.find(&reference).await?,
            (None, Err(exit)) => return Ok(ImageOutcome::Unusable(exit)),
        };
        match found {
            Some(image) => Ok(ImageOutcome::Ready(image)),
            None => self.request(container, wanted, output).await,
        }
    }

    /// Forgets the image of a launch: the engine no longer has it.
    pub(super) fn forget(&self, launch: &Launch) {
        if let Some(pinned) = &launch.image {
            self.images.forget(pinned);
        }
    }

    /// Pulls from the registry, `pinned` if the build has determined the image before.
    async fn request(
        &self,
        container: &Container,
        pinned: Option<&str>,
        output: &OutputSender,
    ) -> Result<ImageOutcome<Arc<ImageFacts>>, EngineError> {
        let failed = |text: String| Exit::not_started(&container.id, ExitCause::ImageFailed, text);
        let written = &container.image;
        let reference = match (pinned, reference(container)) {
            (Some(id), _) if !id.contains('@') => {
                return Ok(ImageOutcome::Unusable(failed(format!(
                    "the engine no longer has the image {written} ({id}) that earlier steps of this build ran, and no registry \
                     is known for it; restart the build"
                ))));
            }
            (Some(pinned), _) => pinned.to_owned(),
            (None, Ok(reference)) => reference,
            (None, Err(exit)) => return Ok(ImageOutcome::Unusable(exit)),
        };
        let pull = container.pull();
        if pull == Pull::Never {
            return Ok(ImageOutcome::Unusable(failed(format!(
                "the engine has no image {written}, and the step says `pull: never`; pull the image on the engine's host, or \
                 remove `pull: never`"
            ))));
        }
        if let PullOutcome::Failed(mut text) = self.images.pull(&reference, output).await? {
            if pull == Pull::Always && self.images.find(&reference).await?.is_some() {
                text.push_str(
                    "; the engine has an image of this name, perhaps an old one: to run it without asking the registry, set \
                     `pull: if-absent`",
                );
            }
            return Ok(ImageOutcome::Unusable(failed(text)));
        }
        let missing =
            || ImageOutcome::Unusable(failed(format!("the image {reference} was pulled, but the engine does not have it")));
        Ok(self.images.find(&reference).await?.map_or_else(missing, ImageOutcome::Ready))
    }
}

/// The complete name of a container's image.
fn reference(container: &Container) -> Result<String, Exit> {
    container.image.parse::<ImageRef>().map(|image| image.normalized()).map_err(|error| {
        let text = format!("{:?} is not a valid image name: {error}", container.image);
        Exit::not_started(&container.id, ExitCause::ImageFailed, text)
    })
}
