//! The API, `/api/v1`: the same nouns as the pages and the command line. The document at `/api/openapi.json` is made from the routes.
//!
//! | file | noun |
//! |---|---|
//! | [`build`], [`decision`] | builds and what policies decided about them |
//! | [`repository`], [`doctor`] | which repositories build, and what is wrong where one does not |
//! | [`delivery`], [`notice`] | what came in, what went out |
//! | [`secret`] | secrets, write-only |
//! | [`event`] | what changes, live |
//! | [`step`], [`log`] | a step's log: finding it, and the forms it has |
//! | [`health`] | how the server does |
//! | [`body`], [`page`], [`problem`] | shapes that they share |
//! | [`openapi`] | what the document says beside the routes |

pub mod build;
pub mod decision;
pub mod delivery;
pub mod doctor;
pub mod dto;
pub mod event;
pub mod health;
pub mod log;
pub mod notice;
mod openapi;
pub mod pagination;
pub mod problem;
pub mod repository;
pub mod secret;
pub mod step;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router, middleware};
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http_state::AppState;
use crate::{guard, web};

/// The longest body that the API takes.
const BODY_LIMIT: usize = 1024 * 1024;
/// From the head of a request to the head of its answer. What comes after it, the lines of a log that is followed, takes as long as it takes.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(OpenApi)]
#[openapi(
    info(title = "Beespace", description = "The CI server for Gogs. Errors are application/problem+json (RFC 9457)."),
    components(schemas(log::LogFormat))
)]
struct Document;

fn api_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(health::user))
        .routes(routes!(event::stream))
        .routes(routes!(repository::list, repository::enable))
        .routes(routes!(repository::show, repository::disable))
        .routes(routes!(repository::repair))
        .routes(routes!(doctor::examine))
        .routes(routes!(build::list))
        .routes(routes!(build::list_of_repository))
        .routes(routes!(build::show))
        .routes(routes!(build::decisions))
        .routes(routes!(build::restart))
        .routes(routes!(build::cancel))
        .routes(routes!(build::approve))
        .routes(routes!(build::decline))
        .routes(routes!(step::log))
        .routes(routes!(step::log_stream))
        .routes(routes!(secret::list_of_instance))
        .routes(routes!(secret::set_of_instance, secret::remove_of_instance))
        .routes(routes!(secret::list_of_repository))
        .routes(routes!(secret::set_of_repository, secret::remove_of_repository))
        .routes(routes!(delivery::list))
        .routes(routes!(delivery::show))
        .routes(routes!(delivery::replay))
        .routes(routes!(notice::list))
        .routes(routes!(notice::show))
        .routes(routes!(notice::replay))
}

/// The OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = api_routes().split_for_parts().1;
    openapi::complete(&mut document);
    document
}

/// Pages, API and health, behind the one guard. `hooks` is the webhook's router: it joins here so that its route stands in the same
/// table of access.
pub fn router(front: &Arc<AppState>, hooks: Router) -> Router {
    let (nouns, _) = api_routes().split_for_parts();
    let document = document();
    let openapi = move || std::future::ready(Json(document.clone()));
    nouns
        .route("/api/openapi.json", get(openapi))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/version", get(health::version))
        .route("/metrics", get(health::metrics))
        .merge(web::router())
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, RESPONSE_TIMEOUT))
        .with_state(Arc::clone(front))
        .merge(hooks)
        .layer(middleware::from_fn_with_state(Arc::clone(front), guard::guard))
}
