//! The settings of the binding.

use serde::Deserialize;

/// The settings, described in `manifest.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) pipeline_file: PipelineFile,
    pub(crate) groups: Vec<String>,
}

/// Whose pipeline files a pull request runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PipelineFile {
    #[default]
    Target,
    Head,
}

impl Settings {
    pub(crate) fn read(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| format!("the settings are invalid: {error}"))
    }
}
