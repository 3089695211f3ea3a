//! A webhook of a repository, as the API creates and shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::commit::YEAR_ONE;

/// All events of Gogs, in the order in which it lists them.
const EVENTS: [&str; 8] = ["create", "delete", "fork", "push", "issues", "issue_comment", "pull_request", "release"];

/// The webhook types of Gogs; all but the first are chat systems.
const TYPES: [&str; 4] = ["gogs", "slack", "discord", "dingtalk"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentType {
    Json,
    Form,
}

#[derive(Debug, Clone)]
pub(super) struct Hook {
    pub(super) id: u64,
    pub(super) repository: u64,
    pub(super) kind: String,
    pub(super) url: String,
    pub(super) content_type: ContentType,
    pub(super) secret: String,
    pub(super) events: Vec<&'static str>,
    pub(super) active: bool,
    /// Gogs returns year one in the response to the creation.
    pub(super) changed_at: String,
}

/// `config` of a webhook. The secret is read when the webhook is created and never shown.
#[derive(Debug, Default, Deserialize)]
pub(super) struct HookConfig {
    url: Option<String>,
    content_type: Option<String>,
    secret: Option<String>,
}

/// Body of a request that creates a webhook.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CreateHook {
    #[serde(rename = "type")]
    kind: String,
    config: HookConfig,
    events: Option<Vec<String>>,
    /// Off by default.
    active: bool,
}

/// Body of a request that changes a webhook.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EditHook {
    config: HookConfig,
    events: Option<Vec<String>>,
    active: Option<bool>,
}

/// A webhook as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct HookObject {
    id: u64,
    #[serde(rename = "type")]
    kind: String,
    config: BTreeMap<&'static str, String>,
    events: Vec<&'static str>,
    active: bool,
    updated_at: String,
    created_at: String,
}

impl ContentType {
    fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "form" => Some(Self::Form),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Form => "form",
        }
    }
}

impl CreateHook {
    /// The webhook that the request describes.
    ///
    /// # Errors
    /// The message that Gogs returns with status 422.
    pub(super) fn accept(self, id: u64, repository: u64, now: String) -> Result<Hook, String> {
        if !TYPES.contains(&self.kind.as_str()) {
            return Err("Invalid hook type.".to_owned());
        }
        let Some(url) = self.config.url else { return Err("Missing config option: url".to_owned()) };
        let Some(content_type) = self.config.content_type else {
            return Err("Missing config option: content_type".to_owned());
        };
        let Some(content_type) = ContentType::named(&content_type) else { return Err("Invalid content type.".to_owned()) };
        Ok(Hook {
            id,
            repository,
            kind: self.kind,
            url,
            content_type,
            secret: self.config.secret.unwrap_or_default(),
            events: known_events(self.events),
            active: self.active,
            changed_at: now,
        })
    }
}

impl EditHook {
    /// Changes the webhook as Gogs does: a new secret is ignored, and missing events are reset to `push`.
    ///
    /// # Errors
    /// The message that Gogs returns with status 422.
    pub(super) fn apply(self, hook: &mut Hook, now: String) -> Result<(), String> {
        if let Some(content_type) = self.config.content_type {
            hook.content_type = ContentType::named(&content_type).ok_or("Invalid content type.")?;
        }
        if let Some(url) = self.config.url {
            hook.url = url;
        }
        hook.events = known_events(self.events);
        hook.active = self.active.unwrap_or(hook.active);
        hook.changed_at = now;
        Ok(())
    }
}

/// Unknown names are dropped silently; an empty list means `push`.
fn known_events(asked: Option<Vec<String>>) -> Vec<&'static str> {
    let asked = asked.filter(|events| !events.is_empty()).unwrap_or_else(|| vec!["push".to_owned()]);
    EVENTS.into_iter().filter(|event| asked.iter().any(|name| name == event)).collect()
}

impl Hook {
    /// Whether the webhook receives this event of its repository.
    pub(super) fn wants(&self, event: &str) -> bool {
        self.active && self.events.contains(&event)
    }

    pub(super) fn object(&self) -> HookObject {
        HookObject {
            id: self.id,
            kind: self.kind.clone(),
            config: BTreeMap::from([("content_type", self.content_type.name().to_owned()), ("url", self.url.clone())]),
            events: self.events.clone(),
            active: self.active,
            updated_at: self.changed_at.clone(),
            created_at: self.changed_at.clone(),
        }
    }

    /// The webhook as the response to its creation shows it.
    pub(super) fn created_object(&self) -> HookObject {
        HookObject { updated_at: YEAR_ONE.to_owned(), created_at: YEAR_ONE.to_owned(), ..self.object() }
    }
}
