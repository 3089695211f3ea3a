//! The webhooks of a repository in Gogs.

use beespace_core::gogs::EVENTS;
use beespace_core::ids::RepositoryName;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::client::Purpose;
use super::{Forge, ForgeError};

/// A webhook as the Gogs API returns it. The API never returns the secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GogsHook {
    pub id: u64,
    /// `gogs`, or one of the chat services.
    #[serde(rename = "type")]
    pub kind: String,
    pub config: GogsHookConfig,
    /// The events that trigger it; a webhook without events never fires.
    #[serde(default)]
    pub events: Option<Vec<String>>,
    #[serde(default)]
    pub active: bool,
}

/// The target of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GogsHookConfig {
    #[serde(default)]
    pub url: String,
    /// `json` or `form`.
    #[serde(default)]
    pub content_type: String,
}

impl GogsHook {
    /// Whether it is active and fires for every event of Gogs.
    #[must_use]
    pub fn fires_for_all_events(&self) -> bool {
        let events = self.events.as_deref().unwrap_or_default();
        self.active && EVENTS.iter().all(|event| events.iter().any(|has| has == event))
    }
}

impl Forge {
    /// All webhooks of a repository, including those of other systems.
    ///
    /// # Errors
    /// [`ForgeError::Forbidden`] if the token's user is not an administrator of the repository; otherwise any [`ForgeError`].
    pub async fn hooks(&self, name: &RepositoryName) -> Result<Vec<GogsHook>, ForgeError> {
        self.get(&["repos", name.owner(), name.name(), "hooks"], purpose(name, "list the webhooks of")).await
    }

    /// Adds a webhook for every event of Gogs, so that it need not be changed when a later version builds more kinds of events.
    /// All fields are set, because the defaults of Gogs do not fit: `active` would be false and `events` only push.
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
        self.post(&["repos", name.owner(), name.name(), "hooks"], &hook, purpose(name, "add a webhook to")).await
    }

    /// Deletes a webhook; one that no longer exists counts as deleted. Gogs ignores a change of a webhook's secret, so a new
    /// secret needs a new webhook.
    ///
    /// # Errors
    /// [`ForgeError`].
    pub async fn delete_hook(&self, name: &RepositoryName, id: u64) -> Result<(), ForgeError> {
        let id = id.to_string();
        self.delete(&["repos", name.owner(), name.name(), "hooks", &id], purpose(name, "delete a webhook of")).await
    }
}

fn purpose(name: &RepositoryName, action: &str) -> Purpose {
    Purpose { subject: format!("repository {name}"), action: format!("{action} {name}") }
}
