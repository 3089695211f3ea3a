//! Which image each reference of a build means. A reference is resolved once: all steps of the build run the same image, also
//! when its registry gets a new one meanwhile, and also after a restart of the server.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use beespace_core::plan::Container;
use tokio::sync::OnceCell;

/// The images of a build by the normal form of their references.
#[derive(Debug, Default)]
pub(super) struct BuildImages(Mutex<HashMap<String, Arc<OnceCell<String>>>>);

impl BuildImages {
    /// The images that an earlier process has stored.
    pub(super) fn stored(images: &BTreeMap<String, String>) -> Self {
        let cells = images.iter().map(|(reference, image)| (reference.clone(), Arc::new(OnceCell::from(image.clone()))));
        Self(Mutex::new(cells.collect()))
    }

    /// The place of what a reference means; empty until it is resolved.
    pub(super) fn cell(&self, reference: String) -> Arc<OnceCell<String>> {
        // No operation leaves the map inconsistent, so a poisoned lock is harmless.
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(reference).or_default())
    }

    /// The image of a container if the build has resolved its reference.
    pub(super) fn of(&self, container: &Container) -> Option<String> {
        self.cell(container.image_reference()?).get().cloned()
    }
}
