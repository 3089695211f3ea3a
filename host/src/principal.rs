//! The authenticated caller of a request.

use beespace_core::policy::approval::ADMIN_ID;

/// The kind of a caller. It decides which rights the caller has; see [`crate::access`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    /// No credentials, or credentials that are not valid.
    Anonymous,
    /// The holder of the instance's admin token.
    Admin,
}

impl PrincipalKind {
    /// The kind as a session row stores it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Admin => "admin",
        }
    }

    /// The kind of a stored session. An unknown kind is refused, and so is `anonymous`: no session belongs to an anonymous
    /// caller.
    #[must_use]
    pub fn of_session(stored: &str) -> Option<Self> {
        (stored == Self::Admin.as_str()).then_some(Self::Admin)
    }
}

/// An identity and its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    kind: PrincipalKind,
    id: String,
    /// The token that the forms of a browser session carry; none if the request brought its own credentials.
    csrf: Option<String>,
}

impl Principal {
    /// A caller without valid credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { kind: PrincipalKind::Anonymous, id: PrincipalKind::Anonymous.as_str().to_owned(), csrf: None }
    }

    /// A caller that sent the admin token with the request.
    #[must_use]
    pub fn admin() -> Self {
        Self { kind: PrincipalKind::Admin, id: ADMIN_ID.to_owned(), csrf: None }
    }

    /// The owner of a browser session.
    #[must_use]
    pub fn of_session(kind: PrincipalKind, id: String, csrf: String) -> Self {
        Self { kind, id, csrf: Some(csrf) }
    }

    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.kind
    }

    /// The name that the records of this caller's actions carry.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.kind == PrincipalKind::Admin
    }

    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.kind == PrincipalKind::Anonymous
    }

    /// The token that forms of this session carry; empty without a session.
    #[must_use]
    pub fn csrf(&self) -> &str {
        self.csrf.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_an_unknown_kind_has_no_owner() {
        assert_eq!(PrincipalKind::of_session("admin"), Some(PrincipalKind::Admin));
        for kind in ["anonymous", "user", "Admin", "admin ", "root", ""] {
            assert_eq!(PrincipalKind::of_session(kind), None, "{kind:?}");
        }
    }
}
