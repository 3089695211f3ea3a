//! A repository: its builds, and the deliveries that became none.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use beespace_core::build::Build;
use beespace_core::ids::BuildId;
use beespace_core::time::Timestamp;

use super::builds::cut;
use super::html::{self, Html};
use super::layout::Layout;
use super::row::{self, Chip, Row};
use super::{ListQuery, ROWS, render, repository_name};
use crate::address;
use crate::api::problem::Problem;
use crate::front::Front;
use crate::store::build::BuildFilter;
use crate::store::delivery::{Delivery, Fate};
use crate::store::repository::Repositories as _;

/// Bars of the history, and how many deliveries are looked through for those without a build.
const BARS: usize = 30;
const DELIVERIES: usize = 40;
const IGNORED: usize = 6;

#[derive(Template)]
#[template(path = "repository.html")]
struct RepositoryPage {
    layout: Layout,
    owner: String,
    owner_href: String,
    name: String,
    enabled: bool,
    forge_url: Option<String>,
    history: Vec<HistoryBar>,
    history_label: String,
    chips: Vec<Chip>,
    rows: Vec<Row>,
    older: Option<String>,
    has_deliveries: bool,
    ignored: Vec<IgnoredView>,
}

/// One build of the history: how long it took and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryBar {
    pub href: String,
    pub title: String,
    pub status: &'static str,
    pub x: usize,
    pub y: u64,
    pub height: u64,
}

struct IgnoredView {
    event: String,
    at: Html,
    reason: String,
    help: Option<String>,
}

pub(super) async fn show(
    State(front): State<Arc<Front>>,
    Extension(layout): Extension<Layout>,
    Path((owner, name)): Path<(String, String)>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let name = repository_name(&owner, &name)?;
    let read = front.store.read()?;
    let repository = read.repository_by_name(&name)?.ok_or_else(|| Problem::not_found("repository"))?;
    let now = front.now();
    let newest = read.builds(BuildFilter { repository: Some(repository.id), ..BuildFilter::default() }, BARS)?;
    let filter = BuildFilter { repository: Some(repository.id), status: query.status(), after: query.after().map(BuildId) };
    let (builds, last) = cut(read.builds(filter, ROWS + 1)?);
    let deliveries = read.deliveries(Some(repository.id), None, DELIVERIES)?;
    let base = address::repository(&repository.name);
    let mut layout = layout.titled(repository.name.to_string()).at("builds");
    layout.status = newest.first().map(|build| build.status);
    render(&RepositoryPage {
        layout: layout.live(format!("/api/v1/events?repository={}", address::encode(&repository.name.to_string()))),
        owner: repository.name.owner().to_owned(),
        owner_href: address::owner(repository.name.owner()),
        name: repository.name.name().to_owned(),
        enabled: repository.hook.is_some(),
        forge_url: web_url(&repository.html_url),
        history: history(&newest, now),
        history_label: format!("The last {} builds, oldest first", newest.len()),
        chips: row::chips(&base, query.status()),
        rows: builds.iter().map(|build| Row::new(build, now)).collect(),
        older: last.map(|id| row::older(&base, query.status(), &id)),
        has_deliveries: !deliveries.is_empty(),
        ignored: deliveries.iter().filter_map(|delivery| ignored(delivery, now)).take(IGNORED).collect(),
    })
}

/// The address as delivered, where it is one that a link may lead to.
#[must_use]
pub fn web_url(url: &str) -> Option<String> {
    url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https")).map(|url| url.to_string())
}

fn ignored(delivery: &Delivery, now: Timestamp) -> Option<IgnoredView> {
    let (Fate::Ignored(reason) | Fate::Dead(reason)) = &delivery.fate else { return None };
    Some(IgnoredView {
        event: delivery.event.clone(),
        at: html::time(delivery.received_at, now),
        reason: reason.message.clone(),
        help: reason.help.clone(),
    })
}

/// Bars for builds given newest first, drawn oldest first in 600 by 48; the longest is the highest.
#[must_use]
pub fn history(newest: &[Build], now: Timestamp) -> Vec<HistoryBar> {
    let length = |build: &Build| build.started_at.map_or(0, |start| build.finished_at.unwrap_or(now).since(start).as_millis());
    let longest = newest.iter().map(length).max().unwrap_or(0).max(1);
    let bar = |(index, build): (usize, &Build)| {
        let height = u64::try_from(length(build) * 42 / longest).unwrap_or(42) + 6;
        HistoryBar {
            href: row::href(build),
            title: format!("{} {}: {}", row::place(build), build.status, row::title(build)),
            status: build.status.as_str(),
            x: index * 20 + 2,
            y: 48 - height,
            height,
        }
    };
    newest.iter().rev().enumerate().map(bar).collect()
}
