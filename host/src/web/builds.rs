//! All builds, and an owner's.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use beespace_core::build::Build;
use beespace_core::ids::BuildId;
use beespace_core::reason::Reason;
use beespace_core::status::Status;

use super::build_row::{self, BuildRow, FilterChip};
use super::callout::Callout;
use super::html::StatusLabel;
use super::layout::Layout;
use super::{ListQuery, ROWS_PER_PAGE, render_page};
use crate::api::problem::Problem;
use crate::disk;
use crate::http_state::AppState;
use crate::store::Read;
use crate::store::build::BuildFilter;
use crate::store::repository::Repository;
use crate::urls;

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

/// What is said where a list has nothing.
struct EmptyState {
    title: &'static str,
    text: &'static str,
}

/// A repository beside the list.
struct RepositoryLink {
    name: String,
    href: String,
    /// Of its newest build.
    status: Option<StatusLabel>,
    enabled: bool,
}

const NO_BUILDS_YET: EmptyState =
    EmptyState { title: "No builds yet", text: "Enable a repository, push to it, and its build appears here." };
const NO_MATCHING_BUILD: EmptyState = EmptyState { title: "No build like that", text: "Other builds are under All." };

pub(super) async fn all(
    State(front): State<Arc<AppState>>,
    Extension(layout): Extension<Layout>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let read = front.store.read()?;
    let filter = BuildFilter { repository: None, status: query.status(), after: query.after().map(BuildId) };
    let builds = read.builds(filter, ROWS_PER_PAGE + 1)?;
    let layout = layout.with_title("Builds").at("builds").with_stream("/api/v1/events");
    page(&front, &read, layout, "Builds".to_owned(), "/", &query, builds, |_| true)
}

pub(super) async fn of_owner(
    State(front): State<Arc<AppState>>,
    Extension(layout): Extension<Layout>,
    Path(owner): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let read = front.store.read()?;
    let belongs = |repository: &Repository| repository.name.owner().eq_ignore_ascii_case(&owner);
    let repositories: Vec<Repository> = read.repositories()?.into_iter().filter(belongs).collect();
    if repositories.is_empty() {
        return Err(Problem::not_found("page"));
    }
    let after = query.after().map(BuildId);
    let mut ids = Vec::new();
    for repository in &repositories {
        let filter = BuildFilter { repository: Some(repository.id), status: query.status(), after };
        ids.extend(read.build_ids(filter, ROWS_PER_PAGE + 1)?);
    }
    // Ids begin with their time, so the newest have the greatest.
    ids.sort_unstable_by(|one, other| other.cmp(one));
    ids.truncate(ROWS_PER_PAGE + 1);
    let builds = read.builds_of_ids(&ids)?;
    let base = urls::owner(&owner);
    let layout = layout.with_title(owner.clone()).at("builds").with_stream("/api/v1/events");
    page(&front, &read, layout, owner.clone(), &base, &query, builds, belongs)
}

#[expect(clippy::too_many_arguments, reason = "what the two lists have in common is the page, and these are its parts")]
fn page(
    front: &AppState,
    read: &Read,
    layout: Layout,
    heading: String,
    base: &str,
    query: &ListQuery,
    builds: Vec<Build>,
    shown: impl Fn(&Repository) -> bool,
) -> Result<Response, Problem> {
    let now = front.now();
    let (builds, last) = paginate(builds);
    let repositories = read.repositories()?.into_iter().filter(shown).map(|repository| {
        let newest = read.builds(BuildFilter { repository: Some(repository.id), ..BuildFilter::default() }, 1)?;
        Ok(RepositoryLink {
            name: repository.name.to_string(),
            href: urls::repository(&repository.name),
            status: newest.first().map(|build| StatusLabel(build.status)),
            enabled: repository.hook.is_some(),
        })
    });
    render_page(&BuildsPage {
        layout,
        heading,
        callouts: disk::check_free_space(&front.config).err().map(|reason| low_disk_callout(&reason)).into_iter().collect(),
        chips: build_row::filter_chips(base, query.status()),
        rows: builds.iter().map(|build| BuildRow::new(build, now)).collect(),
        older: last.map(|id| build_row::older_href(base, query.status(), &id)),
        empty: if query.status().is_none() { NO_BUILDS_YET } else { NO_MATCHING_BUILD },
        repositories: repositories.collect::<Result<_, Problem>>()?,
    })
}

/// Without the paths of the reason: everybody may read this list.
fn low_disk_callout(reason: &Reason) -> Callout {
    let (title, message) = ("There is little room on the server's disk", "Stages that have not started wait for room.");
    Callout { title: title.to_owned(), message: message.to_owned(), ..Callout::new("", Status::Pending, reason) }
}

/// One page of builds, and the id to go on after where there are more.
pub(super) fn paginate(mut builds: Vec<Build>) -> (Vec<Build>, Option<String>) {
    let has_more = builds.len() > ROWS_PER_PAGE;
    builds.truncate(ROWS_PER_PAGE);
    let last = builds.last().filter(|_| has_more).map(|build| build.id.to_string());
    (builds, last)
}
