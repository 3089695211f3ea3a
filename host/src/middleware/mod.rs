//! The middleware around every route: authentication, access control, error rendering and security headers.
//!
//! | file | holds |
//! |---|---|
//! | [`auth`] | access control by the table of routes, and the protection against cross-site requests |
//! | [`render_error`] | a problem that a handler returned becomes JSON for programs or a page for people |
//! | [`security_headers`] | headers that restrict what browsers may load and embed |

mod auth;
mod render_error;
mod security_headers;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use tracing::Instrument as _;

use crate::app::App;
use crate::http_problem::Problem;
use crate::session;
use crate::web::layout::{self, Layout};

/// The id of a request: in the log, in the response header `x-request-id`, and on error pages.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Passes a request on to its handler, or responds in its place.
pub async fn handle(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // Identify the caller and the layout of their pages.
    let (mut parts, body) = request.into_parts();
    let id = uuid::Uuid::now_v7().simple().to_string();
    let path = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!("request", %id, method = %parts.method, route = path.as_deref().unwrap_or("none"));
    let principal = session::authenticate(&app, &parts.headers).await;
    let layout = Layout { request: Some(id.clone()), ..layout::for_request(&app, &principal, &parts.uri, &parts.headers) };
    let requested = parts.uri.path().to_owned();
    let is_page = !is_for_programs(&requested);
    let is_get = matches!(parts.method, Method::GET | Method::HEAD);

    // May they call this route?
    let checked = auth::check(&app, &mut parts, path.as_deref(), &principal).await;
    parts.extensions.insert(RequestId(id.clone()));
    parts.extensions.insert(principal);
    parts.extensions.insert(layout.clone());
    let mut response = match checked {
        Ok(()) => next.run(Request::from_parts(parts, body)).instrument(span).await,
        Err(problem) if is_page && is_get && problem.status_code() == StatusCode::UNAUTHORIZED => {
            Redirect::to(&layout.login()).into_response()
        }
        Err(problem) => problem.into_response(),
    };
    if response.status() == StatusCode::NOT_FOUND && path.is_none() {
        response = Problem::not_found("page", requested).into_response();
    }

    // Errors become JSON or a page, and every response gets its headers.
    let mut response = render_error::render(&app, response, &id, is_page.then_some(layout));
    security_headers::add(response.headers_mut(), &id);
    response
}

/// Whether a path is called by programs, which get errors as JSON.
fn is_for_programs(path: &str) -> bool {
    path.starts_with("/api/") || path.starts_with("/-/hook/") || matches!(path, "/healthz" | "/readyz" | "/version" | "/metrics")
}
