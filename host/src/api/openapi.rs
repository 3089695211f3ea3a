//! The OpenAPI document: generated from the routes, and completed with what all routes have in common.

use axum::http::{Method, StatusCode};
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response};

use crate::access::{self, Access, Right};
use crate::http_problem::MEDIA_TYPE;

/// Descriptions of the path parameters.
const PATH_PARAMETERS: [(&str, &str); 9] = [
    ("owner", "The owner of the repository: a Gogs user or organisation."),
    ("name", "The name of the repository."),
    ("number", "The number of the build in its repository, or its id."),
    ("stage", "The number of the stage in its build, from 1."),
    ("step", "The number of the step in its stage; 0 is the clone by the host."),
    ("id", "The id, as the list returns it."),
    ("notifier", "The name of the notifier in the configuration."),
    ("secret", "The name of the secret: letters, digits, `_`, `-` and `.`."),
    ("schedule", "The name of the schedule: letters, digits, `_`, `-` and `.`."),
];

/// Descriptions of the statuses.
const STATUS_DESCRIPTIONS: [(StatusCode, &str); 8] = [
    (StatusCode::OK, "Success."),
    (StatusCode::NO_CONTENT, "Success, without a body."),
    (StatusCode::BAD_REQUEST, "The request is invalid."),
    (StatusCode::UNAUTHORIZED, "The request has no valid credentials for this operation."),
    (StatusCode::NOT_FOUND, "Not found."),
    (StatusCode::CONFLICT, "The request conflicts with the current state."),
    (StatusCode::UNPROCESSABLE_ENTITY, "The request is valid but cannot be carried out; the problem has the reason."),
    (StatusCode::BAD_GATEWAY, "The request to Gogs failed; the problem has the reason."),
];

/// The name of the security scheme.
const TOKEN_SCHEME: &str = "token";

/// Adds the security scheme, descriptions and common responses.
pub(super) fn complete(document: &mut OpenApi) {
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The admin token."));
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

/// The access that the operation requires, from the table of routes.
fn complete_access(operation: &mut Operation, access: Option<Access>) {
    let (token, nothing) = (SecurityRequirement::new(TOKEN_SCHEME, [] as [&str; 0]), SecurityRequirement::default());
    operation.security = Some(match access {
        Some(Access::Anonymous) => vec![nothing],
        // With `server.open` no token is needed.
        Some(Access::Reader | Access::Repository(Right::Read)) => vec![token, nothing],
        Some(Access::Admin | Access::Repository(_) | Access::Hook) | None => vec![token],
    });
    if access != Some(Access::Anonymous) {
        let refusal = || RefOr::T(Response::new(""));
        operation.responses.responses.entry(StatusCode::UNAUTHORIZED.as_str().to_owned()).or_insert_with(refusal);
    }
}

fn complete_operation(operation: &mut Operation) {
    // Handlers in different modules have the same names: `list`, `show`.
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
        parameter.description = known.map(|(_, text)| (*text).to_owned());
    }
}

fn complete_response(status: &str, response: &mut Response) {
    if response.description.is_empty() {
        let known = STATUS_DESCRIPTIONS.iter().find(|(known, _)| known.as_str() == status);
        response.description = known.map(|(_, text)| (*text).to_owned()).unwrap_or_default();
    }
    // All errors have one form.
    if !status.starts_with('2') {
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        response.content = [(MEDIA_TYPE.to_owned(), RefOr::T(problem))].into_iter().collect();
    }
}
