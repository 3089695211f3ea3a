//! The labels of a pull request, read from Gogs for each round of decisions: Gogs reports some of their changes to nobody.

use beespace_core::build::Build;
use beespace_core::event::bounded_labels;
use beespace_core::plugin_context::with_labels;

use crate::app::App;
use crate::source::ChangeSet;

/// The change of a build with the labels that its pull request has now. Policies see that they are unknown if Gogs does not tell
/// them. Other builds are unchanged.
pub async fn with_present_labels(app: &App, build: &Build, change_set: ChangeSet) -> ChangeSet {
    let Some(pull) = build.event.pull_request() else { return change_set };
    let labels = match app.forge.issue(&build.event.repository.name, pull.number).await {
        Ok(issue) => Some(bounded_labels(issue.labels.iter().map(|label| label.name.as_str()))),
        Err(error) => {
            tracing::warn!(build = %build.id, %error, "could not read the labels of a pull request; policies see none");
            None
        }
    };
    ChangeSet { event: with_labels(&change_set.event, labels.as_deref()), ..change_set }
}
