//! The actions behind the buttons of pages: the same as in the API, requested by a form with a CSRF token.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use serde::Deserialize;

use super::build;
use crate::api::dto::ApprovalAnswerBody;
use crate::api::problem::Problem;
use crate::http_state::AppState;
use crate::session::Principal;
use crate::urls;
use crate::user_action::{self, ApprovalAnswer};
use crate::view::build_title;

/// The fields of an action's form. Every form contains the CSRF token of its session.
#[derive(Debug, Deserialize)]
pub(super) struct ActionForm {
    #[serde(default)]
    csrf: String,
    stage: Option<u16>,
    subject: Option<String>,
}

type BuildPath = Path<(String, String, String)>;

impl ActionForm {
    fn check_csrf(&self, principal: &Principal) -> Result<(), Problem> {
        // Compare digests: their bytes tell an attacker who measures the time of the comparison nothing about the token.
        if !self.csrf.is_empty()
            && beespace_core::digest::Digest::of(&self.csrf) == beespace_core::digest::Digest::of(principal.csrf())
        {
            return Ok(());
        }
        let detail = "The form does not belong to your session; nothing was changed.";
        Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", detail).help("Reload the page and try again."))
    }

    fn into_request(self) -> ApprovalAnswerBody {
        ApprovalAnswerBody { stage: self.stage, subject: self.subject, reason: None }
    }
}

pub(super) async fn restart(
    State(front): State<Arc<AppState>>,
    Extension(principal): Extension<Principal>,
    Path((owner, name, number)): BuildPath,
    Form(form): Form<ActionForm>,
) -> Result<Redirect, Problem> {
    form.check_csrf(&principal)?;
    let old = build::find(&front.store.read()?, &owner, &name, &number)?;
    user_action::restart(&front, &old).await?;
    // The list shows the new build above the one it repeats.
    Ok(Redirect::to(&urls::repository(&old.event.repository.name)))
}

pub(super) async fn cancel(
    State(front): State<Arc<AppState>>,
    Extension(principal): Extension<Principal>,
    Path((owner, name, number)): BuildPath,
    Form(form): Form<ActionForm>,
) -> Result<Redirect, Problem> {
    form.check_csrf(&principal)?;
    let build = build::find(&front.store.read()?, &owner, &name, &number)?;
    user_action::cancel(&front, &build, principal.id()).await?;
    Ok(Redirect::to(&build_title::build_href(&build)))
}

pub(super) async fn approve(
    state: State<Arc<AppState>>,
    principal: Extension<Principal>,
    path: BuildPath,
    form: Form<ActionForm>,
) -> Result<Redirect, Problem> {
    approve_or_decline(state, principal, path, form, ApprovalAnswer::Approve).await
}

pub(super) async fn decline(
    state: State<Arc<AppState>>,
    principal: Extension<Principal>,
    path: BuildPath,
    form: Form<ActionForm>,
) -> Result<Redirect, Problem> {
    approve_or_decline(state, principal, path, form, ApprovalAnswer::Decline).await
}

async fn approve_or_decline(
    State(front): State<Arc<AppState>>,
    Extension(principal): Extension<Principal>,
    Path((owner, name, number)): BuildPath,
    Form(form): Form<ActionForm>,
    answer: ApprovalAnswer,
) -> Result<Redirect, Problem> {
    form.check_csrf(&principal)?;
    let build = build::find(&front.store.read()?, &owner, &name, &number)?;
    user_action::answer(&front, &build, answer, form.into_request(), principal.id()).await?;
    Ok(Redirect::to(&build_title::build_href(&build)))
}

pub(super) async fn retry_delivery(
    State(front): State<Arc<AppState>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Form(form): Form<ActionForm>,
) -> Result<Redirect, Problem> {
    form.check_csrf(&principal)?;
    let id = id.parse().map_err(|_| Problem::not_found("delivery"))?;
    front.store.replay_delivery(id, front.now()).await?;
    Ok(Redirect::to("/-/deliveries"))
}

pub(super) async fn retry_notice(
    State(front): State<Arc<AppState>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Form(form): Form<ActionForm>,
) -> Result<Redirect, Problem> {
    form.check_csrf(&principal)?;
    let id = id.parse().map_err(|_| Problem::not_found("notice"))?;
    user_action::replay_notice(&front, id).await?;
    Ok(Redirect::to("/-/notices"))
}
