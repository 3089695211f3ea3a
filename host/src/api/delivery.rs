//! Deliveries of Gogs and their outcomes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use beespace_core::ids::DeliveryId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::pagination::{ListParams, Page};
use crate::app::App;
use crate::clock::now;
use crate::http_problem::Problem;
use crate::store::Read;
use crate::store::build::Builds as _;
use crate::store::delivery::{Deliveries as _, Delivery, DeliveryOutcome, OutcomeKind};
use crate::store::repository::Repositories as _;
use crate::view::build_title;
use crate::view::delivery_state::outcome_label;
use crate::view::time::rfc3339;

/// One webhook POST.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryBody {
    /// A UUID of version 7, so ids sort by time.
    pub id: String,
    /// `owner/name`, or the id of a repository that is no longer known.
    pub repository: String,
    /// The id that Gogs shows. It is not signed, so it proves nothing.
    pub forge_id: String,
    /// The event name of Gogs: `push`, `create`, …. It is not signed.
    pub event: String,
    /// The SHA-256 digest of the signed JSON.
    pub sha256: String,
    /// The length of the signed JSON.
    pub bytes: u64,
    /// When it arrived. RFC 3339, in UTC.
    pub received_at: String,
    /// `waiting`, `built`, `ignored`, `dead_letter`.
    pub outcome: String,
    /// Why there is no build.
    pub reason: Option<String>,
    /// The id of its build.
    pub build: Option<String>,
    /// The name of its build: `acme/app #12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_label: Option<String>,
    /// The JSON that Gogs sent; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<serde_json::Value>,
}

impl DeliveryBody {
    fn new(read: &Read, delivery: &Delivery) -> Self {
        let repository = read.repository(delivery.repository).ok().flatten();
        let (label, reason) = outcome_label(&delivery.outcome);
        let build = match delivery.outcome {
            DeliveryOutcome::Built(id) => Some(id),
            _ => None,
        };
        Self {
            id: delivery.id.to_string(),
            repository: repository.map_or_else(|| delivery.repository.to_string(), |repository| repository.name.to_string()),
            forge_id: delivery.forge_id.clone(),
            event: delivery.event.clone(),
            sha256: delivery.sha256.hex(),
            bytes: delivery.bytes,
            received_at: rfc3339(delivery.received_at),
            outcome: label.to_owned(),
            reason,
            build: build.map(|id| id.to_string()),
            build_label: build.and_then(|id| read.build(id).ok().flatten()).map(|build| build_title::build_name(&build)),
            payload: None,
        }
    }
}

fn parse_id(text: &str) -> Result<DeliveryId, Problem> {
    text.parse().map_err(|_| Problem::not_found("delivery", text))
}

fn parse_outcome(name: &str) -> Result<OutcomeKind, Problem> {
    OutcomeKind::parse(name).ok_or_else(|| {
        Problem::bad_request(format!(
            "{name:?} is not an outcome of a delivery: use `waiting`, `built`, `ignored` or `dead_letter`"
        ))
    })
}

/// All deliveries, newest first
#[utoipa::path(get, path = "/api/v1/deliveries", tag = "delivery", params(ListParams),
    responses((status = OK, body = Vec<DeliveryBody>)))]
pub(super) async fn list(State(app): State<Arc<App>>, Query(params): Query<ListParams>) -> Result<Page<DeliveryBody>, Problem> {
    let read = app.store.read()?;
    let (after, limit) = (params.after()?.map(DeliveryId), params.limit() + 1);
    let all = match params.status.as_deref() {
        Some(name) => read.deliveries_with(parse_outcome(name)?, after, limit)?,
        None => read.deliveries(None, after, limit)?,
    };
    let body = |delivery: &Delivery| DeliveryBody::new(&read, delivery);
    Ok(Page::from_rows(all, &params, &app.urls.below_base("/api/v1/deliveries"), |delivery| delivery.id.to_string(), body))
}

/// One delivery with its payload
#[utoipa::path(get, path = "/api/v1/deliveries/{id}", tag = "delivery", params(("id" = String, Path)),
    responses((status = OK, body = DeliveryBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<DeliveryBody>, Problem> {
    let read = app.store.read()?;
    let delivery = read.delivery(parse_id(&id)?)?.ok_or_else(|| Problem::not_found("delivery", &id))?;
    let payload = read.delivery_body(delivery.id)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(Json(DeliveryBody { payload, ..DeliveryBody::new(&read, &delivery) }))
}

/// Retry a delivery that has no build
#[utoipa::path(post, path = "/api/v1/deliveries/{id}/retry", tag = "delivery", params(("id" = String, Path)),
    responses((status = OK, body = DeliveryBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn retry(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<DeliveryBody>, Problem> {
    let id = parse_id(&id)?;
    app.store.retry_delivery(id, now()).await.map_err(|error| Problem::of(error, id))?;
    let read = app.store.read()?;
    let delivery = read.delivery(id)?.ok_or_else(|| Problem::not_found("delivery", id))?;
    Ok(Json(DeliveryBody::new(&read, &delivery)))
}
