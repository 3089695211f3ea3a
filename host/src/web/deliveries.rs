//! The page of webhook deliveries.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use beespace_core::ids::DeliveryId;
use beespace_core::time::Timestamp;

use super::layout::Layout;
use super::{ListQuery, ROWS_PER_PAGE, build_row, render_page};
use crate::app::App;
use crate::clock::now;
use crate::html::Html;
use crate::problem::Problem;
use crate::store::build::Builds as _;
use crate::store::delivery::{Delivery, DeliveryOutcome};
use crate::store::repository::Repositories as _;
use crate::store::{Read, StoreError};
use crate::urls;
use crate::view::delivery_state::outcome_label;
use crate::view::{build_title, time};

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesPage {
    layout: Layout,
    rows: Vec<DeliveryRow>,
    older: Option<String>,
}

struct DeliveryRow {
    id: String,
    /// Name of its build, else of its repository.
    name: String,
    href: Option<String>,
    event: String,
    forge_id: String,
    outcome: String,
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
    let mut all = read.deliveries(None, query.after().map(DeliveryId), ROWS_PER_PAGE + 1)?;
    let has_more = all.len() > ROWS_PER_PAGE;
    all.truncate(ROWS_PER_PAGE);
    let older = all.last().filter(|_| has_more).map(|last| build_row::older_href("/-/deliveries", None, &last.id.to_string()));
    let now = now();
    let rows = all.iter().map(|delivery| row(&read, delivery, now)).collect::<Result<_, _>>()?;
    let layout = layout.with_title("Deliveries").in_section("deliveries").with_stream("/api/v1/events");
    render_page(&DeliveriesPage { layout, rows, older })
}

fn row(read: &Read, delivery: &Delivery, now: Timestamp) -> Result<DeliveryRow, StoreError> {
    let repository = read.repository(delivery.repository)?;
    let (outcome, why) = outcome_label(&delivery.outcome);
    let build = match delivery.outcome {
        DeliveryOutcome::Built(id) => read.build(id)?,
        _ => None,
    };
    let name = repository.as_ref().map(|repository| &repository.name);
    Ok(DeliveryRow {
        id: delivery.id.to_string(),
        name: match (&build, name) {
            (Some(build), _) => build_title::build_name(build),
            (None, Some(name)) => name.to_string(),
            (None, None) => format!("repository {}", delivery.repository),
        },
        href: build.as_ref().map(build_title::build_href).or_else(|| name.map(urls::repository)),
        event: delivery.event.clone(),
        forge_id: delivery.forge_id.clone(),
        outcome: outcome.replace('_', " "),
        tone: tone(&delivery.outcome),
        why,
        at: time::time_element(delivery.received_at, now),
        may_retry: matches!(delivery.outcome, DeliveryOutcome::Ignored(_) | DeliveryOutcome::DeadLetter(_)),
    })
}

/// Status name that selects colour and icon.
fn tone(outcome: &DeliveryOutcome) -> &'static str {
    match outcome {
        DeliveryOutcome::Waiting => "pending",
        DeliveryOutcome::Built(_) => "success",
        DeliveryOutcome::Ignored(_) => "skipped",
        DeliveryOutcome::DeadLetter(_) => "failure",
    }
}
