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
use crate::app::App;
use crate::http_problem::Problem;
use crate::principal::Principal;
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

fn page(app: &App, layout: Layout, next: &str, wrong: bool) -> Result<Response, Problem> {
    let unsafe_transport = app.config.server.is_unsafe_transport();
    // The sign-in link on this page keeps the original destination instead of leading back to the sign-in page.
    let layout = Layout { path: safe_next(next).to_owned(), ..layout.with_title("Sign in") };
    render_page(&LoginPage { layout, next: safe_next(next).to_owned(), wrong, unsafe_transport })
}

pub(super) async fn form(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    Query(query): Query<LoginQuery>,
) -> Result<Response, Problem> {
    page(&app, layout, &query.next, false)
}

pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    Form(form): Form<LoginForm>,
) -> Result<Response, Problem> {
    if !app.admin_token.matches(form.token.trim()) {
        tracing::warn!("sign-in with a wrong token");
        let page = page(&app, layout, &form.next, true)?;
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    }
    let cookie = session::create(&app, &Principal::admin()).await?;
    Ok((response::AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to(&app.urls.below_base(safe_next(&form.next))))
        .into_response())
}

pub(super) async fn sign_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let cookie = session::delete(&app, &headers).await?;
    Ok((response::AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to(&app.urls.home())).into_response())
}
