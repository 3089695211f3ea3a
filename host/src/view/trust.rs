//! The trust in a build, in words.

/// What it means that a build is untrusted.
pub const UNTRUSTED: &str = "its commit is in no branch and no tag of the repository, so its steps get no secrets";
