//! The one layer around every route: who is it, may they, does the request come from a page of ours, and what the answer says to
//! browsers. Problems that handlers return are rendered here.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use tracing::Instrument as _;

use crate::access::{self, Access};
use crate::api::problem::{Problem, STORE_UNAVAILABLE};
use crate::disk;
use crate::http_state::AppState;
use crate::session::{self, Principal};
use crate::urls;
use crate::web::layout::Layout;
use crate::web::{error, layout};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Scripts, styles and pictures are ours or there are none; nobody frames a page; forms lead back here.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                   form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The id of a request, in its span, its answer and on pages that tell of trouble.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Lets a request through to its handler, or answers in its place.
pub async fn guard(State(front): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    let id = uuid::Uuid::now_v7().simple().to_string();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!("request", %id, method = %request.method(), route = path.as_deref().unwrap_or("none"));
    let principal = session::authenticate(&front, request.headers()).await;
    let layout =
        Layout { request: Some(id.clone()), ..layout::for_request(&front, &principal, request.uri(), request.headers()) };
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(principal.clone());
    request.extensions_mut().insert(layout.clone());
    let is_page = !is_for_programs(request.uri().path());
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = match check(&front, &request, path.as_deref(), &principal) {
        Ok(()) => next.run(request).instrument(span).await,
        Err(problem) if is_page && is_get && problem.status_code() == StatusCode::UNAUTHORIZED => {
            Redirect::to(&urls::login(&layout.path)).into_response()
        }
        Err(problem) => problem.into_response(),
    };
    if response.status() == StatusCode::NOT_FOUND && path.is_none() {
        response = Problem::not_found("page").into_response();
    }
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.request_id = Some(id.as_str().into());
        if is_page && *problem.code == *STORE_UNAVAILABLE && disk::check_free_space(&front.config).is_err() {
            problem = problem.help("The disk of the server is full. It goes on by itself when there is room.");
        }
        let rendered = if is_page { error::page(layout, &problem) } else { problem.json() };
        let (mut parts, body) = rendered.into_parts();
        for (name, value) in response.headers() {
            parts.headers.entry(name).or_insert_with(|| value.clone());
        }
        // The empty body's length is not the length of what is sent now.
        parts.headers.remove(header::CONTENT_LENGTH);
        response = Response::from_parts(parts, body);
    }
    harden(response.headers_mut(), &id);
    response
}

fn is_for_programs(path: &str) -> bool {
    path.starts_with("/api/") || path.starts_with("/-/hook/") || matches!(path, "/healthz" | "/readyz" | "/version" | "/metrics")
}

fn check(front: &AppState, request: &Request, path: Option<&str>, principal: &Principal) -> Result<(), Problem> {
    // No route at all is the fallback's to answer.
    let Some(path) = path else { return Ok(()) };
    let Some(access) = access::access(request.method(), path) else {
        if access::is_known(path) {
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This address does not do that."));
        }
        tracing::error!(path, "a route without a row in the table of access answers nobody");
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "Nobody may call this."));
    };
    if access != Access::Hook && !request.method().is_safe() && !is_from_here(front, request.headers()) {
        let detail = "The request came from a page of another site, and nothing was changed.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", detail));
    }
    let may = match access {
        Access::Anonymous | Access::Hook => true,
        Access::Reader => front.config.server.open || principal.is_admin(),
        Access::Admin => principal.is_admin(),
    };
    if may {
        return Ok(());
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "sign-in", "This needs someone who is signed in.");
    Err(problem.help("Programs send `Authorization: Bearer TOKEN` with the admin token; `beespace login URL` remembers it."))
}

/// Whether a request that changes something was not made by a page of somebody else. Browsers tell by `Sec-Fetch-Site`, older ones
/// by `Origin`; programs send neither and must then bring a token themselves, which no foreign page can make a browser do.
fn is_from_here(front: &AppState, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    match text(header::ORIGIN) {
        Some(origin) => {
            let host = text(header::HOST).unwrap_or_default();
            let public = front.config.server.public_url.origin().ascii_serialization();
            origin == public || origin.split_once("://").is_some_and(|(_, authority)| authority == host && !host.is_empty())
        }
        None => headers.contains_key(header::AUTHORIZATION),
    }
}

fn harden(headers: &mut HeaderMap, id: &str) {
    // What a handler gives away as a file of strangers is held tighter than a page.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(CSP));
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}
