//! Sign-in with the admin token, and sign-out.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, response};
use serde::Deserialize;

use super::layout::Layout;
use super::render_page;
use crate::api::problem::Problem;
use crate::config::ServerConfig;
use crate::http_state::AppState;
use crate::session;
use crate::urls::safe_next;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    layout: Layout,
    next: String,
    wrong: bool,
    unsafe_transport: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct LoginQuery {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct LoginForm {
    token: String,
    #[serde(default)]
    next: String,
}

/// Whether an attacker on the network could read what people type: the public URL uses http and is not a loopback address.
#[must_use]
pub fn is_unsafe_transport(server: &ServerConfig) -> bool {
    let is_loopback = match server.public_url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    !server.is_https() && !is_loopback
}

fn page(front: &AppState, layout: Layout, next: &str, wrong: bool) -> Result<Response, Problem> {
    let unsafe_transport = is_unsafe_transport(&front.config.server);
    // The sign-in link on this page keeps the original destination instead of leading back to the sign-in page.
    let layout = Layout { path: safe_next(next).to_owned(), ..layout.with_title("Sign in") };
    render_page(&LoginPage { layout, next: safe_next(next).to_owned(), wrong, unsafe_transport })
}

pub(super) async fn form(
    State(front): State<Arc<AppState>>,
    Extension(layout): Extension<Layout>,
    Query(query): Query<LoginQuery>,
) -> Result<Response, Problem> {
    page(&front, layout, &query.next, false)
}

pub(super) async fn sign_in(
    State(front): State<Arc<AppState>>,
    Extension(layout): Extension<Layout>,
    Form(form): Form<LoginForm>,
) -> Result<Response, Problem> {
    if !front.is_admin_token(form.token.trim()) {
        tracing::warn!("sign-in with a wrong token");
        let page = page(&front, layout, &form.next, true)?;
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    }
    let cookie = session::begin(&front).await?;
    Ok((response::AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to(safe_next(&form.next))).into_response())
}

pub(super) async fn sign_out(State(front): State<Arc<AppState>>, headers: HeaderMap) -> Result<Response, Problem> {
    let cookie = session::delete(&front, &headers).await?;
    Ok((response::AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to("/")).into_response())
}
