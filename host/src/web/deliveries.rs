//! The page of webhook deliveries.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use beespace_core::ids::DeliveryId;
use beespace_core::time::Timestamp;

use super::layout::{Layout, LiveScope};
use super::records::{self, EmptyRecords, RecordRow, RecordsPage};
use super::{ListQuery, ROWS_PER_PAGE, render_page};
use crate::app::App;
use crate::clock::now;
use crate::http_problem::Problem;
use crate::store::build::Builds as _;
use crate::store::delivery::{Delivery, DeliveryOutcome, OutcomeKind};
use crate::store::repository::Repositories as _;
use crate::store::{Read, StoreError};
use crate::urls::{self, Urls};
use crate::view::delivery_state::{is_worth_a_retry, outcome_label};
use crate::view::{build_title, time};

const NO_DELIVERIES: EmptyRecords = EmptyRecords {
    title: "No deliveries yet",
    text: "Enable a repository with `beespace repo enable OWNER/NAME` and push to it. If no delivery arrives, run `beespace \
           doctor`.",
};

const STATUSES: [(&str, &str); 4] =
    [("waiting", "Waiting"), ("built", "Built"), ("ignored", "Ignored"), ("dead_letter", "Dead letter")];

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let (read, now, href) = (app.store.read()?, now(), app.urls.below_base(urls::DELIVERIES));
    // An unknown filter shows all: a person typed the URL.
    let kind = query.status.as_deref().and_then(OutcomeKind::parse);
    let (status, after) = (kind.map(OutcomeKind::as_str), query.after().map(DeliveryId));
    let deliveries = match kind {
        Some(kind) => read.deliveries_with(kind, after, ROWS_PER_PAGE + 1)?,
        None => read.deliveries(None, after, ROWS_PER_PAGE + 1)?,
    };
    let (deliveries, older) = records::paginate(deliveries, &href, status, |delivery| delivery.id.to_string());
    let rows = deliveries.iter().map(|delivery| row(&app.urls, &read, delivery, now)).collect::<Result<_, _>>()?;
    let layout = layout.with_title("Deliveries").in_section("deliveries").with_changes(LiveScope::All);
    let chips = records::filter_chips(&href, status, &STATUSES);
    let empty = if kind.is_some() { records::NO_MATCH } else { NO_DELIVERIES };
    render_page(&RecordsPage { layout, heading: "Deliveries", href, chips, callouts: Vec::new(), rows, older, empty })
}

fn row(urls: &Urls, read: &Read, delivery: &Delivery, now: Timestamp) -> Result<RecordRow, StoreError> {
    let repository = read.repository(delivery.repository)?;
    let (outcome, why) = outcome_label(&delivery.outcome);
    let build = match delivery.outcome {
        DeliveryOutcome::Built(id) => read.build(id)?,
        _ => None,
    };
    let name = repository.as_ref().map(|repository| &repository.name);
    Ok(RecordRow {
        id: delivery.id.to_string(),
        state: outcome.replace('_', " "),
        tone: tone(&delivery.outcome),
        name: match (&build, name) {
            (Some(build), _) => build_title::build_name(build),
            (None, Some(name)) => name.to_string(),
            (None, None) => format!("repository {}", delivery.repository),
        },
        href: build.as_ref().map(|build| urls.build(build)).or_else(|| name.map(|name| urls.repository(name))),
        kind: delivery.event.clone(),
        facts: vec![format!("delivery {}", delivery.forge_id)],
        why,
        at: time::time_element(delivery.received_at, now),
        may_retry: is_worth_a_retry(&delivery.outcome),
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
