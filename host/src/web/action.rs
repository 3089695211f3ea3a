//! The actions behind the buttons of pages: the same as in the API, requested by a form with a CSRF token.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use beespace_core::build::Build;
use serde::Deserialize;

use crate::app::App;
use crate::authorization::Authorized;
use crate::clock::now;
use crate::http_problem::Problem;
use crate::principal::Principal;
use crate::urls;
use crate::user_action::{self, ActionError, ApprovalAnswer, BuildAction};

/// The fields of an action's form. Every form contains the CSRF token of its session.
#[derive(Debug, Deserialize)]
pub(super) struct ActionForm {
    #[serde(default)]
    csrf: String,
    stage: Option<u16>,
    subject: Option<String>,
    reason: Option<String>,
}

/// The build of the page. The form is checked first, so a forged form learns nothing about the build.
type AuthorizedBuild = Result<Authorized<Build>, Problem>;

impl ActionForm {
    fn check_csrf(&self, principal: &Principal) -> Result<(), Problem> {
        check_csrf(&self.csrf, principal)
    }

    fn into_answer(self) -> Result<ApprovalAnswer, ActionError> {
        ApprovalAnswer::parse(self.stage, self.subject.as_deref(), self.reason.as_deref())
    }
}

/// Checks the CSRF token of a form.
///
/// # Errors
/// [`Problem`] if the form does not belong to the caller's session.
pub(super) fn check_csrf(given: &str, principal: &Principal) -> Result<(), Problem> {
    // Compare digests: the time of the comparison then reveals nothing about the token to an attacker.
    if !given.is_empty() && beespace_core::digest::Digest::of(given) == beespace_core::digest::Digest::of(principal.csrf()) {
        return Ok(());
    }
    let detail = "the form does not belong to your session; nothing was changed";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", detail).help("reload the page and try again"))
}

pub(super) async fn restart(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: AuthorizedBuild,
    form: Form<ActionForm>,
) -> Result<Redirect, Problem> {
    act(state, principal, build, form, |_| Ok(BuildAction::Restart)).await
}

pub(super) async fn cancel(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: AuthorizedBuild,
    form: Form<ActionForm>,
) -> Result<Redirect, Problem> {
    act(state, principal, build, form, |_| Ok(BuildAction::Cancel)).await
}

pub(super) async fn approve(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: AuthorizedBuild,
    form: Form<ActionForm>,
) -> Result<Redirect, Problem> {
    act(state, principal, build, form, |form| form.into_answer().map(BuildAction::Approve)).await
}

pub(super) async fn decline(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: AuthorizedBuild,
    form: Form<ActionForm>,
) -> Result<Redirect, Problem> {
    act(state, principal, build, form, |form| form.into_answer().map(BuildAction::Decline)).await
}

/// Applies an action to the build of the page, once the form is known to come from a page of this session. Redirects to the
/// build, or after a restart to the new one.
async fn act(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    build: AuthorizedBuild,
    Form(form): Form<ActionForm>,
    action: impl FnOnce(ActionForm) -> Result<BuildAction, ActionError>,
) -> Result<Redirect, Problem> {
    form.check_csrf(&principal)?;
    let build = build?;
    let shown = user_action::apply(&app, &build, action(form)?, &principal).await?;
    Ok(Redirect::to(&app.urls.build(&app.build(shown)?)))
}

pub(super) async fn retry_delivery(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Form(form): Form<ActionForm>,
) -> Result<Redirect, Problem> {
    form.check_csrf(&principal)?;
    let delivery = id.parse().map_err(|_| Problem::not_found("delivery", &id))?;
    app.store.retry_delivery(delivery, now()).await.map_err(|error| Problem::of(error, id))?;
    Ok(Redirect::to(&app.urls.below_base(urls::DELIVERIES)))
}

pub(super) async fn retry_notice(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Form(form): Form<ActionForm>,
) -> Result<Redirect, Problem> {
    form.check_csrf(&principal)?;
    let notice = id.parse().map_err(|_| Problem::not_found("notice", &id))?;
    user_action::retry_notice(&app, notice).await.map_err(|error| Problem::of(error, id))?;
    Ok(Redirect::to(&app.urls.below_base(urls::NOTICES)))
}
