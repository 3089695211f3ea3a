//! The frame of every page: navigation, title, theme, live updates.

use axum::http::{HeaderMap, Uri};
use beespace_core::status::Status;

use super::assets;
use super::icon::icon;
use crate::app::App;
use crate::html::Html;
use crate::principal::Principal;
use crate::session;
use crate::urls::Urls;

/// The values of a page's frame, taken from the request.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    pub title: String,
    /// The entry of the main navigation that the page belongs to.
    pub section: &'static str,
    /// The status that the icon in the browser tab shows.
    pub status: Option<Status>,
    pub may_read: bool,
    pub is_admin: bool,
    /// CSRF token of the session; every form contains it.
    pub csrf: String,
    /// `light` or `dark`, if the person has chosen one.
    pub theme: Option<&'static str>,
    /// Path of the event stream that updates the page, unless the page can no longer change.
    pub live: Option<String>,
    /// Path and query of the page as the router knows them, to return to after sign-in.
    pub path: String,
    /// The paths of this server's pages.
    pub urls: Urls,
    /// The request id, shown on error pages.
    pub request: Option<String>,
}

impl Layout {
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    #[must_use]
    pub fn in_section(mut self, section: &'static str) -> Self {
        self.section = section;
        self
    }

    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Sets the event stream that updates the page.
    #[must_use]
    pub fn with_stream(mut self, stream: impl Into<String>) -> Self {
        self.live = Some(stream.into());
        self
    }

    /// URL of the tab icon, which shows the build's status.
    #[must_use]
    pub fn icon(&self) -> String {
        self.asset(match self.status {
            None | Some(Status::Skipped) => "icon.svg",
            Some(Status::Success) => "icon-success.svg",
            Some(Status::Pending | Status::Blocked | Status::Running) => "icon-waiting.svg",
            Some(Status::Failure | Status::Declined | Status::Error | Status::Killed) => "icon-failure.svg",
        })
    }

    #[must_use]
    pub fn asset(&self, name: &str) -> String {
        self.urls.below_base(&assets::address(name))
    }

    #[must_use]
    pub fn svg(&self, name: &str) -> Html {
        icon(name)
    }

    #[must_use]
    pub fn login(&self) -> String {
        self.urls.login(&self.path)
    }
}

/// The frame of a page that `principal` requests at `uri`.
#[must_use]
pub fn for_request(app: &App, principal: &Principal, uri: &Uri, headers: &HeaderMap) -> Layout {
    Layout {
        may_read: app.config.server.open || principal.is_admin(),
        is_admin: principal.is_admin(),
        csrf: principal.csrf().to_owned(),
        urls: app.urls.clone(),
        theme: match session::cookie(headers, "theme") {
            Some("dark") => Some("dark"),
            Some("light") => Some("light"),
            _ => None,
        },
        path: uri.path_and_query().map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned()),
        ..Layout::default()
    }
}
