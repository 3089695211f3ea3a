//! All builds, and an owner's.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use beespace_core::build::Build;
use beespace_core::ids::BuildId;
use beespace_core::outcome::Reason;
use beespace_core::status::Status;

use super::callout::Callout;
use super::html::Word;
use super::layout::Layout;
use super::row::{self, Chip, Row};
use super::{ListQuery, ROWS, render};
use crate::address;
use crate::api::problem::Problem;
use crate::disk;
use crate::front::Front;
use crate::store::Read;
use crate::store::build::BuildFilter;
use crate::store::repository::Repository;

#[derive(Template)]
#[template(path = "builds.html")]
struct BuildsPage {
    layout: Layout,
    heading: String,
    callouts: Vec<Callout>,
    chips: Vec<Chip>,
    rows: Vec<Row>,
    older: Option<String>,
    empty: Empty,
    repositories: Vec<RepositoryLink>,
}

/// What is said where a list has nothing.
struct Empty {
    title: &'static str,
    text: &'static str,
}

/// A repository beside the list.
struct RepositoryLink {
    name: String,
    href: String,
    /// Of its newest build.
    status: Option<Word>,
    enabled: bool,
}

const NOTHING_YET: Empty = Empty { title: "No builds yet", text: "Enable a repository, push to it, and its build appears here." };
const NOTHING_LIKE_IT: Empty = Empty { title: "No build like that", text: "Other builds are under All." };

pub(super) async fn all(
    State(front): State<Arc<Front>>,
    Extension(layout): Extension<Layout>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let read = front.store.read()?;
    let filter = BuildFilter { repository: None, status: query.status(), after: query.after().map(BuildId) };
    let builds = read.builds(filter, ROWS + 1)?;
    let layout = layout.titled("Builds").at("builds").live("/api/v1/events");
    page(&front, &read, layout, "Builds".to_owned(), "/", &query, builds, |_| true)
}

pub(super) async fn of_owner(
    State(front): State<Arc<Front>>,
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
        ids.extend(read.build_ids(filter, ROWS + 1)?);
    }
    // Ids begin with their time, so the newest have the greatest.
    ids.sort_unstable_by(|one, other| other.cmp(one));
    ids.truncate(ROWS + 1);
    let builds = read.builds_of_ids(&ids)?;
    let base = address::owner(&owner);
    let layout = layout.titled(owner.clone()).at("builds").live("/api/v1/events");
    page(&front, &read, layout, owner.clone(), &base, &query, builds, belongs)
}

#[expect(clippy::too_many_arguments, reason = "what the two lists have in common is the page, and these are its parts")]
fn page(
    front: &Front,
    read: &Read,
    layout: Layout,
    heading: String,
    base: &str,
    query: &ListQuery,
    builds: Vec<Build>,
    shown: impl Fn(&Repository) -> bool,
) -> Result<Response, Problem> {
    let now = front.now();
    let (builds, last) = cut(builds);
    let repositories = read.repositories()?.into_iter().filter(shown).map(|repository| {
        let newest = read.builds(BuildFilter { repository: Some(repository.id), ..BuildFilter::default() }, 1)?;
        Ok(RepositoryLink {
            name: repository.name.to_string(),
            href: address::repository(&repository.name),
            status: newest.first().map(|build| Word(build.status)),
            enabled: repository.hook.is_some(),
        })
    });
    render(&BuildsPage {
        layout,
        heading,
        callouts: disk::room(&front.config).err().map(|reason| little_room(&reason)).into_iter().collect(),
        chips: row::chips(base, query.status()),
        rows: builds.iter().map(|build| Row::new(build, now)).collect(),
        older: last.map(|id| row::older(base, query.status(), &id)),
        empty: if query.status().is_none() { NOTHING_YET } else { NOTHING_LIKE_IT },
        repositories: repositories.collect::<Result<_, Problem>>()?,
    })
}

/// Without the paths of the reason: everybody may read this list.
fn little_room(reason: &Reason) -> Callout {
    let (title, message) = ("There is little room on the server's disk", "Stages that have not started wait for room.");
    Callout { title: title.to_owned(), message: message.to_owned(), ..Callout::new("", Status::Pending, reason) }
}

/// One page of builds, and the id to go on after where there are more.
pub(super) fn cut(mut builds: Vec<Build>) -> (Vec<Build>, Option<String>) {
    let has_more = builds.len() > ROWS;
    builds.truncate(ROWS);
    let last = builds.last().filter(|_| has_more).map(|build| build.id.to_string());
    (builds, last)
}
