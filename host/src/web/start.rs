//! The forms that start builds: of a repository, and of the commit of a build.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Form, State};
use axum::response::Redirect;
use beespace_core::build::{Build, Phase, Stage};
use beespace_core::event::GivenParams;
use beespace_core::ids::{StageId, StageNumber};
use beespace_core::pipeline::{Param, ParamKind};
use beespace_core::status::Status;
use beespace_core::trust::Trust;

use super::action;
use crate::app::App;
use crate::authorization::Authorized;
use crate::http_problem::Problem;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::build::Builds;
use crate::store::repository::Repository;
use crate::user_action::{self, DeploymentKind, StartRequest};

/// What the name of a field begins with if it belongs to a param.
const PARAM: &str = "param.";

/// The stages whose params a form offers. A matrix may have many, with the same params.
const MAX_STAGES: u16 = 20;

/// The form.
#[derive(Debug)]
pub struct StartForm {
    /// The path that the form is sent to.
    pub action: String,
    /// The path of the form that sets a schedule.
    pub schedules: String,
    pub branch: String,
    pub params: Vec<ParamField>,
}

/// The field of one param.
#[derive(Debug)]
pub struct ParamField {
    pub name: String,
    /// The id of the field on the page.
    pub id: String,
    pub about: Option<String>,
    /// The values to choose from, and whether each is selected; empty for a text.
    pub options: Vec<(String, bool)>,
    /// The value of a text that is left blank.
    pub default: String,
    pub required: bool,
}

impl StartForm {
    /// The form for a repository. Its params are those of the newest of `builds` on the default branch that has stages.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub(super) fn new(read: &impl Builds, repository: &str, default_branch: &str, builds: &[Build]) -> Result<Self, StoreError> {
        let is_newest = |build: &&Build| build.event.branch() == Some(default_branch) && build.phase != Phase::Prepare;
        let newest = builds.iter().find(is_newest);
        let mut stages = Vec::new();
        for number in 1..=MAX_STAGES {
            let id = newest.map(|build| StageId { build: build.id, stage: StageNumber(number) });
            let Some(stage) = id.map_or(Ok(None), |id| read.stage(id))? else { break };
            stages.push(stage);
        }
        let (action, schedules) = (format!("{repository}/builds"), format!("{repository}/schedules"));
        Ok(Self { action, schedules, branch: default_branch.to_owned(), params: ParamField::of_stages("start", &stages) })
    }
}

/// The form that builds the commit of a build again for a target.
#[derive(Debug)]
pub struct DeployForm {
    /// The last part of the path that the form is sent to.
    pub action: &'static str,
    pub label: &'static str,
    pub params: Vec<ParamField>,
}

impl DeployForm {
    /// The forms of a build that was successful and whose code is trusted; none otherwise.
    pub(super) fn of_build(build: &Build, stages: &[Stage]) -> Vec<Self> {
        let forms = [("promote", "Promote"), ("rollback", "Roll back")];
        let is_possible = build.status == Status::Success && build.trust() == Trust::Trusted;
        let forms = forms.into_iter().filter(|_| is_possible);
        forms.map(|(action, label)| Self { action, label, params: ParamField::of_stages(action, stages) }).collect()
    }
}

impl ParamField {
    /// The fields of the params of all pipelines, in the form `form`.
    fn of_stages(form: &str, stages: &[Stage]) -> Vec<Self> {
        let mut fields: Vec<Self> = Vec::new();
        for (name, param) in stages.iter().flat_map(|stage| &stage.pipeline.params) {
            if fields.iter().all(|field| field.name != *name) {
                fields.push(Self::new(form, name, param));
            }
        }
        fields
    }

    fn new(form: &str, name: &str, param: &Param) -> Self {
        let options = match &param.kind {
            ParamKind::Choice { options } => options.clone(),
            ParamKind::Bool => ["true", "false"].map(str::to_owned).into(),
            ParamKind::String | ParamKind::Number => Vec::new(),
        };
        let selected = |option: String| (option.clone(), param.default.as_ref() == Some(&option));
        Self {
            name: name.to_owned(),
            id: format!("{form}-{name}"),
            about: param.about.clone(),
            options: options.into_iter().map(selected).collect(),
            default: param.default.clone().unwrap_or_default(),
            required: param.default.is_none(),
        }
    }
}

/// The fields of a form in which a blank one counts as not filled in.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn new(fields: Vec<(String, String)>) -> Self {
        Self(fields)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// The values of the params. Those that are left blank have their defaults.
    pub(super) fn params(&self) -> GivenParams {
        let params = self.0.iter().filter_map(|(field, value)| Some((field.strip_prefix(PARAM)?.to_owned(), value.clone())));
        params.filter(|(_, value)| !value.is_empty()).collect()
    }
}

pub(super) async fn start(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    repository: Result<Authorized<Repository>, Problem>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Redirect, Problem> {
    let fields = Fields::new(fields);
    action::check_csrf(fields.get("csrf").unwrap_or_default(), &principal)?;
    let name = fields.get("name").map(str::to_owned);
    let mut request = StartRequest { params: fields.params(), ..StartRequest::default() };
    match fields.get("of") {
        Some("tag") => request.tag = name,
        Some("commit") => request.sha = name,
        _ => request.branch = name,
    }
    let id = user_action::start(&app, repository?.into_inner(), request, &principal).await?;
    Ok(Redirect::to(&app.urls.build(&app.build(id)?)))
}

pub(super) async fn promote(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: Result<Authorized<Build>, Problem>,
    form: Form<Vec<(String, String)>>,
) -> Result<Redirect, Problem> {
    deploy(state, principal, build, form, DeploymentKind::Promote).await
}

pub(super) async fn rollback(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: Result<Authorized<Build>, Problem>,
    form: Form<Vec<(String, String)>>,
) -> Result<Redirect, Problem> {
    deploy(state, principal, build, form, DeploymentKind::Rollback).await
}

async fn deploy(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    build: Result<Authorized<Build>, Problem>,
    Form(fields): Form<Vec<(String, String)>>,
    kind: DeploymentKind,
) -> Result<Redirect, Problem> {
    let fields = Fields::new(fields);
    action::check_csrf(fields.get("csrf").unwrap_or_default(), &principal)?;
    let target = fields.get("target").unwrap_or_default().to_owned();
    let id = user_action::deploy(&app, &*build?, kind, target, fields.params(), &principal).await?;
    Ok(Redirect::to(&app.urls.build(&app.build(id)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_field_is_not_filled_in() {
        let fields = [("name", " v1 "), ("of", ""), ("param.level", "minor"), ("param.note", ""), ("level", "x")];
        let fields = Fields::new(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!((fields.get("name"), fields.get("of")), (Some("v1"), None));
        assert_eq!(fields.params(), GivenParams::from([("level".to_owned(), "minor".to_owned())]));
    }
}
