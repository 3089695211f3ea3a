//! What is wrong, each finding with its cure.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use beespace_wasm::Plugin;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::clock::now;
use crate::disk;
use crate::http_state::AppState;
use crate::notify;
use crate::store::StoreError;
use crate::store::repository::Repository;
use crate::store::suspended::{SuspendedBindings as _, Suspension};
use crate::view::time::ago;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// `gogs`, `engine`, `hook of acme/app`.
    pub part: String,
    /// Whether nothing needs to be done.
    pub is_ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do, where it is not good.
    pub help: Option<String>,
}

impl Finding {
    fn ok(part: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { part: part.into(), is_ok: true, detail: detail.into(), help: None }
    }

    fn problem(part: impl Into<String>, detail: impl Into<String>, help: Option<String>) -> Self {
        Self { part: part.into(), is_ok: false, detail: detail.into(), help }
    }
}

/// Look at everything that must be right for a push to become a build
#[utoipa::path(get, path = "/api/v1/doctor", tag = "doctor", responses((status = OK, body = Vec<Finding>)))]
pub(super) async fn examine(State(front): State<Arc<AppState>>) -> Result<Json<Vec<Finding>>, Problem> {
    let StoreFacts { enabled, last, held } = store_facts(&front)?;
    let mut findings = vec![gogs(&front).await];
    findings.extend(engine(&front).await);
    findings.push(disk(&front));
    findings.extend(front.plugins.iter().map(plugin));
    findings.extend(held.iter().filter(|(binding, _)| front.notifiers.contains(binding)).map(notifier));
    for repository in &enabled {
        findings.push(permissions(&front, repository).await);
        findings.push(hook(&front, repository).await);
    }
    findings.push(deliveries(&front, last, enabled.len()));
    Ok(Json(findings))
}

/// What the store tells.
struct StoreFacts {
    enabled: Vec<Repository>,
    /// How long ago Gogs was heard of.
    last: Option<String>,
    held: Vec<(String, Suspension)>,
}

fn store_facts(front: &AppState) -> Result<StoreFacts, StoreError> {
    let read = front.store.read()?;
    let enabled = read.repositories()?.into_iter().filter(|repository| repository.hook.is_some()).collect();
    let last = read.deliveries(None, None, 1)?.first().map(|delivery| ago(delivery.received_at, now()));
    Ok(StoreFacts { enabled, last, held: read.suspended_bindings()? })
}

async fn gogs(front: &AppState) -> Finding {
    match front.enabler.forge.user().await {
        Ok(user) => Finding::ok("gogs", format!("answers at {} and knows the token as {}", front.config.gogs.url, user.username)),
        Err(error) => {
            let reason = error.reason();
            Finding::problem("gogs", reason.message, reason.help)
        }
    }
}

/// Whether it answers, then each of its warnings: none of them keeps a build from running.
async fn engine(front: &AppState) -> Vec<Finding> {
    match front.engine.check().await {
        Ok(info) => {
            let detail = format!("{} {} answers at {}", info.kind, info.version, front.config.engine.host);
            let warnings = info.warnings.into_iter().map(|warning| Finding::ok("engine (to consider)", warning));
            std::iter::once(Finding::ok("engine", detail)).chain(warnings).collect()
        }
        Err(error) => {
            let help =
                "see that it runs, that `engine.host` in beespace.toml is its address, and that the server's user may use it";
            vec![Finding::problem("engine", error.to_string(), Some(help.to_owned()))]
        }
    }
}

fn disk(front: &AppState) -> Finding {
    match disk::check_free_space(&front.config) {
        Ok(free) => Finding::ok("disk", format!("{} has {} MiB free", front.config.data.dir.display(), free >> 20)),
        Err(reason) => Finding::problem("disk", reason.message, reason.help),
    }
}

fn plugin(plugin: &Plugin) -> Finding {
    let detail = format!("{} {} is loaded, {}", plugin.manifest.name, plugin.manifest.version, plugin.component);
    Finding::ok(format!("plugin {}", plugin.binding), detail)
}

/// One that is bound, and through which nothing goes.
fn notifier((binding, held): &(String, Suspension)) -> Finding {
    let reason = notify::suspended_reason(binding, held);
    Finding::problem(format!("notifier {binding}"), reason.message, reason.help)
}

/// What the token's user may do in the repository.
async fn permissions(front: &AppState, repository: &Repository) -> Finding {
    let part = format!("rights in {}", repository.name);
    match front.enabler.forge.repository(&repository.name).await {
        Ok(told) if told.permissions.is_some_and(|permissions| permissions.admin) => {
            Finding::ok(part, "the token's user is an administrator of it")
        }
        Ok(_) => {
            let help = "add the user in Gogs as a collaborator with the right `admin`";
            Finding::problem(
                part,
                "the token's user is no administrator of it, and hooks cannot be seen or made",
                Some(help.to_owned()),
            )
        }
        Err(error) => {
            let reason = error.reason();
            Finding::problem(part, reason.message, reason.help)
        }
    }
}

/// Gogs keeps to itself why it did not send, so this names the two reasons there are.
fn deliveries(front: &AppState, last: Option<String>, enabled: usize) -> Finding {
    match (last, enabled) {
        (Some(last), _) => Finding::ok("deliveries", format!("the last one from Gogs came {last}")),
        (None, 0) => {
            Finding::problem("deliveries", "no repository is enabled", Some("beespace repo enable OWNER/NAME".to_owned()))
        }
        (None, _) => {
            let base = &front.enabler.hook_base;
            let host = base.host_str().unwrap_or_default();
            let help = format!(
                "push something; if nothing comes, see that Gogs reaches {base} (`server.hook_url`), and let Gogs call it: \
                 `LOCAL_NETWORK_ALLOWLIST = {host}` in the section `[security]` of Gogs' app.ini, without which it calls no local address"
            );
            Finding::problem("deliveries", "none has ever arrived", Some(help))
        }
    }
}

async fn hook(front: &AppState, repository: &Repository) -> Finding {
    let part = format!("hook of {}", repository.name);
    let cure = || Some(format!("beespace repo repair {}", repository.name));
    let Some(row) = &repository.hook else { return Finding::problem(part, "is not known here any more", cure()) };
    match front.enabler.forge.hooks(&repository.name).await {
        Ok(hooks) => match hooks.iter().find(|hook| hook.id == row.forge_id) {
            None => Finding::problem(part, "is not in Gogs any more", cure()),
            Some(hook) if !front.enabler.points_to_this_server(&hook.config.url) => {
                Finding::problem(part, "points to another address", cure())
            }
            Some(hook) if !front.enabler.has_current_key(&hook.config.url, row) => {
                Finding::problem(part, "has another key than the one that was made for it: what it sends is refused", cure())
            }
            Some(hook) if !hook.active => Finding::problem(part, "is switched off in Gogs", cure()),
            Some(hook) if !hook.fires_for_all_events() => Finding::problem(part, "does not fire for every event", cure()),
            Some(_) => Finding::ok(part, "stands in Gogs and points here"),
        },
        Err(error) => {
            let reason = error.reason();
            Finding::problem(part, reason.message, reason.help)
        }
    }
}
