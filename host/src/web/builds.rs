//! The lists of all builds and of one owner's builds.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use beespace_core::build::Build;
use beespace_core::reason::Reason;
use beespace_core::status::Status;

use super::build_row::{self, BuildRow, FilterChip};
use super::callout::Callout;
use super::icon::StatusLabel;
use super::layout::{Layout, LiveScope};
use super::{ListQuery, ROWS_PER_PAGE, render_page};
use crate::app::App;
use crate::clock::now;
use crate::disk;
use crate::html::Html;
use crate::http_problem::Problem;
use crate::store::build::BuildFilter;
use crate::store::lookup::Visibility;
use crate::store::status_filter::StatusFilter;
use crate::view::time;

#[derive(Template)]
#[template(path = "builds.html")]
struct BuildsPage {
    layout: Layout,
    heading: String,
    callouts: Vec<Callout>,
    chips: Vec<FilterChip>,
    rows: Vec<BuildRow>,
    older: Option<String>,
    empty: EmptyState,
    repositories: Vec<RepositoryLink>,
}

/// Text of an empty list.
struct EmptyState {
    title: &'static str,
    text: &'static str,
}

/// A repository in the sidebar.
struct RepositoryLink {
    name: String,
    href: String,
    /// Status of its newest build.
    status: Option<StatusLabel>,
    /// When its newest build was created.
    newest: Option<Html>,
    enabled: bool,
}

const NO_BUILDS_YET: EmptyState =
    EmptyState { title: "No builds yet", text: "Enable a repository and push to it; its builds appear here." };
const NO_MATCHING_BUILD: EmptyState = EmptyState { title: "No builds with this status", text: "Choose All to see every build." };

pub(super) async fn all(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    visibility: Visibility,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let layout = layout.with_title("Builds").in_section("builds").with_changes(LiveScope::All);
    page(&app, &visibility, layout, "Builds".to_owned(), &app.urls.home(), &query)
}

pub(super) async fn of_owner(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    visibility: Visibility,
    Path(owner): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let mut repositories = app.store.read()?.visible_repositories(&visibility)?;
    repositories.retain(|repository| repository.name.owner().eq_ignore_ascii_case(&owner));
    if repositories.is_empty() {
        return Err(Problem::not_found("owner", owner));
    }
    let of_owner = Visibility::Only(repositories.iter().map(|repository| repository.id).collect());
    let base = app.urls.owner(&owner);
    let layout = layout.with_title(owner.clone()).in_section("builds").with_changes(LiveScope::All);
    page(&app, &of_owner, layout, owner, &base, &query)
}

/// The list of the visible builds, beside links to their repositories.
fn page(
    app: &App,
    visibility: &Visibility,
    layout: Layout,
    heading: String,
    base: &str,
    query: &ListQuery,
) -> Result<Response, Problem> {
    let now = now();
    let read = app.store.read()?;
    let (builds, older) = paginate(read.visible_builds(visibility, query.builds(None), ROWS_PER_PAGE + 1)?, base, query);
    let repositories = read.visible_repositories(visibility)?.into_iter().map(|repository| {
        let newest = read.builds(BuildFilter { repository: Some(repository.id), ..BuildFilter::default() }, 1)?;
        Ok(RepositoryLink {
            name: repository.name.to_string(),
            href: app.urls.repository(&repository.name),
            status: newest.first().map(|build| StatusLabel(build.status)),
            newest: newest.first().map(|build| time::time_element(build.created_at, now)),
            enabled: repository.hook.is_some(),
        })
    });
    render_page(&BuildsPage {
        layout,
        heading,
        callouts: disk::check_free_space(&app.config).err().map(|reason| low_disk_callout(&reason)).into_iter().collect(),
        chips: build_row::filter_chips(base, query.statuses()),
        rows: builds.iter().map(|build| BuildRow::new(&app.urls, build, now)).collect(),
        older,
        empty: if query.statuses() == StatusFilter::All { NO_BUILDS_YET } else { NO_MATCHING_BUILD },
        repositories: repositories.collect::<Result<_, Problem>>()?,
    })
}

/// Leaves out the paths in the reason, because anonymous users may read this list.
fn low_disk_callout(reason: &Reason) -> Callout {
    let (title, message) = ("The server is low on disk space", "New stages wait until space is available.");
    Callout { title: title.to_owned(), message: message.to_owned(), ..Callout::new("", Status::Pending, reason) }
}

/// One page of the builds at `base`, and the link to the next page if there are more.
pub(super) fn paginate(mut builds: Vec<Build>, base: &str, query: &ListQuery) -> (Vec<Build>, Option<String>) {
    let has_more = builds.len() > ROWS_PER_PAGE;
    builds.truncate(ROWS_PER_PAGE);
    let last = builds.last().filter(|_| has_more);
    let older = last.map(|build| build_row::older_href(base, query.statuses(), &build.id.to_string()));
    (builds, older)
}
