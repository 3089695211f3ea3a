//! What surrounds every page.

use axum::http::{HeaderMap, Uri};
use beespace_core::status::Status;

use super::assets;
use super::html::{Html, icon};
use crate::app::App;
use crate::principal::Principal;
use crate::session;
use crate::urls;

/// The frame of a page, filled from the request.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    pub title: String,
    /// Which entry of the main navigation the page belongs to.
    pub place: &'static str,
    /// What the icon in the browser's tab shows.
    pub status: Option<Status>,
    pub may_read: bool,
    pub is_admin: bool,
    /// Proof that a form came from a page of this session.
    pub csrf: String,
    /// `light` or `dark` where the person chose one.
    pub theme: Option<&'static str>,
    /// The stream of changes that concern the page, while there may be any.
    pub live: Option<String>,
    /// The page's own path and query: where sign-in leads back to.
    pub path: String,
    /// The request's id, shown where something went wrong.
    pub request: Option<String>,
}

impl Layout {
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    #[must_use]
    pub fn at(mut self, place: &'static str) -> Self {
        self.place = place;
        self
    }

    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Where changes to what the page shows are told.
    #[must_use]
    pub fn with_stream(mut self, stream: impl Into<String>) -> Self {
        self.live = Some(stream.into());
        self
    }

    /// The icon of the tab tells how the build stands.
    #[must_use]
    pub fn icon(&self) -> String {
        assets::address(match self.status {
            None | Some(Status::Skipped) => "icon.svg",
            Some(Status::Success) => "icon-success.svg",
            Some(Status::Pending | Status::Blocked | Status::Running) => "icon-waiting.svg",
            Some(Status::Failure | Status::Declined | Status::Error | Status::Killed) => "icon-failure.svg",
        })
    }

    #[must_use]
    pub fn asset(&self, name: &str) -> String {
        assets::address(name)
    }

    #[must_use]
    pub fn svg(&self, name: &str) -> Html {
        icon(name)
    }

    #[must_use]
    pub fn login(&self) -> String {
        urls::login(&self.path)
    }
}

/// The frame for whoever is asking for `uri`.
#[must_use]
pub fn of(app: &App, principal: &Principal, uri: &Uri, headers: &HeaderMap) -> Layout {
    Layout {
        may_read: app.config.server.open || principal.is_admin(),
        is_admin: principal.is_admin(),
        csrf: principal.csrf().to_owned(),
        theme: match session::cookie(headers, "theme") {
            Some("dark") => Some("dark"),
            Some("light") => Some("light"),
            _ => None,
        },
        path: uri.path_and_query().map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned()),
        ..Layout::default()
    }
}
