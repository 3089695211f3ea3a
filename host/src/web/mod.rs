//! HTML pages, rendered on the server. They work without JavaScript; with it they update live.
//!
//! | file | shows |
//! |---|---|
//! | [`builds`] | all builds, and the builds of one owner |
//! | [`repository`] | a repository's builds, and its deliveries without a build |
//! | [`build`] | a build: its reason, stages, decisions and pipeline file |
//! | [`step`] | a step and its log |
//! | [`deliveries`] | webhook deliveries |
//! | [`notices`] | notices |
//! | [`login`] | sign-in and sign-out |
//! | [`action`], [`start`], [`schedule`] | the actions behind the buttons and forms |
//! | [`error`] | errors |
//!
//! The other modules are parts of these pages.

pub mod action;
pub mod assets;
pub mod build;
pub mod build_row;
pub mod builds;
pub mod callout;
pub mod decision;
pub mod deliveries;
pub mod error;
pub mod history;
pub mod icon;
pub mod layout;
pub mod log_view;
pub mod log_window;
pub mod login;
pub mod notices;
pub mod pipeline_file;
mod records;
pub mod repository;
pub mod schedule;
pub mod stage;
pub mod start;
pub mod step;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use beespace_core::ids::{BuildId, RepositoryId};
use beespace_core::sanitize;
use serde::Deserialize;

use crate::app::App;
use crate::http_problem::Problem;
use crate::store::lookup::BuildList;
use crate::store::status_filter::StatusFilter;

/// The routes of all pages.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(builds::all))
        .route("/{owner}", get(builds::of_owner))
        .route("/{owner}/{name}", get(repository::show))
        .route("/{owner}/{name}/builds", post(start::start))
        .route("/{owner}/{name}/schedules", post(schedule::set))
        .route("/{owner}/{name}/schedules/{schedule}/remove", post(schedule::remove))
        .route("/{owner}/{name}/schedules/{schedule}/run", post(schedule::run))
        .route("/{owner}/{name}/{number}", get(build::show))
        .route("/{owner}/{name}/{number}/{stage}/{step}", get(step::show))
        .route("/{owner}/{name}/{number}/restart", post(action::restart))
        .route("/{owner}/{name}/{number}/cancel", post(action::cancel))
        .route("/{owner}/{name}/{number}/promote", post(start::promote))
        .route("/{owner}/{name}/{number}/rollback", post(start::rollback))
        .route("/{owner}/{name}/{number}/approve", post(action::approve))
        .route("/{owner}/{name}/{number}/decline", post(action::decline))
        .route("/-/login", get(login::form).post(login::sign_in))
        .route("/-/logout", post(login::sign_out))
        .route("/-/assets/{file}", get(assets::serve))
        .route("/-/deliveries", get(deliveries::list))
        .route("/-/deliveries/{id}/retry", post(action::retry_delivery))
        .route("/-/notices", get(notices::list))
        .route("/-/notices/{id}/retry", post(action::retry_notice))
}

/// Rows on one page of a list.
const ROWS_PER_PAGE: usize = 50;

/// Query of a list: its filter, and where the page starts.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ListQuery {
    status: Option<String>,
    after: Option<String>,
}

impl ListQuery {
    /// The filter by status. An unknown one shows all builds: a person typed the URL.
    fn statuses(&self) -> StatusFilter {
        self.status.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// The list of builds that is requested, of one repository or of all.
    fn builds(&self, repository: Option<RepositoryId>) -> BuildList {
        BuildList { repository, statuses: self.statuses(), after: self.after().map(BuildId) }
    }

    /// The last id of the previous page. An invalid id shows the first page: a person typed the URL.
    fn after(&self) -> Option<uuid::Uuid> {
        self.after.as_deref().and_then(|text| text.parse().ok())
    }
}

fn render_page(page: &impl Template) -> Result<Response, Problem> {
    let html = page_html(page).map_err(|error| Problem::internal(&error))?;
    Ok(Html(html).into_response())
}

/// Renders a page. Templates escape text from outside, so that it cannot become markup. Here it is also sanitized, so that it
/// cannot hide or reorder characters: people approve what they read on a page.
fn page_html(page: &impl Template) -> askama::Result<String> {
    page.render().map(|html| sanitize::lines(&html))
}
