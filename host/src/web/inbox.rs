//! What came in from Gogs and what goes out to people, each with its fate: deliveries and notices.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use beespace_core::ids::{DeliveryId, NoticeId};
use beespace_core::notice::{Notice, NoticeState};
use beespace_core::time::Timestamp;

use super::callout::Callout;
use super::html::{self, Html};
use super::layout::Layout;
use super::{ListQuery, ROWS_PER_PAGE, build_row, render_page};
use crate::app::App;
use crate::clock::now;
use crate::notify;
use crate::problem::Problem;
use crate::store::build::Builds as _;
use crate::store::delivery::{Delivery, DeliveryOutcome};
use crate::store::repository::Repositories as _;
use crate::store::suspended::{SuspendedBindings as _, Suspension};
use crate::store::{Read, StoreError};
use crate::urls;

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesPage {
    layout: Layout,
    rows: Vec<DeliveryRow>,
    older: Option<String>,
}

struct DeliveryRow {
    id: String,
    /// Its build, or its repository.
    place: String,
    href: Option<String>,
    event: String,
    forge_id: String,
    fate: &'static str,
    tone: &'static str,
    why: Option<String>,
    at: Html,
    may_replay: bool,
}

#[derive(Template)]
#[template(path = "notices.html")]
struct NoticesPage {
    layout: Layout,
    /// Notifiers that are suspended.
    callouts: Vec<Callout>,
    rows: Vec<NoticeRow>,
    older: Option<String>,
}

struct NoticeRow {
    id: String,
    kind: &'static str,
    /// Where the build is, and what it is called.
    build: Option<(String, String)>,
    binding: String,
    attempts: String,
    state: &'static str,
    tone: &'static str,
    why: Option<String>,
    at: Html,
    may_replay: bool,
}

pub(super) async fn deliveries(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let read = app.store.read()?;
    let mut all = read.deliveries(None, query.after().map(DeliveryId), ROWS_PER_PAGE + 1)?;
    let has_more = all.len() > ROWS_PER_PAGE;
    all.truncate(ROWS_PER_PAGE);
    let older = all.last().filter(|_| has_more).map(|last| build_row::older_href("/-/deliveries", None, &last.id.to_string()));
    let now = now();
    let rows = all.iter().map(|delivery| delivery_row(&read, delivery, now)).collect::<Result<_, _>>()?;
    render_page(&DeliveriesPage {
        layout: layout.with_title("Deliveries").at("deliveries").with_stream("/api/v1/events"),
        rows,
        older,
    })
}

/// The word for a fate, its colour, and the reason where there is one.
#[must_use]
pub fn outcome_label(fate: &DeliveryOutcome) -> (&'static str, &'static str, Option<String>) {
    match fate {
        DeliveryOutcome::Waiting => ("waiting", "pending", None),
        DeliveryOutcome::Built(_) => ("built", "success", None),
        DeliveryOutcome::Ignored(reason) => ("ignored", "skipped", Some(reason.to_string())),
        DeliveryOutcome::DeadLetter(reason) => ("given up", "failure", Some(reason.to_string())),
    }
}

fn delivery_row(read: &Read, delivery: &Delivery, now: Timestamp) -> Result<DeliveryRow, StoreError> {
    let repository = read.repository(delivery.repository)?;
    let (word, tone, why) = outcome_label(&delivery.outcome);
    let build = match delivery.outcome {
        DeliveryOutcome::Built(id) => read.build(id)?,
        _ => None,
    };
    let name = repository.as_ref().map(|repository| &repository.name);
    Ok(DeliveryRow {
        id: delivery.id.to_string(),
        place: match (&build, name) {
            (Some(build), _) => build_row::build_name(build),
            (None, Some(name)) => name.to_string(),
            (None, None) => format!("repository {}", delivery.repository),
        },
        href: build.as_ref().map(build_row::build_href).or_else(|| name.map(urls::repository)),
        event: delivery.event.clone(),
        forge_id: delivery.forge_id.clone(),
        fate: word,
        tone,
        why,
        at: html::time(delivery.received_at, now),
        may_replay: matches!(delivery.outcome, DeliveryOutcome::Ignored(_) | DeliveryOutcome::DeadLetter(_)),
    })
}

pub(super) async fn notices(
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
    let rows = all.iter().map(|notice| notice_row(&read, notice, now)).collect::<Result<_, _>>()?;
    let callouts = read.suspended_bindings()?.iter().map(|(binding, held)| suspended_callout(binding, held)).collect();
    render_page(&NoticesPage {
        layout: layout.with_title("Notices").at("notices").with_stream("/api/v1/events"),
        callouts,
        rows,
        older,
    })
}

fn suspended_callout(binding: &str, held: &Suspension) -> Callout {
    let reason = notify::suspended_reason(binding, held);
    Callout {
        status: "blocked",
        icon: html::icon("blocked"),
        title: "A notifier is suspended".to_owned(),
        message: reason.message,
        parts: Vec::new(),
        help: reason.help,
    }
}

fn notice_row(read: &Read, notice: &Notice, now: Timestamp) -> Result<NoticeRow, StoreError> {
    let (state, tone) = match notice.state {
        NoticeState::Pending => ("pending", "pending"),
        NoticeState::Sent => ("sent", "success"),
        NoticeState::DeadLetter => ("given up", "failure"),
        NoticeState::Suspended => ("suspended", "blocked"),
    };
    let build = read.build(notice.build)?;
    Ok(NoticeRow {
        id: notice.id.to_string(),
        kind: notice.kind.as_str(),
        build: build.as_ref().map(|build| (build_row::build_href(build), build_row::build_name(build))),
        binding: notice.binding.clone(),
        attempts: format!("{} attempt{}", notice.attempts, if notice.attempts == 1 { "" } else { "s" }),
        state,
        tone,
        why: notice.last_error.clone().filter(|_| notice.state != NoticeState::Sent),
        at: html::time(notice.created_at, now),
        may_replay: matches!(notice.state, NoticeState::DeadLetter | NoticeState::Suspended),
    })
}
