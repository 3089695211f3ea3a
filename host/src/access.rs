//! Access control: one table lists every route with the access that it requires. The middleware enforces the table, and a route
//! that is missing from it refuses every request.
//!
//! A route under a repository requires a [`Right`] on that repository. [`crate::authorization`] checks the right before the
//! handler runs.

use axum::http::Method;

use crate::principal::{Principal, PrincipalKind};
use crate::store::lookup::Visibility;
use crate::store::repository::Repository;

/// The access that a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// None: everyone may call it.
    Anonymous,
    /// The right to read something on this server; everyone has it if `server.open` is true. Lists then contain only what the
    /// caller may see.
    Reader,
    /// The admin token, or a session that began with it.
    Admin,
    /// A right on the repository that the path names.
    Repository(Right),
    /// A webhook delivery from Gogs, which carries its own proof: a signature.
    Hook,
}

/// A right on one repository. A greater right includes the lesser ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// See the repository, its builds, logs and decisions.
    Read,
    /// Start, promote, restart, cancel, approve and decline builds; set schedules.
    Write,
    /// Change the repository's webhook and secrets.
    Admin,
}

/// The greatest right that a caller can have on any repository. The middleware refuses a request early if even this is not
/// enough.
#[must_use]
pub fn greatest_right(principal: &Principal, is_open: bool) -> Option<Right> {
    match principal.kind() {
        PrincipalKind::Admin => Some(Right::Admin),
        PrincipalKind::Anonymous => is_open.then_some(Right::Read),
    }
}

/// The right that a caller has on one repository. An open server shows only public repositories to everyone.
#[must_use]
pub fn right_on(principal: &Principal, repository: &Repository, is_open: bool) -> Option<Right> {
    match principal.kind() {
        PrincipalKind::Admin => Some(Right::Admin),
        PrincipalKind::Anonymous => (is_open && !repository.is_private).then_some(Right::Read),
    }
}

/// The repositories that lists show to a caller.
#[must_use]
pub fn visibility(principal: &Principal, is_open: bool) -> Visibility {
    match principal.kind() {
        PrincipalKind::Admin => Visibility::All,
        PrincipalKind::Anonymous if is_open => Visibility::Public,
        PrincipalKind::Anonymous => Visibility::Only(Vec::new()),
    }
}

/// One route.
#[derive(Debug, Clone)]
pub struct Rule {
    pub method: Method,
    /// The path as the router spells it.
    pub path: &'static str,
    pub access: Access,
}

macro_rules! rules {
    ($($method:ident $path:literal $access:ident $(($right:ident))?;)+) => {
        /// The table.
        pub const RULES: &[Rule] =
            &[$(Rule { method: Method::$method, path: $path, access: Access::$access $((Right::$right))? }),+];
    };
}

rules! {
    POST "/-/hook/{key}" Hook;

    GET "/" Reader;
    GET "/{owner}" Reader;
    GET "/{owner}/{name}" Repository(Read);
    GET "/{owner}/{name}/{number}" Repository(Read);
    GET "/{owner}/{name}/{number}/{stage}/{step}" Repository(Read);
    POST "/{owner}/{name}/builds" Repository(Write);
    POST "/{owner}/{name}/schedules" Repository(Write);
    POST "/{owner}/{name}/schedules/{schedule}/remove" Repository(Write);
    POST "/{owner}/{name}/schedules/{schedule}/run" Repository(Write);
    POST "/{owner}/{name}/{number}/restart" Repository(Write);
    POST "/{owner}/{name}/{number}/cancel" Repository(Write);
    POST "/{owner}/{name}/{number}/promote" Repository(Write);
    POST "/{owner}/{name}/{number}/rollback" Repository(Write);
    POST "/{owner}/{name}/{number}/approve" Repository(Write);
    POST "/{owner}/{name}/{number}/decline" Repository(Write);
    GET "/-/login" Anonymous;
    POST "/-/login" Anonymous;
    POST "/-/logout" Anonymous;
    GET "/-/assets/{file}" Anonymous;
    GET "/-/deliveries" Admin;
    POST "/-/deliveries/{id}/retry" Admin;
    GET "/-/notices" Admin;
    POST "/-/notices/{id}/retry" Admin;

    GET "/schema/beespace.pipeline.v1.json" Anonymous;
    GET "/api/openapi.json" Reader;
    GET "/api/v1/user" Anonymous;
    GET "/api/v1/events" Reader;
    GET "/api/v1/builds" Reader;
    GET "/api/v1/repositories" Reader;
    POST "/api/v1/repositories" Admin;
    GET "/api/v1/repositories/{owner}/{name}" Repository(Read);
    DELETE "/api/v1/repositories/{owner}/{name}" Repository(Admin);
    POST "/api/v1/repositories/{owner}/{name}/repair" Repository(Admin);
    GET "/api/v1/repositories/{owner}/{name}/builds" Repository(Read);
    POST "/api/v1/repositories/{owner}/{name}/builds" Repository(Write);
    GET "/api/v1/repositories/{owner}/{name}/builds/{number}" Repository(Read);
    GET "/api/v1/repositories/{owner}/{name}/builds/{number}/decisions" Repository(Read);
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/restart" Repository(Write);
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/cancel" Repository(Write);
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/promote" Repository(Write);
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/rollback" Repository(Write);
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/approve" Repository(Write);
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/decline" Repository(Write);
    GET "/api/v1/repositories/{owner}/{name}/builds/{number}/stages/{stage}/steps/{step}/log" Repository(Read);
    GET "/api/v1/repositories/{owner}/{name}/builds/{number}/stages/{stage}/steps/{step}/log/stream" Repository(Read);
    GET "/api/v1/repositories/{owner}/{name}/schedules" Repository(Read);
    PUT "/api/v1/repositories/{owner}/{name}/schedules/{schedule}" Repository(Write);
    DELETE "/api/v1/repositories/{owner}/{name}/schedules/{schedule}" Repository(Write);
    POST "/api/v1/repositories/{owner}/{name}/schedules/{schedule}/run" Repository(Write);
    GET "/api/v1/repositories/{owner}/{name}/secrets" Repository(Admin);
    PUT "/api/v1/repositories/{owner}/{name}/secrets/{secret}" Repository(Admin);
    DELETE "/api/v1/repositories/{owner}/{name}/secrets/{secret}" Repository(Admin);
    GET "/api/v1/secrets" Admin;
    PUT "/api/v1/secrets/{secret}" Admin;
    DELETE "/api/v1/secrets/{secret}" Admin;
    GET "/api/v1/plugin-secrets" Admin;
    PUT "/api/v1/plugin-secrets/{secret}" Admin;
    DELETE "/api/v1/plugin-secrets/{secret}" Admin;
    GET "/api/v1/deliveries" Admin;
    GET "/api/v1/deliveries/{id}" Admin;
    POST "/api/v1/deliveries/{id}/retry" Admin;
    GET "/api/v1/notices" Admin;
    GET "/api/v1/notices/{id}" Admin;
    POST "/api/v1/notices/{id}/retry" Admin;
    POST "/api/v1/notifiers/{notifier}/retry" Admin;
    GET "/api/v1/doctor" Admin;

    GET "/healthz" Anonymous;
    GET "/readyz" Anonymous;
    GET "/version" Reader;
    GET "/metrics" Admin;
}

/// The access that a route requires; none if the table has no such route. `HEAD` is a `GET` without its body.
#[must_use]
pub fn access(method: &Method, path: &str) -> Option<Access> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    RULES.iter().find(|rule| rule.method == *method && rule.path == path).map(|rule| rule.access)
}

/// Whether the table has a row for this path with any method. If so, another method is "method not allowed", not a gap
/// in the table.
#[must_use]
pub fn is_known(path: &str) -> bool {
    RULES.iter().any(|rule| rule.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use beespace_core::ids::{RepositoryId, RepositoryName};
    use beespace_core::time::Timestamp;

    #[test]
    fn each_route_has_one_row() {
        for (index, rule) in RULES.iter().enumerate() {
            let again = RULES.iter().skip(index + 1).any(|other| other.method == rule.method && other.path == rule.path);
            assert!(!again, "{} {}", rule.method, rule.path);
        }
    }

    #[test]
    fn every_change_requires_more_than_the_right_to_read() {
        for rule in RULES.iter().filter(|rule| rule.method != Method::GET) {
            let signs_in = matches!(rule.path, "/-/login" | "/-/logout");
            let may_change =
                matches!(rule.access, Access::Admin | Access::Hook | Access::Repository(Right::Write | Right::Admin));
            assert!(signs_in || may_change, "{} {}", rule.method, rule.path);
        }
        assert_eq!(access(&Method::HEAD, "/"), Some(Access::Reader));
        assert_eq!(access(&Method::DELETE, "/"), None);
    }

    #[test]
    fn every_route_under_a_repository_requires_a_right_on_it() {
        for rule in RULES {
            let is_under_repository = rule.path.contains("/{owner}/{name}");
            assert_eq!(matches!(rule.access, Access::Repository(_)), is_under_repository, "{} {}", rule.method, rule.path);
        }
    }

    #[test]
    fn only_the_admin_may_change_a_repository_and_everyone_may_read_the_public_ones_of_an_open_server() {
        let (admin, anonymous) = (Principal::admin(), Principal::anonymous());
        let repository = |is_private| Repository {
            id: RepositoryId(1),
            name: RepositoryName::new("ada", "hive").unwrap(),
            default_branch: "main".to_owned(),
            is_private,
            html_url: String::new(),
            hook: None,
            previous_hooks: Vec::new(),
            last_number: 0,
            enabled_at: Timestamp(0),
        };
        for (is_open, is_private) in [(false, false), (false, true), (true, false), (true, true)] {
            let repository = repository(is_private);
            assert_eq!(right_on(&admin, &repository, is_open), Some(Right::Admin));
            assert!(visibility(&admin, is_open).includes(&repository));
            let is_visible = is_open && !is_private;
            assert_eq!(right_on(&anonymous, &repository, is_open), is_visible.then_some(Right::Read));
            assert_eq!(visibility(&anonymous, is_open).includes(&repository), is_visible);
        }
        assert!(Right::Read < Right::Write && Right::Write < Right::Admin);
    }
}
