//! The page of a repository: its builds, and its deliveries without a build.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use beespace_core::build::Build;
use beespace_core::time::Timestamp;

use super::build_row::{self, BuildRow, FilterChip};
use super::builds::paginate;
use super::history::History;
use super::layout::{Layout, LiveScope};
use super::schedule::ScheduleView;
use super::start::StartForm;
use super::{ListQuery, ROWS_PER_PAGE, render_page};
use crate::app::App;
use crate::authorization::Authorized;
use crate::clock::now;
use crate::html::Html;
use crate::http_problem::Problem;
use crate::store::build::BuildFilter;
use crate::store::delivery::{Delivery, DeliveryOutcome};
use crate::store::lookup::Visibility;
use crate::store::repository::Repository;
use crate::store::schedule::Schedules as _;
use crate::store::status_filter::StatusFilter;
use crate::view::delivery_state::is_never_built;
use crate::view::time;

/// Builds in the history chart.
const HISTORY_BARS: usize = 30;
/// The newest deliveries that are scanned for those without a build.
const SCANNED_DELIVERIES: usize = 40;
/// The most deliveries without a build on the page.
const MAX_IGNORED: usize = 6;

#[derive(Template)]
#[template(path = "repository.html")]
struct RepositoryPage {
    layout: Layout,
    owner: String,
    owner_href: String,
    name: String,
    enabled: bool,
    forge_url: Option<String>,
    /// The form that starts a build, for those who may.
    start: Option<StartForm>,
    schedules: Vec<ScheduleView>,
    history: Option<History>,
    chips: Vec<FilterChip>,
    rows: Vec<BuildRow>,
    older: Option<String>,
    /// Whether the list shows only some statuses.
    is_filtered: bool,
    has_deliveries: bool,
    ignored: Vec<IgnoredView>,
}

struct IgnoredView {
    event: String,
    at: Html,
    reason: String,
    help: Option<String>,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    repository: Authorized<Repository>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let read = app.store.read()?;
    let now = now();
    let newest = read.builds(BuildFilter { repository: Some(repository.id), ..BuildFilter::default() }, HISTORY_BARS)?;
    let base = app.urls.repository(&repository.name);
    let list = query.builds(Some(repository.id));
    let (builds, older) = paginate(read.visible_builds(&Visibility::All, list, ROWS_PER_PAGE + 1)?, &base, &query);
    let deliveries = read.deliveries(Some(repository.id), None, SCANNED_DELIVERIES)?;
    let schedules = read.schedules(repository.id)?;
    let may_start = layout.is_admin && repository.hook.is_some();
    let form = || StartForm::new(&read, &base, &repository.default_branch, &newest);
    let start = may_start.then(form).transpose()?;
    let mut layout = layout.with_title(repository.name.to_string()).in_section("builds");
    layout.status = newest.first().map(|build| build.status);
    render_page(&RepositoryPage {
        layout: layout.with_changes(LiveScope::Repository(repository.id)),
        owner: repository.name.owner().to_owned(),
        owner_href: app.urls.owner(repository.name.owner()),
        name: repository.name.name().to_owned(),
        enabled: repository.hook.is_some(),
        forge_url: safe_link(&repository.html_url),
        start,
        schedules: schedules.iter().map(|stored| ScheduleView::new(&app.urls, &repository, stored, now)).collect(),
        history: History::new(&app.urls, &newest, now),
        chips: build_row::filter_chips(&base, query.statuses()),
        rows: builds.iter().map(|build| BuildRow::new(&app.urls, build, now)).collect(),
        older,
        is_filtered: query.statuses() != StatusFilter::All,
        has_deliveries: !deliveries.is_empty(),
        ignored: deliveries.iter().filter_map(|delivery| ignored_view(delivery, now)).take(MAX_IGNORED).collect(),
    })
}

/// The page of the build's commit in Gogs, once the commit is known.
#[must_use]
pub fn commit_url(build: &Build) -> Option<String> {
    safe_link(&format!("{}/commit/{}", build.event.repository.html_url, build.sha()?))
}

/// A URL from a delivery, if it is safe as a link target (http or https).
#[must_use]
pub fn safe_link(url: &str) -> Option<String> {
    url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https")).map(|url| url.to_string())
}

fn ignored_view(delivery: &Delivery, now: Timestamp) -> Option<IgnoredView> {
    let (DeliveryOutcome::Ignored(reason) | DeliveryOutcome::DeadLetter(reason)) = &delivery.outcome else { return None };
    if is_never_built(reason) {
        return None;
    }
    Some(IgnoredView {
        event: delivery.event.clone(),
        at: time::time_element(delivery.received_at, now),
        reason: reason.message.clone(),
        help: reason.help.clone(),
    })
}
