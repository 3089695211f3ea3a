//! What is wrong, each finding with its cure.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::front::Front;
use crate::store::repository::Repository;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// `gogs`, `engine`, `hook of acme/app`.
    pub part: String,
    pub is_good: bool,
    /// What was found.
    pub detail: String,
    /// What to do, where it is not good.
    pub help: Option<String>,
}

impl Finding {
    fn good(part: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { part: part.into(), is_good: true, detail: detail.into(), help: None }
    }

    fn bad(part: impl Into<String>, detail: impl Into<String>, help: Option<String>) -> Self {
        Self { part: part.into(), is_good: false, detail: detail.into(), help }
    }
}

/// Look at everything that must be right for a push to become a build
#[utoipa::path(get, path = "/api/v1/doctor", tag = "doctor", responses((status = OK, body = Vec<Finding>)))]
pub(super) async fn examine(State(front): State<Arc<Front>>) -> Result<Json<Vec<Finding>>, Problem> {
    let mut findings = vec![gogs(&front).await, engine(&front).await];
    for repository in front.store.read()?.repositories()?.iter().filter(|repository| repository.hook.is_some()) {
        findings.push(hook(&front, repository).await);
    }
    Ok(Json(findings))
}

async fn gogs(front: &Front) -> Finding {
    match front.enabler.forge.user().await {
        Ok(user) => {
            Finding::good("gogs", format!("answers at {} and knows the token as {}", front.config.gogs.url, user.username))
        }
        Err(error) => {
            let reason = error.reason();
            Finding::bad("gogs", reason.message, reason.help)
        }
    }
}

async fn engine(front: &Front) -> Finding {
    match front.engine.check().await {
        Ok(_) => Finding::good("engine", format!("{} answers at {}", front.engine.kind(), front.config.engine.host)),
        Err(error) => Finding::bad("engine", error.to_string(), Some("see `engine.host` in beespace.toml".to_owned())),
    }
}

async fn hook(front: &Front, repository: &Repository) -> Finding {
    let part = format!("hook of {}", repository.name);
    let cure = || Some(format!("beespace repo repair {}", repository.name));
    let id = repository.hook.as_ref().map(|hook| hook.forge_id);
    match front.enabler.forge.hooks(&repository.name).await {
        Ok(hooks) => match hooks.iter().find(|hook| Some(hook.id) == id) {
            None => Finding::bad(part, "is not in Gogs any more", cure()),
            Some(hook) if !front.enabler.points_here(&hook.config.url) => Finding::bad(part, "points to another address", cure()),
            Some(hook) if !hook.fires_for_all() => Finding::bad(part, "does not fire for every event", cure()),
            Some(_) => Finding::good(part, "stands in Gogs and points here"),
        },
        Err(error) => {
            let reason = error.reason();
            Finding::bad(part, reason.message, reason.help)
        }
    }
}
