//! The page of notices.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use beespace_core::ids::NoticeId;
use beespace_core::notice::{Notice, NoticeState};
use beespace_core::time::Timestamp;

use super::callout::Callout;
use super::icon::icon;
use super::layout::Layout;
use super::{ListQuery, ROWS_PER_PAGE, build_row, render_page};
use crate::app::App;
use crate::clock::now;
use crate::html::Html;
use crate::notify;
use crate::problem::Problem;
use crate::store::build::Builds as _;
use crate::store::suspended::{SuspendedBindings as _, Suspension};
use crate::store::{Read, StoreError};
use crate::view::{build_title, time};

#[derive(Template)]
#[template(path = "notices.html")]
struct NoticesPage {
    layout: Layout,
    /// One message per suspended notifier.
    callouts: Vec<Callout>,
    rows: Vec<NoticeRow>,
    older: Option<String>,
}

struct NoticeRow {
    id: String,
    kind: &'static str,
    /// Path and name of the build.
    build: Option<(String, String)>,
    binding: String,
    attempts: String,
    state: &'static str,
    tone: &'static str,
    why: Option<String>,
    at: Html,
    may_retry: bool,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let read = app.store.read()?;
    let mut all = read.notices(None, query.after().map(NoticeId), ROWS_PER_PAGE + 1)?;
    let has_more = all.len() > ROWS_PER_PAGE;
    all.truncate(ROWS_PER_PAGE);
    let older = all.last().filter(|_| has_more).map(|last| build_row::older_href("/-/notices", None, &last.id.to_string()));
    let now = now();
    let rows = all.iter().map(|notice| row(&read, notice, now)).collect::<Result<_, _>>()?;
    let callouts =
        read.suspended_bindings()?.iter().map(|(binding, suspension)| suspended_callout(binding, suspension)).collect();
    let layout = layout.with_title("Notices").in_section("notices").with_stream("/api/v1/events");
    render_page(&NoticesPage { layout, callouts, rows, older })
}

fn suspended_callout(binding: &str, suspension: &Suspension) -> Callout {
    let reason = notify::suspended_reason(binding, suspension);
    Callout {
        status: "blocked",
        icon: icon("blocked"),
        title: "A notifier is suspended".to_owned(),
        message: reason.message,
        parts: Vec::new(),
        help: reason.help,
    }
}

fn row(read: &Read, notice: &Notice, now: Timestamp) -> Result<NoticeRow, StoreError> {
    let (state, tone) = match notice.state {
        NoticeState::Pending => ("pending", "pending"),
        NoticeState::Sent => ("sent", "success"),
        NoticeState::DeadLetter => ("dead letter", "failure"),
        NoticeState::Suspended => ("suspended", "blocked"),
    };
    let build = read.build(notice.build)?;
    Ok(NoticeRow {
        id: notice.id.to_string(),
        kind: notice.kind.as_str(),
        build: build.as_ref().map(|build| (build_title::build_href(build), build_title::build_name(build))),
        binding: notice.binding.clone(),
        attempts: format!("{} attempt{}", notice.attempts, if notice.attempts == 1 { "" } else { "s" }),
        state,
        tone,
        why: notice.last_error.clone().filter(|_| notice.state != NoticeState::Sent),
        at: time::time_element(notice.created_at, now),
        may_retry: matches!(notice.state, NoticeState::DeadLetter | NoticeState::Suspended),
    })
}
