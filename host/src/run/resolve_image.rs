//! Resolves the reference of an image when a launch needs it: by the engine, or by a pull.

use beespace_core::exit::Exit;

use super::image_digests::BuildImages;
use super::stage_run::StageRun;
use crate::engine::{EngineError, ImageOutcome, Launch, OutputSender};

/// Why a reference was not resolved.
enum Unresolved {
    /// The image is not in the engine, or its registry has to be asked.
    NotPresent,
    /// The image cannot be run.
    Unusable(Exit),
    Engine(EngineError),
}

impl From<EngineError> for Unresolved {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl BuildImages {
    /// Resolves the reference of a launch that may never run: nothing is pulled.
    pub(super) async fn resolve_present(&self, run: &StageRun, launch: &mut Launch) -> Result<(), EngineError> {
        match self.resolve(run, launch, None).await {
            Ok(()) | Err(Unresolved::NotPresent | Unresolved::Unusable(_)) => Ok(()),
            Err(Unresolved::Engine(error)) => Err(error),
        }
    }

    /// Resolves the reference of a launch that begins now, and pulls the image if its plan wants it.
    pub(super) async fn resolve_or_pull(
        &self,
        run: &StageRun,
        launch: &mut Launch,
        output: &OutputSender,
    ) -> Result<ImageOutcome<()>, EngineError> {
        match self.resolve(run, launch, Some(output)).await {
            Ok(()) | Err(Unresolved::NotPresent) => Ok(ImageOutcome::Ready(())),
            Err(Unresolved::Unusable(exit)) => Ok(ImageOutcome::Unusable(exit)),
            Err(Unresolved::Engine(error)) => Err(error),
        }
    }

    /// Steps that need the same image at the same time wait for one pull. Without `output`, nothing is pulled.
    async fn resolve(&self, run: &StageRun, launch: &mut Launch, output: Option<&OutputSender>) -> Result<(), Unresolved> {
        let written = launch.container()?.image.clone();
        let Some(reference) = launch.container()?.image_reference() else { return Ok(()) };
        let cell = self.cell(reference.clone());
        let unresolved = &*launch;
        let ask = async || {
            let image = match output {
                Some(output) => match run.app.engine.pull_image(unresolved, output).await? {
                    ImageOutcome::Ready(image) => image,
                    ImageOutcome::Unusable(exit) => return Err(Unresolved::Unusable(exit)),
                },
                None => run.app.engine.find_image(unresolved).await?.ok_or(Unresolved::NotPresent)?,
            };
            // An engine without images has resolved nothing.
            if image != written {
                store(run, reference.clone(), &image).await;
            }
            Ok::<_, Unresolved>(image)
        };
        let image = cell.get_or_try_init(ask).await?.clone();
        launch.image = (image != written).then_some(image);
        Ok(())
    }
}

/// Stores what a reference means before the first container is created from it. Without a store the build continues: it ends at
/// its next step, with the store's error.
async fn store(run: &StageRun, reference: String, image: &str) {
    let image = image.to_owned();
    let stored = run.update_stage(move |stage| {
        stage.images.insert(reference.clone(), image.clone());
    });
    if let Err(error) = stored.await {
        tracing::warn!(stage = %run.id, %error, "could not store the image that a reference resolves to");
    }
}
