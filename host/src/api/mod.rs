//! The API, `/api/v1`: the same nouns as the pages and the command line. `/api/openapi.json` is generated from the routes.
//!
//! | file | noun |
//! |---|---|
//! | [`build`], [`start`], [`decision`] | builds, how people start them, and the decisions of policies about them |
//! | [`repository`], [`doctor`] | enabled repositories, and checks of their setup |
//! | [`schedule`] | schedules of repositories |
//! | [`delivery`], [`notice`] | deliveries from Gogs, notices to people |
//! | [`secret`] | secrets, write-only |
//! | [`event`] | live changes |
//! | [`step`], [`log`], [`log_stream`] | a step's log: finding the step, the formats, and live |
//! | [`health`] | health, version, metrics |
//! | [`dto`], [`pagination`] | JSON types and pagination |
//! | [`sse`] | event streams |
//! | [`openapi`] | what all operations of the document have in common |

pub mod build;
pub mod decision;
pub mod delivery;
pub mod doctor;
pub mod dto;
pub mod event;
pub mod health;
pub mod log;
pub mod log_stream;
pub mod notice;
mod openapi;
pub mod pagination;
pub mod repository;
pub mod schedule;
pub mod secret;
mod sse;
pub mod start;
pub mod step;

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use beespace_core::pipeline::reference;
use utoipa::OpenApi as _;
use utoipa::openapi::{OpenApi, Server};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::urls::Urls;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Beespace", description = "The CI server for Gogs. Errors are application/problem+json (RFC 9457)."),
    components(schemas(log::LogFormat))
)]
struct Document;

fn api_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(health::user))
        .routes(routes!(event::stream))
        .routes(routes!(repository::list, repository::enable))
        .routes(routes!(repository::show, repository::disable))
        .routes(routes!(repository::repair))
        .routes(routes!(doctor::examine))
        .routes(routes!(build::list))
        .routes(routes!(build::list_of_repository, start::start))
        .routes(routes!(build::show))
        .routes(routes!(build::decisions))
        .routes(routes!(build::restart))
        .routes(routes!(build::cancel))
        .routes(routes!(start::promote))
        .routes(routes!(start::rollback))
        .routes(routes!(build::approve))
        .routes(routes!(build::decline))
        .routes(routes!(schedule::list))
        .routes(routes!(schedule::set, schedule::remove))
        .routes(routes!(schedule::run))
        .routes(routes!(step::log))
        .routes(routes!(step::log_stream))
        .routes(routes!(secret::list_of_instance))
        .routes(routes!(secret::set_of_instance, secret::remove_of_instance))
        .routes(routes!(secret::list_of_plugins))
        .routes(routes!(secret::set_of_plugins, secret::remove_of_plugins))
        .routes(routes!(secret::list_of_repository))
        .routes(routes!(secret::set_of_repository, secret::remove_of_repository))
        .routes(routes!(delivery::list))
        .routes(routes!(delivery::show))
        .routes(routes!(delivery::retry))
        .routes(routes!(notice::list))
        .routes(routes!(notice::show))
        .routes(routes!(notice::retry))
        .routes(routes!(notice::retry_all))
}

/// The OpenAPI document.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = api_routes().split_for_parts().1;
    openapi::complete(&mut document);
    document
}

/// The API, health checks and metrics, to be merged into the server's router.
pub fn router(urls: &Urls) -> Router<Arc<App>> {
    let (routes, _) = api_routes().split_for_parts();
    let mut document = document();
    document.servers = Some(vec![Server::new(urls.home())]);
    let openapi = move || std::future::ready(Json(document.clone()));
    let schema = reference::json_schema();
    let schema = move || std::future::ready(Json(schema.clone()));
    routes
        .route("/api/openapi.json", get(openapi))
        .route("/schema/beespace.pipeline.v1.json", get(schema))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/version", get(health::version))
        .route("/metrics", get(health::metrics))
}
