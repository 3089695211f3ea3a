//! The error page.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};

use super::layout::Layout;
use super::page_html;
use crate::http_problem::{Problem, sentence};

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    layout: Layout,
    code: u16,
    detail: String,
    help: Option<String>,
}

/// Renders a problem as a page. The footer shows the request id.
#[must_use]
pub fn page(layout: Layout, problem: &Problem) -> Response {
    let page = ErrorPage {
        layout: layout.with_title(problem.title.clone()),
        code: problem.status,
        detail: sentence(&problem.detail),
        help: problem.help.as_deref().map(sentence),
    };
    match page_html(&page) {
        Ok(html) => (problem.status_code(), Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the error page");
            (problem.status_code(), problem.to_string()).into_response()
        }
    }
}
