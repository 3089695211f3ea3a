//! The schedules on a repository's page, with the forms that set, remove and run them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::response::Redirect;
use beespace_core::schedule::{DEFAULT_ZONE, Schedule};
use beespace_core::time::Timestamp;
use serde::Deserialize;

use super::action;
use super::start::Fields;
use crate::app::App;
use crate::authorization::Authorized;
use crate::html::Html;
use crate::http_problem::Problem;
use crate::principal::Principal;
use crate::store::repository::Repository;
use crate::store::schedule::{ScheduleId, ScheduleOrigin, StoredSchedule};
use crate::urls::{Urls, encode};
use crate::user_action;
use crate::view::time;

/// A schedule in the list.
#[derive(Debug)]
pub struct ScheduleView {
    pub name: String,
    /// `0 3 * * * (Europe/Berlin), branch main`.
    pub times: String,
    /// `next 2026-12-01T03:00:00Z`, or that it is disabled.
    pub next: String,
    /// Path and time of the last build.
    pub last: Option<(String, Html)>,
    pub is_in_file: bool,
    /// The path of its forms.
    pub href: String,
}

impl ScheduleView {
    pub(super) fn new(urls: &Urls, repository: &Repository, stored: &StoredSchedule, now: Timestamp) -> Self {
        let Schedule { name, cron, zone, branch, params, .. } = &stored.schedule;
        let branch = branch.as_ref().map_or_else(String::new, |branch| format!(", branch {branch}"));
        let params: Vec<String> = params.iter().map(|(name, value)| format!(", {name}={value}")).collect();
        let base = urls.repository(&repository.name);
        Self {
            name: name.clone(),
            times: format!("{cron} ({zone}){branch}{}", params.concat()),
            next: stored.next.map_or_else(|| "disabled".to_owned(), |next| format!("next {}", time::rfc3339(next))),
            last: stored.last.map(|(build, at)| (format!("{base}/{build}"), time::time_element(at, now))),
            is_in_file: stored.origin == ScheduleOrigin::File,
            href: format!("{base}/schedules/{}", encode(name)),
        }
    }
}

/// The schedule that a path names.
#[derive(Debug, Deserialize)]
pub(super) struct SchedulePath {
    schedule: String,
}

type AuthorizedRepository = Result<Authorized<Repository>, Problem>;
type AnyForm = Form<Vec<(String, String)>>;

/// The fields of a form, once it is known to come from a page of this session.
fn checked(Form(fields): AnyForm, principal: &Principal) -> Result<Fields, Problem> {
    let fields = Fields::new(fields);
    action::check_csrf(fields.get("csrf").unwrap_or_default(), principal)?;
    Ok(fields)
}

pub(super) async fn set(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    repository: AuthorizedRepository,
    form: AnyForm,
) -> Result<Redirect, Problem> {
    let fields = checked(form, &principal)?;
    let repository = repository?;
    let schedule = Schedule {
        name: fields.get("name").unwrap_or_default().to_owned(),
        cron: fields.get("cron").unwrap_or_default().to_owned(),
        zone: fields.get("zone").unwrap_or(DEFAULT_ZONE).to_owned(),
        branch: fields.get("branch").map(str::to_owned),
        params: fields.params(),
        enabled: true,
    };
    user_action::set_schedule(&app, &repository, schedule).await?;
    Ok(Redirect::to(&app.urls.repository(&repository.name)))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    repository: AuthorizedRepository,
    Path(path): Path<SchedulePath>,
    form: AnyForm,
) -> Result<Redirect, Problem> {
    checked(form, &principal)?;
    let repository = repository?;
    let (name, id) = (&path.schedule, ScheduleId { repository: repository.id, name: path.schedule.clone() });
    app.store.remove_schedule(id).await.map_err(|error| Problem::of(error, name))?;
    Ok(Redirect::to(&app.urls.repository(&repository.name)))
}

pub(super) async fn run(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    repository: AuthorizedRepository,
    Path(path): Path<SchedulePath>,
    form: AnyForm,
) -> Result<Redirect, Problem> {
    checked(form, &principal)?;
    let id = user_action::run_schedule(&app, &*repository?, path.schedule, &principal).await?;
    Ok(Redirect::to(&app.urls.build(&app.build(id)?)))
}
