//! Access control: may this caller call this route, and does a change come from a page of this server?

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::access::{self, Access};
use crate::app::App;
use crate::authorized::RequiredRight;
use crate::principal::Principal;
use crate::problem::Problem;

/// Checks a request by the table of routes. Under a repository it returns the right that [`crate::authorized`] has to check; a caller
/// who has this right on no repository is refused here already.
pub(super) fn check(
    app: &App,
    request: &Request,
    path: Option<&str>,
    principal: &Principal,
) -> Result<Option<RequiredRight>, Problem> {
    // A request without a route gets the fallback's response.
    let Some(path) = path else { return Ok(None) };
    let Some(access) = access::access(request.method(), path) else {
        if access::is_known(path) {
            let detail = "This URL does not support the request's method.";
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail));
        }
        tracing::error!(path, "a route is missing from the access table, so every request to it is refused");
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "This URL cannot be called."));
    };
    if access != Access::Hook && !request.method().is_safe() && !is_same_origin(app, request.headers()) {
        let detail = "The request came from a page of another site. Nothing was changed.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", detail));
    }
    let greatest = access::greatest_right(principal, app.config.server.open);
    let (may, required) = match access {
        Access::Anonymous | Access::Hook => (true, None),
        Access::Reader => (greatest.is_some(), None),
        Access::Admin => (principal.is_admin(), None),
        Access::Repository(right) => (greatest >= Some(right), Some(RequiredRight::new(right))),
    };
    if may {
        return Ok(required);
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "sign-in", "You must be signed in to do this.");
    Err(problem.help("Programs send `Authorization: Bearer TOKEN` with the admin token; `beespace login URL` stores it."))
}

/// Runs the handler. A handler under a repository must have checked the caller's right; the response of one that has not is withheld.
pub(super) async fn run(mut request: Request, required: Option<RequiredRight>, next: Next) -> Response {
    let Some(required) = required else { return next.run(request).await };
    request.extensions_mut().insert(required.clone());
    let response = next.run(request).await;
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    if required.was_checked() || is_error {
        return response;
    }
    tracing::error!("a handler under a repository did not check the caller's right, so its response was withheld");
    Problem::new(StatusCode::FORBIDDEN, "forbidden", "This URL cannot be called.").into_response()
}

/// Whether a request that changes something cannot come from another site's page. Browsers send `Sec-Fetch-Site`, older ones `Origin`.
/// Programs send neither and must then bring their own token, which no foreign page can make a browser do.
fn is_same_origin(app: &App, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    match text(header::ORIGIN) {
        Some(origin) => {
            let host = text(header::HOST).unwrap_or_default();
            let public = app.config.server.public_url.origin().ascii_serialization();
            origin == public || origin.split_once("://").is_some_and(|(_, authority)| authority == host && !host.is_empty())
        }
        None => headers.contains_key(header::AUTHORIZATION),
    }
}
