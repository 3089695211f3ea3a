//! Gogs' API: repositories, permissions, hooks.
