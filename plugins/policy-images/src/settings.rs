//! The settings of the binding.

use serde::Deserialize;

use crate::image_ref::{DEFAULT_REGISTRY, ImageRef};

/// The settings, described in `manifest.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) registries: Vec<String>,
    pub(crate) repositories: Vec<String>,
    pub(crate) forbidden_tags: Vec<String>,
    pub(crate) required_tags: Vec<String>,
    pub(crate) require_digest: bool,
}

impl Settings {
    pub(crate) fn read(json: &str) -> Result<Self, String> {
        let mut settings: Self = serde_json::from_str(json).map_err(|error| format!("the settings are invalid: {error}"))?;
        settings.registries.iter_mut().for_each(|registry| registry.make_ascii_lowercase());
        for repository in &mut settings.repositories {
            *repository = full_name(repository);
        }
        Ok(settings)
    }

    /// Checks what a JSON Schema cannot express. Each problem is a JSON pointer and a message.
    pub(crate) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        for (index, registry) in self.registries.iter().enumerate() {
            let is_registry = format!("{registry}/x").parse::<ImageRef>().is_ok_and(|reference| reference.registry() == registry);
            if !is_registry {
                let message = format!("{registry:?} is not a registry: expected a host such as ghcr.io or registry.example:5000");
                problems.push((format!("/registries/{index}"), message));
            }
        }
        for (index, repository) in self.repositories.iter().enumerate() {
            if repository.contains(['@', ' ']) || repository.rsplit('/').next().is_some_and(|last| last.contains(':')) {
                let message = format!(
                    "{repository:?} is not a repository: use \
                     `forbidden_tags`, `required_tags` or `require_digest` for tags and digests"
                );
                problems.push((format!("/repositories/{index}"), message));
            }
        }
        problems
    }

    /// Whether the settings restrict where images may come from.
    pub(crate) fn restricts_names(&self) -> bool {
        !self.registries.is_empty() || !self.repositories.is_empty()
    }
}

/// Completes a short name as it is completed for images: `rust` is `docker.io/library/rust`. A first part with a star may match a
/// registry, so it is not changed.
fn full_name(pattern: &str) -> String {
    let first = pattern.split('/').next().unwrap_or_default();
    let has_registry = pattern.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if has_registry || first.contains('*') {
        return pattern.to_owned();
    }
    let library = if pattern.contains('/') { "" } else { "library/" };
    format!("{DEFAULT_REGISTRY}/{library}{pattern}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_as_in_a_pipeline() {
        for (pattern, full) in [
            ("rust", "docker.io/library/rust"),
            ("acme/*", "docker.io/acme/*"),
            ("ghcr.io/acme/**", "ghcr.io/acme/**"),
            ("localhost:5000/*", "localhost:5000/*"),
            ("**", "**"),
            ("*.example/tools/*", "*.example/tools/*"),
        ] {
            assert_eq!(full_name(pattern), full);
        }
    }

    #[test]
    fn a_setting_that_can_never_match_is_reported() {
        let settings =
            r#"{"registries": ["https://ghcr.io", "ghcr.io"], "repositories": ["rust:1.95", "ghcr.io/a/*", "localhost:5000/a"]}"#;
        let problems = Settings::read(settings).unwrap().problems();
        let pointers: Vec<&str> = problems.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/registries/0", "/repositories/0"]);
        assert!(Settings::read(r#"{"registry": []}"#).is_err());
    }
}
