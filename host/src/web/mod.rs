//! Pages: rendered here, useful without script, better with it.
//!
//! | file | shows |
//! |---|---|
//! | [`builds`] | all builds, an owner's |
//! | [`repository`] | a repository's builds, and deliveries that became none |
//! | [`build`] | a build: reasons first, then stages, decisions, the pipeline file |
//! | [`step`] | a step's log |
//! | [`inbox`] | deliveries and notices |
//! | [`login`] | sign-in and sign-out |
//! | [`action`] | what buttons do |
//! | [`error`] | what went wrong |
//!
//! The rest are the parts they are made of.

pub mod action;
pub mod ansi;
pub mod assets;
pub mod build;
pub mod build_row;
pub mod builds;
pub mod callout;
pub mod decision;
pub mod error;
pub mod html;
pub mod inbox;
pub mod layout;
pub mod log_html;
pub mod log_tail;
pub mod login;
pub mod pipeline_file;
pub mod plan_text;
pub mod repository;
pub mod stage;
pub mod step;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use beespace_core::sanitize;
use beespace_core::status::Status;
use serde::Deserialize;

use crate::app::App;
use crate::problem::Problem;

/// All pages.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(builds::all))
        .route("/{owner}", get(builds::of_owner))
        .route("/{owner}/{name}", get(repository::show))
        .route("/{owner}/{name}/{number}", get(build::show))
        .route("/{owner}/{name}/{number}/{stage}/{step}", get(step::show))
        .route("/{owner}/{name}/{number}/restart", post(action::restart))
        .route("/{owner}/{name}/{number}/cancel", post(action::cancel))
        .route("/{owner}/{name}/{number}/approve", post(action::approve))
        .route("/{owner}/{name}/{number}/decline", post(action::decline))
        .route("/-/login", get(login::form).post(login::sign_in))
        .route("/-/logout", post(login::sign_out))
        .route("/-/assets/{file}", get(assets::serve))
        .route("/-/deliveries", get(inbox::deliveries))
        .route("/-/deliveries/{id}/retry", post(action::retry_delivery))
        .route("/-/notices", get(inbox::notices))
        .route("/-/notices/{id}/retry", post(action::retry_notice))
}

/// How many rows a page shows.
const ROWS_PER_PAGE: usize = 50;

/// Which part of a list a page shows.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ListQuery {
    status: Option<String>,
    after: Option<String>,
}

impl ListQuery {
    fn status(&self) -> Option<Status> {
        Status::ALL.into_iter().find(|status| Some(status.as_str()) == self.status.as_deref())
    }

    /// The last id of the page before. A broken one begins anew: the address was typed by hand.
    fn after(&self) -> Option<uuid::Uuid> {
        self.after.as_deref().and_then(|text| text.parse().ok())
    }
}

fn render_page(page: &impl Template) -> Result<Response, Problem> {
    let html = page_html(page).map_err(|error| Problem::internal(&error))?;
    Ok(Html(html).into_response())
}

/// The text of a page. Escaping keeps strangers' text from becoming markup; this keeps it from hiding or turning itself, on every
/// page and wherever on it: people approve what they read there.
fn page_html(page: &impl Template) -> askama::Result<String> {
    page.render().map(|html| sanitize::lines(&html))
}
