//! Who may call what: one table for all routes, enforced by one layer. A route that is not in the table answers nobody.

use axum::http::Method;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Anonymous,
    /// Who may read; everybody where `server.open` is true.
    Reader,
    /// Who holds the admin token, or a session that began with it.
    Admin,
    /// Gogs: the request carries its own proof, a signature.
    Hook,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Rule {
    pub method: Method,
    /// As the router writes it.
    pub path: &'static str,
    pub access: Access,
}

macro_rules! rules {
    ($($method:ident $path:literal $access:ident;)+) => {
        /// The table.
        pub const RULES: &[Rule] = &[$(Rule { method: Method::$method, path: $path, access: Access::$access }),+];
    };
}

rules! {
    POST "/-/hook/{key}" Hook;

    GET "/" Reader;
    GET "/{owner}" Reader;
    GET "/{owner}/{name}" Reader;
    GET "/{owner}/{name}/{number}" Reader;
    GET "/{owner}/{name}/{number}/{stage}/{step}" Reader;
    POST "/{owner}/{name}/{number}/restart" Admin;
    POST "/{owner}/{name}/{number}/cancel" Admin;
    POST "/{owner}/{name}/{number}/approve" Admin;
    POST "/{owner}/{name}/{number}/decline" Admin;
    GET "/-/login" Anonymous;
    POST "/-/login" Anonymous;
    POST "/-/logout" Anonymous;
    GET "/-/assets/{file}" Anonymous;
    GET "/-/deliveries" Admin;
    POST "/-/deliveries/{id}/retry" Admin;
    GET "/-/notices" Admin;
    POST "/-/notices/{id}/retry" Admin;

    GET "/api/openapi.json" Reader;
    GET "/api/v1/user" Anonymous;
    GET "/api/v1/events" Reader;
    GET "/api/v1/builds" Reader;
    GET "/api/v1/repositories" Reader;
    POST "/api/v1/repositories" Admin;
    GET "/api/v1/repositories/{owner}/{name}" Reader;
    DELETE "/api/v1/repositories/{owner}/{name}" Admin;
    POST "/api/v1/repositories/{owner}/{name}/repair" Admin;
    GET "/api/v1/repositories/{owner}/{name}/builds" Reader;
    GET "/api/v1/repositories/{owner}/{name}/builds/{number}" Reader;
    GET "/api/v1/repositories/{owner}/{name}/builds/{number}/decisions" Reader;
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/restart" Admin;
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/cancel" Admin;
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/approve" Admin;
    POST "/api/v1/repositories/{owner}/{name}/builds/{number}/decline" Admin;
    GET "/api/v1/repositories/{owner}/{name}/builds/{number}/stages/{stage}/steps/{step}/log" Reader;
    GET "/api/v1/repositories/{owner}/{name}/builds/{number}/stages/{stage}/steps/{step}/log/stream" Reader;
    GET "/api/v1/repositories/{owner}/{name}/secrets" Admin;
    PUT "/api/v1/repositories/{owner}/{name}/secrets/{secret}" Admin;
    DELETE "/api/v1/repositories/{owner}/{name}/secrets/{secret}" Admin;
    GET "/api/v1/secrets" Admin;
    PUT "/api/v1/secrets/{secret}" Admin;
    DELETE "/api/v1/secrets/{secret}" Admin;
    GET "/api/v1/deliveries" Admin;
    GET "/api/v1/deliveries/{id}" Admin;
    POST "/api/v1/deliveries/{id}/replay" Admin;
    GET "/api/v1/notices" Admin;
    GET "/api/v1/notices/{id}" Admin;
    POST "/api/v1/notices/{id}/replay" Admin;
    GET "/api/v1/doctor" Admin;

    GET "/healthz" Anonymous;
    GET "/readyz" Anonymous;
    GET "/version" Reader;
    GET "/metrics" Admin;
}

/// Who may call this route; none where nobody may. `HEAD` is a `GET` whose body is not sent.
#[must_use]
pub fn access(method: &Method, path: &str) -> Option<Access> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    RULES.iter().find(|rule| rule.method == *method && rule.path == path).map(|rule| rule.access)
}

/// Whether a path has any row: a method that it lacks is "method not allowed" and no gap in the table.
#[must_use]
pub fn is_known(path: &str) -> bool {
    RULES.iter().any(|rule| rule.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_stands_once() {
        for (index, rule) in RULES.iter().enumerate() {
            let again = RULES.iter().skip(index + 1).any(|other| other.method == rule.method && other.path == rule.path);
            assert!(!again, "{} {}", rule.method, rule.path);
        }
    }

    #[test]
    fn nothing_is_changed_by_reading_and_nobody_changes_anonymously() {
        for rule in RULES.iter().filter(|rule| rule.method != Method::GET) {
            let signs_in = matches!(rule.path, "/-/login" | "/-/logout");
            assert!(signs_in || matches!(rule.access, Access::Admin | Access::Hook), "{} {}", rule.method, rule.path);
        }
        assert_eq!(access(&Method::HEAD, "/"), Some(Access::Reader));
        assert_eq!(access(&Method::DELETE, "/"), None);
    }
}
