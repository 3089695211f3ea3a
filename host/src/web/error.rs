//! What went wrong, as a page.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};

use super::layout::Layout;
use super::page_html;
use crate::problem::Problem;

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'p> {
    layout: Layout,
    code: u16,
    detail: &'p str,
    help: Option<&'p str>,
}

/// The page of a problem, with the request's id at its foot.
#[must_use]
pub fn page(layout: Layout, problem: &Problem) -> Response {
    let page = ErrorPage {
        layout: layout.with_title(problem.title.clone()),
        code: problem.status,
        detail: &problem.detail,
        help: problem.help.as_deref(),
    };
    match page_html(&page) {
        Ok(html) => (problem.status_code(), Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "the page of an error cannot be rendered");
            (problem.status_code(), problem.to_string()).into_response()
        }
    }
}
