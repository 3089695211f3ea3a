//! Schedules of a repository: list, set, remove, run now.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use beespace_core::schedule::{DEFAULT_ZONE, Schedule};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::build::with_stages;
use super::dto::{BuildBody, optional_rfc3339};
use super::start::given_params;
use crate::app::App;
use crate::authorization::Authorized;
use crate::http_problem::Problem;
use crate::principal::Principal;
use crate::store::repository::Repository;
use crate::store::schedule::{ScheduleId, ScheduleOrigin, Schedules as _, StoredSchedule};
use crate::user_action;

/// A schedule with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleBody {
    /// The name, as `when: { cron: … }` selects it.
    pub name: String,
    /// Five fields, or `@daily` and its like.
    pub cron: String,
    /// IANA name of the time zone.
    pub zone: String,
    /// The branch that is built; none: the default branch.
    pub branch: Option<String>,
    /// Values for the params of the pipeline.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Whether it starts builds.
    pub enabled: bool,
    /// `person` or `file`: who has set it, and so where it is changed.
    pub origin: String,
    /// When it is due next. RFC 3339, in UTC.
    pub next_at: Option<String>,
    /// When it last started a build. RFC 3339, in UTC.
    pub last_at: Option<String>,
    /// The id of its last build.
    pub last_build: Option<String>,
}

/// A schedule to set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSetBody {
    /// Five fields, or `@daily` and its like.
    pub cron: String,
    /// IANA name of the time zone; by default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The branch to build; by default the default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Values for the params of the pipeline: texts, numbers, `true` or `false`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub params: BTreeMap<String, Value>,
    /// Whether it starts builds; by default true.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

fn enabled() -> bool {
    true
}

/// The schedule that a path names.
#[derive(Debug, Deserialize)]
pub(super) struct SchedulePath {
    schedule: String,
}

impl ScheduleBody {
    fn new(stored: &StoredSchedule) -> Self {
        let Schedule { name, cron, zone, branch, params, enabled } = stored.schedule.clone();
        let origin = match stored.origin {
            ScheduleOrigin::Person => "person",
            ScheduleOrigin::File => "file",
        };
        Self {
            name,
            cron,
            zone,
            branch,
            params,
            enabled,
            origin: origin.to_owned(),
            next_at: optional_rfc3339(stored.next),
            last_at: optional_rfc3339(stored.last.map(|(_, at)| at)),
            last_build: stored.last.map(|(build, _)| build.to_string()),
        }
    }
}

/// The schedules of a repository
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/schedules", tag = "schedule",
    params(("owner" = String, Path), ("name" = String, Path)),
    responses((status = OK, body = Vec<ScheduleBody>), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    repository: Authorized<Repository>,
) -> Result<Json<Vec<ScheduleBody>>, Problem> {
    let schedules = app.store.read()?.schedules(repository.id)?;
    Ok(Json(schedules.iter().map(ScheduleBody::new).collect()))
}

/// Set a schedule of a repository
#[utoipa::path(put, path = "/api/v1/repositories/{owner}/{name}/schedules/{schedule}", tag = "schedule",
    params(("owner" = String, Path), ("name" = String, Path), ("schedule" = String, Path)), request_body = ScheduleSetBody,
    responses((status = OK, body = ScheduleBody), (status = BAD_REQUEST, body = Problem), (status = CONFLICT, body = Problem)))]
pub(super) async fn set(
    State(app): State<Arc<App>>,
    repository: Authorized<Repository>,
    Path(path): Path<SchedulePath>,
    Json(body): Json<ScheduleSetBody>,
) -> Result<Json<ScheduleBody>, Problem> {
    let ScheduleSetBody { cron, zone, branch, params, enabled } = body;
    let zone = zone.unwrap_or_else(|| DEFAULT_ZONE.to_owned());
    let schedule = Schedule { name: path.schedule, cron, zone, branch, params: given_params(params)?, enabled };
    Ok(Json(ScheduleBody::new(&user_action::set_schedule(&app, &repository, schedule).await?)))
}

/// Remove a schedule of a repository
#[utoipa::path(delete, path = "/api/v1/repositories/{owner}/{name}/schedules/{schedule}", tag = "schedule",
    params(("owner" = String, Path), ("name" = String, Path), ("schedule" = String, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem), (status = CONFLICT, body = Problem)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    repository: Authorized<Repository>,
    Path(path): Path<SchedulePath>,
) -> Result<StatusCode, Problem> {
    let (name, id) = (&path.schedule, ScheduleId { repository: repository.id, name: path.schedule.clone() });
    app.store.remove_schedule(id).await.map_err(|error| Problem::of(error, name))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Start a build of a schedule now
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/schedules/{schedule}/run", tag = "schedule",
    params(("owner" = String, Path), ("name" = String, Path), ("schedule" = String, Path)),
    responses((status = OK, body = BuildBody), (status = NOT_FOUND, body = Problem), (status = CONFLICT, body = Problem)))]
pub(super) async fn run(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    repository: Authorized<Repository>,
    Path(path): Path<SchedulePath>,
) -> Result<Json<BuildBody>, Problem> {
    let id = user_action::run_schedule(&app, &repository, path.schedule, &principal).await?;
    with_stages(&app, id)
}
