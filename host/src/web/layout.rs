//! The frame of every page: navigation, title, theme, live updates.

use axum::http::{HeaderMap, Uri};
use beespace_core::ids::{BuildId, RepositoryId};
use beespace_core::status::Status;

use super::assets;
use super::icon::icon;
use crate::app::App;
use crate::html::Html;
use crate::principal::Principal;
use crate::session;
use crate::urls::Urls;

/// The changes that a page shows. All pages read one stream of changes, so that a browser's tabs can share it, and each page
/// picks its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveScope {
    All,
    Repository(RepositoryId),
    Build(BuildId),
}

impl LiveScope {
    /// Attributes of the page's main element, for the script.
    #[must_use]
    pub fn attributes(&self, urls: &Urls) -> Html {
        let scope = match self {
            Self::All => String::new(),
            Self::Repository(id) => format!(r#" data-repository="{id}""#),
            Self::Build(id) => format!(r#" data-build="{id}""#),
        };
        Html::trusted(format!(r#" data-live="{}"{scope}"#, urls.events()))
    }
}

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
    /// The changes that update the page, unless it can no longer change.
    pub live: Option<LiveScope>,
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

    /// Sets the changes that update the page.
    #[must_use]
    pub fn with_changes(mut self, scope: LiveScope) -> Self {
        self.live = Some(scope);
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
