//! What the administrator wrote.

use serde::Deserialize;

use crate::image::{DEFAULT_REGISTRY, ImageRef};

/// The settings; `manifest.json` describes each.
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
        let mut settings: Self = serde_json::from_str(json).map_err(|error| format!("the settings cannot be read: {error}"))?;
        settings.registries.iter_mut().for_each(|registry| registry.make_ascii_lowercase());
        for repository in &mut settings.repositories {
            *repository = whole_name(repository);
        }
        Ok(settings)
    }

    /// What a schema cannot say, each with the place that it is at.
    pub(crate) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        for (place, registry) in self.registries.iter().enumerate() {
            let is_registry = format!("{registry}/x").parse::<ImageRef>().is_ok_and(|reference| reference.registry() == registry);
            if !is_registry {
                let message = format!("{registry:?} is no registry: expected a host such as ghcr.io or registry.example:5000");
                problems.push((format!("/registries/{place}"), message));
            }
        }
        for (place, repository) in self.repositories.iter().enumerate() {
            if repository.contains(['@', ' ']) || repository.rsplit('/').next().is_some_and(|last| last.contains(':')) {
                let message = format!("{repository:?} is no repository: tags and digests have settings of their own");
                problems.push((format!("/repositories/{place}"), message));
            }
        }
        problems
    }

    /// Whether images may come from some places only.
    pub(crate) fn restricts_names(&self) -> bool {
        !self.registries.is_empty() || !self.repositories.is_empty()
    }
}

/// `rust` is `docker.io/library/rust`, as it is for images. A first part with a star may stand for a registry, and stays.
fn whole_name(pattern: &str) -> String {
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
    fn short_names_mean_what_they_mean_in_a_pipeline() {
        for (pattern, whole) in [
            ("rust", "docker.io/library/rust"),
            ("acme/*", "docker.io/acme/*"),
            ("ghcr.io/acme/**", "ghcr.io/acme/**"),
            ("localhost:5000/*", "localhost:5000/*"),
            ("**", "**"),
            ("*.example/tools/*", "*.example/tools/*"),
        ] {
            assert_eq!(whole_name(pattern), whole);
        }
    }

    #[test]
    fn what_can_never_match_is_said() {
        let settings =
            r#"{"registries": ["https://ghcr.io", "ghcr.io"], "repositories": ["rust:1.95", "ghcr.io/a/*", "localhost:5000/a"]}"#;
        let problems = Settings::read(settings).unwrap().problems();
        let pointers: Vec<&str> = problems.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/registries/0", "/repositories/0"]);
        assert!(Settings::read(r#"{"registry": []}"#).is_err());
    }
}
