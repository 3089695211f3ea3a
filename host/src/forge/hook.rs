//! A repository's hooks in Gogs.

use beespace_core::gogs::EVENTS;
use beespace_core::ids::RepositoryName;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::client::Purpose;
use super::{Forge, ForgeError};

/// A hook as Gogs tells of it. It never tells the secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GogsHook {
    pub id: u64,
    /// `gogs`, or one of the chat services.
    #[serde(rename = "type")]
    pub kind: String,
    pub config: GogsHookConfig,
    /// None of them: it never fires.
    #[serde(default)]
    pub events: Option<Vec<String>>,
    #[serde(default)]
    pub active: bool,
}

/// Where a hook points.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GogsHookConfig {
    #[serde(default)]
    pub url: String,
    /// `json` or `form`.
    #[serde(default)]
    pub content_type: String,
}

impl GogsHook {
    /// Whether it fires for everything that Gogs has.
    #[must_use]
    pub fn fires_for_all_events(&self) -> bool {
        let events = self.events.as_deref().unwrap_or_default();
        self.active && EVENTS.iter().all(|event| events.iter().any(|has| has == event))
    }
}

impl Forge {
    /// All hooks of a repository, those of others included.
    ///
    /// # Errors
    /// [`ForgeError::Forbidden`] where the token's user is no administrator of it; others as they come.
    pub async fn hooks(&self, name: &RepositoryName) -> Result<Vec<GogsHook>, ForgeError> {
        self.get(&["repos", name.owner(), name.name(), "hooks"], purpose(name, "list the hooks of")).await
    }

    /// Adds a hook for every event that Gogs has, so that nobody must touch it when a later version builds more. What Gogs leaves
    /// out it decides by itself, and against us: `active` is false and `events` is push alone.
    ///
    /// # Errors
    /// [`ForgeError`].
    pub async fn create_hook(&self, name: &RepositoryName, url: &Url, secret: &SecretString) -> Result<GogsHook, ForgeError> {
        let hook = serde_json::json!({
            "type": "gogs",
            "active": true,
            "events": EVENTS,
            "config": { "url": url.as_str(), "content_type": "json", "secret": secret.expose_secret() },
        });
        self.post(&["repos", name.owner(), name.name(), "hooks"], &hook, purpose(name, "add a hook to")).await
    }

    /// Removes a hook; one that is gone is removed already. A hook's secret cannot be changed (Gogs ignores that), so a new secret
    /// means a new hook.
    ///
    /// # Errors
    /// [`ForgeError`].
    pub async fn delete_hook(&self, name: &RepositoryName, id: u64) -> Result<(), ForgeError> {
        let id = id.to_string();
        self.delete(&["repos", name.owner(), name.name(), "hooks", &id], purpose(name, "remove a hook of")).await
    }
}

fn purpose(name: &RepositoryName, action: &str) -> Purpose {
    Purpose { subject: format!("repository {name}"), action: format!("{action} {name}") }
}
