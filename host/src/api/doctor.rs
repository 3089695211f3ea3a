//! The checks of `beespace doctor`: is everything in place for a push to become a build? Each finding has its remedy.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use beespace_core::clock_check::{ClockCheck, ClockSuspicion};
use beespace_core::policy::Mode;
use beespace_wasm::Plugin;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::clock::now;
use crate::config::FORKS;
use crate::disk;
use crate::http_problem::Problem;
use crate::notify;
use crate::store::notice::FailingNotifier;
use crate::store::repository::Repository;
use crate::store::secret::{SecretScope, Secrets as _};
use crate::store::suspended::{SuspendedBindings as _, Suspension};
use crate::store::{Read, StoreError};
use crate::view::time::{ago, format_duration};

/// The number of pending notices that the check of the notifiers looks at.
const MAX_PENDING_NOTICES: usize = 1_000;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The check passed.
    Ok,
    /// Builds run, but something needs attention.
    Warning,
    /// Builds do not run, or not all of them.
    Problem,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// The subject of the check: `gogs`, `engine`, `webhook of acme/app`.
    pub check: String,
    /// How serious the finding is.
    pub level: Level,
    /// The result, for people.
    pub detail: String,
    /// The remedy, if the check did not pass.
    pub help: Option<String>,
}

impl Finding {
    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), level: Level::Ok, detail: detail.into(), help: None }
    }

    fn warning(check: impl Into<String>, detail: impl Into<String>, help: Option<String>) -> Self {
        Self { check: check.into(), level: Level::Warning, detail: detail.into(), help }
    }

    fn problem(check: impl Into<String>, detail: impl Into<String>, help: Option<String>) -> Self {
        Self { check: check.into(), level: Level::Problem, detail: detail.into(), help }
    }
}

/// Check everything that a push needs to become a build
#[utoipa::path(get, path = "/api/v1/doctor", tag = "doctor", responses((status = OK, body = Vec<Finding>)))]
pub(super) async fn examine(State(app): State<Arc<App>>) -> Result<Json<Vec<Finding>>, Problem> {
    let StoreFacts { enabled, last_delivery, suspended, failing, clock, secrets } = store_facts(&app)?;
    let mut findings = vec![gogs(&app).await];
    // The setting that this check finds is one of the whole Gogs, so one repository is enough.
    if let Some(repository) = enabled.first() {
        findings.push(git_over_http(&app, repository).await);
    }
    findings.extend(engine(&app).await);
    findings.push(disk(&app));
    findings.extend(clock.and_then(|check| check.suspicion()).and_then(|suspicion| clock_jump(&suspicion)));
    findings.extend(app.plugins.all().map(plugin));
    findings.extend(policy_for_forks(&app));
    findings.extend(secrets);
    findings.extend(suspended.iter().filter(|(binding, _)| app.plugins.notifiers.contains_key(binding)).map(notifier));
    findings.extend(failing.iter().map(failing_notifier));
    for repository in &enabled {
        findings.push(permissions(&app, repository).await);
        findings.push(hook(&app, repository).await);
        findings.extend(last_fetch(&app, repository));
    }
    findings.push(deliveries(&app, last_delivery, enabled.len()));
    Ok(Json(findings))
}

/// The facts that the checks need from the store.
struct StoreFacts {
    enabled: Vec<Repository>,
    /// How long ago the last delivery arrived.
    last_delivery: Option<String>,
    suspended: Vec<(String, Suspension)>,
    failing: Vec<FailingNotifier>,
    clock: Option<ClockCheck>,
    secrets: Vec<Finding>,
}

fn store_facts(app: &App) -> Result<StoreFacts, StoreError> {
    let read = app.store.read()?;
    let enabled = read.repositories()?.into_iter().filter(|repository| repository.hook.is_some()).collect();
    let last_delivery = read.deliveries(None, None, 1)?.first().map(|delivery| ago(delivery.received_at, now()));
    let secrets = granted_secrets(app, &read)?;
    let (suspended, failing) = (read.suspended_bindings()?, read.failing_notifiers(MAX_PENDING_NOTICES)?);
    Ok(StoreFacts { enabled, last_delivery, suspended, failing, clock: read.clock_check()?, secrets })
}

async fn gogs(app: &App) -> Finding {
    match app.enabler.forge.user().await {
        Ok(user) => Finding::ok("gogs", format!("reachable at {}; the token belongs to {}", app.config.gogs.url, user.username)),
        Err(error) => {
            let reason = error.reason();
            Finding::problem("gogs", reason.message, reason.help)
        }
    }
}

/// Whether Gogs serves git over HTTP to the token's user, which the API does not report.
async fn git_over_http(app: &App, repository: &Repository) -> Finding {
    let url = app.forge.clone_url(&repository.name);
    match app.mirrors.check_remote(&url, &app.forge.access()).await {
        Ok(()) => Finding::ok("git over HTTP", format!("Gogs serves the commits of {}", repository.name)),
        Err(error) => {
            let reason = error.reason();
            Finding::problem("git over HTTP", reason.message, reason.help)
        }
    }
}

/// The last fetch of a repository, if it failed. Builds whose commit was here went on without it.
fn last_fetch(app: &App, repository: &Repository) -> Option<Finding> {
    let reason = app.mirrors.of(repository.id).last_fetch_failure()?.reason();
    Some(Finding::problem(format!("last fetch of {}", repository.name), reason.message, reason.help))
}

/// A jump of the clock that is not confirmed yet.
fn clock_jump(suspicion: &ClockSuspicion) -> Option<Finding> {
    let days = suspicion.jump?.as_secs() / 86_400;
    let detail = format!(
        "the clock moved {days} days ahead, or the server was off for that long; nothing expires for the next {} h",
        suspicion.ends_at().since(now()).as_secs().div_ceil(3_600)
    );
    Some(Finding::warning("clock", detail, Some("if the time of this machine is wrong, correct it".to_owned())))
}

/// Whether the engine responds, and its warnings. A warning does not prevent builds.
async fn engine(app: &App) -> Vec<Finding> {
    match app.engine.check().await {
        Ok(info) => {
            let address = app.config.engine.host().map(|host| format!(" at {host}")).unwrap_or_default();
            let detail = format!("{} {} responds{address}", info.kind, info.version);
            let warnings = info.warnings.into_iter();
            let warnings = warnings.map(|warning| Finding::warning("engine", warning.message, warning.help));
            std::iter::once(Finding::ok("engine", detail)).chain(warnings).collect()
        }
        Err(error) => {
            let reason = error.reason();
            vec![Finding::problem("engine", reason.message, reason.help)]
        }
    }
}

fn disk(app: &App) -> Finding {
    match disk::check_free_space(&app.config) {
        Ok(free) => Finding::ok("disk", format!("{} has {} MiB free", app.config.data.dir.display(), free >> 20)),
        Err(reason) => Finding::problem("disk", reason.message, reason.help),
    }
}

fn plugin(plugin: &Plugin) -> Finding {
    let detail = format!("{} {} is loaded ({})", plugin.manifest.name, plugin.manifest.version, plugin.component);
    Finding::ok(format!("plugin {}", plugin.binding), detail)
}

/// A finding about untrusted code, if the default policy does not decide about it.
fn policy_for_forks(app: &App) -> Option<Finding> {
    let check = format!("policy {FORKS}");
    let binding = app.config.policies.iter().find(|policy| policy.plugin.name == FORKS)?;
    if binding.is_default {
        let is_bound = app.plugins.policies.iter().any(|bound| bound.policy.plugin().binding == FORKS);
        let help = "run `plugins/build` and build the server again";
        let detail = "this binary has no bundled plugins, so untrusted code runs without an approval";
        return (!is_bound).then(|| Finding::problem(check, detail, Some(help.to_owned())));
    }
    let detail = format!("the configuration replaces the default policy for untrusted code, in mode `{}`", binding.mode.as_str());
    if binding.mode == Mode::Enforce {
        return Some(Finding::ok(check, detail));
    }
    let help = "set `mode = \"enforce\"`, or remove the binding, so that a person approves untrusted code before it runs";
    Some(Finding::warning(check, detail, Some(help.to_owned())))
}

/// The secrets that bindings may use: whether they are set for plugins.
fn granted_secrets(app: &App, read: &Read) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    for binding in &app.config.notifiers {
        for name in &binding.grants.secrets {
            let check = format!("secret {name} of notifier {}", binding.plugin.name);
            findings.push(match read.secret(SecretScope::Plugins, name)?.map(|secret| secret.moved_at) {
                Some(None) => Finding::ok(check, "set for plugins; no pipeline can read it"),
                Some(Some(moved_at)) => {
                    let moved = ago(moved_at, now());
                    let detail =
                        format!("moved from the secrets of the instance to those of plugins {moved}; no pipeline can read it");
                    Finding::ok(check, detail)
                }
                None => {
                    let help = format!("run `beespace secret set {name} --plugins`");
                    Finding::warning(check, "not set for plugins, so the notifier cannot use it", Some(help))
                }
            });
        }
    }
    Ok(findings)
}

/// A notifier whose notices are suspended.
fn notifier((binding, suspended): &(String, Suspension)) -> Finding {
    let reason = notify::suspended_reason(binding, suspended);
    Finding::problem(format!("notifier {binding}"), reason.message, reason.help)
}

/// A notifier whose receiver refuses notices that are retried.
fn failing_notifier(failing: &FailingNotifier) -> Finding {
    let FailingNotifier { binding, pending, last_error, next_attempt_at } = failing;
    let notices = match *pending {
        1 => "1 notice is pending".to_owned(),
        MAX_PENDING_NOTICES.. => format!("at least {MAX_PENDING_NOTICES} notices are pending"),
        count => format!("{count} notices are pending"),
    };
    let next = format_duration(next_attempt_at.since(now()));
    let help = format!(
        "correct the receiver, then run `beespace notice retry --notifier {binding}` to send them at once; without it, each \
         notice is retried for a day, with delays that grow to 10 minutes"
    );
    Finding::warning(
        format!("notifier {binding}"),
        format!("{notices}, the next attempt is in {next}; the last attempt failed: {last_error}"),
        Some(help),
    )
}

/// The permissions of the token's user in the repository.
async fn permissions(app: &App, repository: &Repository) -> Finding {
    let check = format!("permissions in {}", repository.name);
    match app.enabler.forge.repository(&repository.name).await {
        Ok(found) if found.id != repository.id.0 => {
            let help = format!(
                "if the repository was renamed, push to it; if it was deleted, run `beespace repo disable {name}`, and `beespace \
                 repo enable {name}` for the new one",
                name = repository.name
            );
            let detail = format!(
                "in Gogs this name belongs to repository {}, and repository {} was enabled, so nothing is fetched",
                found.id, repository.id
            );
            Finding::problem(check, detail, Some(help))
        }
        Ok(found) if found.permissions.is_some_and(|permissions| permissions.admin) => {
            Finding::ok(check, "the token's user is an administrator")
        }
        Ok(_) => {
            let help = "in Gogs, make the user a collaborator with the permission `admin`";
            Finding::problem(
                check,
                "the token's user is not an administrator of the repository, so Beespace cannot list or create its webhooks",
                Some(help.to_owned()),
            )
        }
        Err(error) => {
            let reason = error.reason();
            Finding::problem(check, reason.message, reason.help)
        }
    }
}

/// Gogs does not report why it did not send a delivery, so the remedy names both possible causes.
fn deliveries(app: &App, last_delivery: Option<String>, enabled: usize) -> Finding {
    match (last_delivery, enabled) {
        (Some(last_delivery), _) => Finding::ok("deliveries", format!("the last delivery arrived {last_delivery}")),
        (None, 0) => {
            let help = "run `beespace repo enable OWNER/NAME`".to_owned();
            Finding::warning("deliveries", "no repository is enabled yet", Some(help))
        }
        (None, _) => {
            let base = &app.enabler.hook_base;
            let host = base.host_str().unwrap_or_default();
            let help = format!(
                "push something; if no delivery arrives, check that Gogs can reach {base} (`server.hook_url`), and allow it in \
                 the section `[security]` of Gogs' app.ini with `LOCAL_NETWORK_ALLOWLIST = {host}`, because Gogs blocks \
                 webhooks to local addresses"
            );
            Finding::warning("deliveries", "no delivery has arrived yet", Some(help))
        }
    }
}

async fn hook(app: &App, repository: &Repository) -> Finding {
    let check = format!("webhook of {}", repository.name);
    let remedy = || Some(format!("run `beespace repo repair {}`", repository.name));
    let Some(row) = &repository.hook else {
        return Finding::problem(check, "this server has no record of the webhook", remedy());
    };
    match app.enabler.forge.hooks(&repository.name).await {
        Ok(hooks) => match hooks.iter().find(|hook| hook.id == row.forge_id) {
            None => Finding::problem(check, "the webhook no longer exists in Gogs", remedy()),
            Some(hook) if !app.enabler.points_to_this_server(&hook.config.url) => {
                Finding::problem(check, "the webhook points to another URL", remedy())
            }
            Some(hook) if !app.enabler.has_current_key(&hook.config.url, row) => Finding::problem(
                check,
                "the webhook's URL does not contain the current key, so this server refuses its deliveries",
                remedy(),
            ),
            Some(hook) if !hook.active => Finding::problem(check, "the webhook is not active in Gogs", remedy()),
            Some(hook) if !hook.fires_for_all_events() => {
                Finding::problem(check, "the webhook is not triggered by every event", remedy())
            }
            Some(_) => Finding::ok(check, "the webhook exists in Gogs and points to this server"),
        },
        Err(error) => {
            let reason = error.reason();
            Finding::problem(check, reason.message, reason.help)
        }
    }
}
