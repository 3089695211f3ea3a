//! The router of the server: API, pages and webhook, behind the limits of a request and the middleware.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use tower::ServiceExt as _;
use tower_http::timeout::TimeoutLayer;

use crate::app::App;
use crate::config::ServerConfig;
use crate::{api, middleware, urls, web};

/// The longest body of a request, in bytes. The webhook has its own limit.
const BODY_LIMIT: usize = 1024 * 1024;
/// The time from the header of a request to the header of its response. It does not limit the body of the response, for example
/// the lines of a live log.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// All routes. `webhook` is the webhook's router, which the middleware guards by the same table of routes.
pub fn router(app: &Arc<App>, webhook: Router) -> Router {
    let routes = api::router(&app.urls)
        .merge(web::router())
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, RESPONSE_TIMEOUT))
        .with_state(Arc::clone(app))
        .merge(webhook);
    below_base_paths(with_middleware(app, routes), &app.config.server)
}

/// Also serves the routes below the paths of the server's URLs, for a proxy that passes these paths on.
fn below_base_paths(router: Router, server: &ServerConfig) -> Router {
    let bases = [&server.public_url, server.hook_base()].map(|url| urls::base_path(url).to_owned());
    if bases.iter().all(String::is_empty) {
        return router;
    }
    let strip = move |mut request: Request| {
        let bases = bases.iter().filter(|base| !base.is_empty());
        if let Some(uri) = bases.filter_map(|base| urls::strip_base(request.uri(), base)).next() {
            *request.uri_mut() = uri;
        }
        request
    };
    // Outside of the router, because routes are matched before a layer of the router runs.
    Router::new().fallback_service(router.map_request(strip))
}

/// Puts the middleware around routes: it authenticates callers and checks their rights before a handler runs.
pub fn with_middleware(app: &Arc<App>, routes: Router) -> Router {
    routes.layer(axum::middleware::from_fn_with_state(Arc::clone(app), middleware::handle))
}
