//! Access control: may this caller call this route, and does a change come from a page of this server?

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};

use crate::access::{self, Access};
use crate::app::App;
use crate::authorization;
use crate::http_problem::Problem;
use crate::principal::Principal;

/// Checks a request by the table of routes, before its handler runs. Under a repository the caller needs the right on that
/// repository.
pub(super) async fn check(app: &App, parts: &mut Parts, path: Option<&str>, principal: &Principal) -> Result<(), Problem> {
    // A request without a route gets the fallback's response.
    let Some(path) = path else { return Ok(()) };
    let Some(access) = access::access(&parts.method, path) else {
        if access::is_known(path) {
            let detail = format!("this URL does not support the method {}", parts.method);
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail));
        }
        tracing::error!(path, "a route is missing from the access table, so every request to it is refused");
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "this URL cannot be called"));
    };
    if access != Access::Hook && !parts.method.is_safe() && !is_same_origin(app, &parts.headers) {
        let detail = "the request came from a page of another site; nothing was changed";
        return Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", detail));
    }
    // On an open server the request could be served without rights, which would hide the mistake.
    if !matches!(access, Access::Anonymous | Access::Hook) && principal.is_anonymous() && brings_token(&parts.headers) {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "invalid-token", "the token in `Authorization` is not valid");
        return Err(problem.help("send the admin token, or no token to read what everyone may read"));
    }
    let greatest = access::greatest_right(principal, app.config.server.open);
    let may = match access {
        Access::Anonymous | Access::Hook => true,
        Access::Reader => greatest.is_some(),
        Access::Admin => principal.is_admin(),
        // A caller who has this right on no repository is asked to sign in.
        Access::Repository(right) if greatest >= Some(right) => {
            return authorization::authorize(app, parts, principal, right).await;
        }
        Access::Repository(_) => false,
    };
    if may {
        return Ok(());
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "sign-in", "you must be signed in to do this");
    Err(problem.help("programs send `Authorization: Bearer TOKEN` with the admin token; `beespace login URL` stores it"))
}

fn brings_token(headers: &HeaderMap) -> bool {
    headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"Bearer "))
}

/// Whether a request that changes something cannot come from another site's page. Browsers send `Sec-Fetch-Site`, older ones
/// `Origin`. Programs send neither and must then bring their own token, which no foreign page can make a browser do.
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
