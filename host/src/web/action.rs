//! What buttons do: the same as the API, asked for by a form of ours.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use serde::Deserialize;

use super::build;
use crate::address;
use crate::api::body::WordBody;
use crate::api::problem::Problem;
use crate::front::Front;
use crate::intervention::{self, Answer};
use crate::session::Principal;

/// Every form of a session carries its proof.
#[derive(Debug, Deserialize)]
pub(super) struct Signed {
    #[serde(default)]
    csrf: String,
    stage: Option<u16>,
    subject: Option<String>,
}

type BuildPath = Path<(String, String, String)>;

impl Signed {
    fn check(&self, principal: &Principal) -> Result<(), Problem> {
        // Both are hashes of a secret that the sender cannot guess by timing one byte after the other.
        if !self.csrf.is_empty()
            && beespace_core::digest::Digest::of(&self.csrf) == beespace_core::digest::Digest::of(principal.csrf())
        {
            return Ok(());
        }
        let detail = "The form is not of your session, and nothing was changed.";
        Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", detail).help("Load the page again and repeat what you did."))
    }

    fn word(self) -> WordBody {
        WordBody { stage: self.stage, subject: self.subject, reason: None }
    }
}

pub(super) async fn restart(
    State(front): State<Arc<Front>>,
    Extension(principal): Extension<Principal>,
    Path((owner, name, number)): BuildPath,
    Form(form): Form<Signed>,
) -> Result<Redirect, Problem> {
    form.check(&principal)?;
    let old = build::find(&front.store.read()?, &owner, &name, &number)?;
    intervention::restart(&front, &old).await?;
    // There it stands above the one that it repeats.
    Ok(Redirect::to(&address::repository(&old.event.repository.name)))
}

pub(super) async fn cancel(
    State(front): State<Arc<Front>>,
    Extension(principal): Extension<Principal>,
    Path((owner, name, number)): BuildPath,
    Form(form): Form<Signed>,
) -> Result<Redirect, Problem> {
    form.check(&principal)?;
    let build = build::find(&front.store.read()?, &owner, &name, &number)?;
    intervention::cancel(&front, &build, principal.id()).await?;
    Ok(Redirect::to(&super::row::href(&build)))
}

pub(super) async fn approve(
    state: State<Arc<Front>>,
    principal: Extension<Principal>,
    path: BuildPath,
    form: Form<Signed>,
) -> Result<Redirect, Problem> {
    answer(state, principal, path, form, Answer::Approve).await
}

pub(super) async fn decline(
    state: State<Arc<Front>>,
    principal: Extension<Principal>,
    path: BuildPath,
    form: Form<Signed>,
) -> Result<Redirect, Problem> {
    answer(state, principal, path, form, Answer::Decline).await
}

async fn answer(
    State(front): State<Arc<Front>>,
    Extension(principal): Extension<Principal>,
    Path((owner, name, number)): BuildPath,
    Form(form): Form<Signed>,
    answer: Answer,
) -> Result<Redirect, Problem> {
    form.check(&principal)?;
    let build = build::find(&front.store.read()?, &owner, &name, &number)?;
    intervention::answer(&front, &build, answer, form.word(), principal.id()).await?;
    Ok(Redirect::to(&super::row::href(&build)))
}

pub(super) async fn replay_delivery(
    State(front): State<Arc<Front>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Form(form): Form<Signed>,
) -> Result<Redirect, Problem> {
    form.check(&principal)?;
    let id = id.parse().map_err(|_| Problem::not_found("delivery"))?;
    front.store.replay_delivery(id, front.now()).await?;
    Ok(Redirect::to("/-/deliveries"))
}

pub(super) async fn replay_notice(
    State(front): State<Arc<Front>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Form(form): Form<Signed>,
) -> Result<Redirect, Problem> {
    form.check(&principal)?;
    let id = id.parse().map_err(|_| Problem::not_found("notice"))?;
    intervention::replay_notice(&front, id).await?;
    Ok(Redirect::to("/-/notices"))
}
