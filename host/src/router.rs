//! The router of the server: API, pages and webhook, behind the limits of a request and the middleware.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use tower_http::timeout::TimeoutLayer;

use crate::app::App;
use crate::{api, middleware, web};

/// The longest body of a request, in bytes. The webhook has its own limit.
const BODY_LIMIT: usize = 1024 * 1024;
/// The time from the header of a request to the header of its response. It does not limit the body of the response, for example the
/// lines of a live log.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// All routes. `webhook` is the webhook's router, which the middleware guards by the same table of routes.
pub fn router(app: &Arc<App>, webhook: Router) -> Router {
    api::router()
        .merge(web::router())
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, RESPONSE_TIMEOUT))
        .with_state(Arc::clone(app))
        .merge(webhook)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(app), middleware::handle))
}
