//! The page of notices.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use beespace_core::ids::NoticeId;
use beespace_core::notice::{Notice, NoticeState};
use beespace_core::time::Timestamp;

use super::callout::Callout;
use super::icon::icon;
use super::layout::{Layout, LiveScope};
use super::records::{self, EmptyRecords, RecordRow, RecordsPage};
use super::{ListQuery, ROWS_PER_PAGE, render_page};
use crate::app::App;
use crate::clock::now;
use crate::http_problem::Problem;
use crate::notify;
use crate::store::build::Builds as _;
use crate::store::notice::{Notices as _, OrderingKey};
use crate::store::suspended::{SuspendedBindings as _, Suspension};
use crate::store::{Read, StoreError};
use crate::urls::{self, Urls};
use crate::view::{build_title, time};

const NO_NOTICES: EmptyRecords = EmptyRecords {
    title: "No notices yet",
    text: "A `[[notifier]]` in `beespace.toml` sends a notice when a build finishes or is waiting for approval.",
};

const STATUSES: [(&str, &str); 4] =
    [("pending", "Pending"), ("suspended", "Suspended"), ("dead_letter", "Dead letter"), ("sent", "Sent")];

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let (read, now, href) = (app.store.read()?, now(), app.urls.below_base(urls::NOTICES));
    // An unknown filter shows all: a person typed the URL.
    let state = query.status.as_deref().and_then(NoticeState::parse);
    let status = state.map(NoticeState::as_str);
    let notices = read.notices(state, query.after().map(NoticeId), ROWS_PER_PAGE + 1)?;
    let (notices, older) = records::paginate(notices, &href, status, |notice| notice.id.to_string());
    let rows = notices.iter().map(|notice| row(&app.urls, &read, notice, now)).collect::<Result<_, _>>()?;
    let suspended = read.suspended_bindings()?;
    let callouts = suspended.iter().map(|(binding, suspension)| suspended_callout(binding, suspension)).collect();
    let layout = layout.with_title("Notices").in_section("notices").with_changes(LiveScope::All);
    let chips = records::filter_chips(&href, status, &STATUSES);
    let empty = if state.is_some() { records::NO_MATCH } else { NO_NOTICES };
    render_page(&RecordsPage { layout, heading: "Notices", href, chips, callouts, rows, older, empty })
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

fn row(urls: &Urls, read: &Read, notice: &Notice, now: Timestamp) -> Result<RecordRow, StoreError> {
    let (state, tone) = match notice.state {
        NoticeState::Pending => ("pending", "pending"),
        NoticeState::Sent => ("sent", "success"),
        NoticeState::DeadLetter => ("dead letter", "failure"),
        NoticeState::Suspended => ("suspended", "blocked"),
    };
    let build = read.build(notice.build)?;
    Ok(RecordRow {
        id: notice.id.to_string(),
        state: state.to_owned(),
        tone,
        name: build.as_ref().map_or_else(|| "Deleted build".to_owned(), build_title::build_name),
        href: build.as_ref().map(|build| urls.build(build)),
        kind: notice.kind.as_str().to_owned(),
        facts: std::iter::once(format!("notifier {}", notice.binding)).chain(progress(read, notice, now)?).collect(),
        why: notice.last_error.clone().filter(|_| notice.state != NoticeState::Sent),
        at: time::time_element(notice.created_at, now),
        may_retry: match notice.state {
            NoticeState::Sent => false,
            // It waits for its next attempt; a retry sends it at once.
            NoticeState::Pending => notice.attempts > 0,
            NoticeState::DeadLetter | NoticeState::Suspended => true,
        },
    })
}

/// The attempts so far, and what the notice waits for.
fn progress(read: &Read, notice: &Notice, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let attempts = match notice.total_attempts() {
        0 => None,
        1 => Some("1 attempt".to_owned()),
        count => Some(format!("{count} attempts")),
    };
    let waits = match notice.state {
        NoticeState::Sent | NoticeState::DeadLetter => None,
        NoticeState::Suspended => Some("waits until its notifier is resumed".to_owned()),
        NoticeState::Pending => {
            let first = read.oldest_unfinished(&OrderingKey::of(notice))?;
            let delay = notice.next_attempt_at.since(now);
            match first {
                Some(first) if first.id != notice.id => Some("waits for an earlier notice of this build".to_owned()),
                _ if notice.attempts > 0 => Some(format!("next attempt in {}", time::format_duration(delay))),
                _ => None,
            }
        }
    };
    Ok(attempts.into_iter().chain(waits).collect())
}
