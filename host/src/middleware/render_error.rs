//! Error rendering: a handler returns a [`Problem`], which becomes JSON for programs or a page for people.

use axum::http::header;
use axum::response::Response;

use crate::app::App;
use crate::disk;
use crate::http_problem::{Problem, STORE_UNAVAILABLE};
use crate::web::error;
use crate::web::layout::Layout;

/// Replaces the empty response that carries a problem; other responses stay as they are. `layout` is the frame of an error page;
/// none for JSON.
pub(super) fn render(app: &App, mut response: Response, id: &str, layout: Option<Layout>) -> Response {
    let Some(mut problem) = response.extensions_mut().remove::<Problem>() else { return response };
    problem.request_id = Some(id.into());
    let rendered = match layout {
        Some(layout) => {
            if *problem.code == *STORE_UNAVAILABLE && disk::check_free_space(&app.config).is_err() {
                problem = problem.help("the server's disk is full; work continues by itself when there is space");
            }
            error::page(layout, &problem)
        }
        None => problem.json(),
    };
    let (mut parts, body) = rendered.into_parts();
    for (name, value) in response.headers() {
        parts.headers.entry(name).or_insert_with(|| value.clone());
    }
    // This was the length of the empty body.
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body)
}
