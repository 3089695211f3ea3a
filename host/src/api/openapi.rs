//! The OpenAPI document: made from the routes, with words for what every route has in common.

use axum::http::{Method, StatusCode};
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response};

use super::problem::MEDIA_TYPE;
use crate::access::{self, Access};

/// What the holes of addresses stand for.
const PATH_PARAMETERS: [(&str, &str); 7] = [
    ("owner", "Whose repository it is: a user or an organisation of Gogs."),
    ("name", "The repository's name."),
    ("number", "The build's number in its repository, or its id."),
    ("stage", "The stage's number in its build, from 1."),
    ("step", "The step's number in its stage; 0 is the host's own clone."),
    ("id", "As a list of its kind gives it."),
    ("secret", "The secret's name: letters, digits, `_`, `-` and `.`."),
];

/// What a status says, whatever was asked.
const STATUS_DESCRIPTIONS: [(StatusCode, &str); 8] = [
    (StatusCode::OK, "It is done: what was asked for, or what it is now."),
    (StatusCode::NO_CONTENT, "It is done."),
    (StatusCode::BAD_REQUEST, "The request itself is wrong."),
    (StatusCode::UNAUTHORIZED, "Nobody who may do it is signed in."),
    (StatusCode::NOT_FOUND, "There is no such thing here."),
    (StatusCode::CONFLICT, "It does not fit what stands there now."),
    (StatusCode::UNPROCESSABLE_ENTITY, "It cannot be done as asked; the problem says why."),
    (StatusCode::BAD_GATEWAY, "Gogs did not do its part; the problem says what it answered."),
];

/// The name of the way to prove who asks.
const TOKEN_SCHEME: &str = "token";

/// Fills in what the routes leave to be said once.
pub(super) fn complete(document: &mut OpenApi) {
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The token of an administrator."));
    if let Some(components) = &mut document.components {
        components.add_security_scheme(TOKEN_SCHEME, SecurityScheme::Http(token.build()));
    }
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            complete_access(operation, access::access(&method, path));
            complete_operation(operation);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}

/// Who may call it, as the table of access has it.
fn complete_access(operation: &mut Operation, access: Option<Access>) {
    let (token, nothing) = (SecurityRequirement::new(TOKEN_SCHEME, [] as [&str; 0]), SecurityRequirement::default());
    operation.security = Some(match access {
        Some(Access::Anonymous) => vec![nothing],
        // Nothing is needed where the server is open to read.
        Some(Access::Reader) => vec![token, nothing],
        Some(Access::Admin | Access::Hook) | None => vec![token],
    });
    if access != Some(Access::Anonymous) {
        let refusal = || RefOr::T(Response::new(""));
        operation.responses.responses.entry(StatusCode::UNAUTHORIZED.as_str().to_owned()).or_insert_with(refusal);
    }
}

fn complete_operation(operation: &mut Operation) {
    // Handlers of different nouns have the same names: `list`, `show`.
    let noun = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
    operation.operation_id = operation.operation_id.take().map(|verb| format!("{noun}_{verb}"));
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            complete_parameter(parameter);
        }
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            complete_response(status, response);
        }
    }
}

fn complete_parameter(parameter: &mut Parameter) {
    if parameter.description.is_none() {
        let known = PATH_PARAMETERS.iter().find(|(name, _)| *name == parameter.name);
        parameter.description = known.map(|(_, words)| (*words).to_owned());
    }
}

fn complete_response(status: &str, response: &mut Response) {
    if response.description.is_empty() {
        let known = STATUS_DESCRIPTIONS.iter().find(|(known, _)| known.as_str() == status);
        response.description = known.map(|(_, words)| (*words).to_owned()).unwrap_or_default();
    }
    // Whatever is not done is told in one form.
    if !status.starts_with('2') {
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        response.content = [(MEDIA_TYPE.to_owned(), RefOr::T(problem))].into_iter().collect();
    }
}
