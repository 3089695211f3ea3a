//! The trust in a build, in words.

/// What it means that a build is untrusted.
pub const UNTRUSTED: &str = "its commit is in no branch and no tag of the repository, so its steps get no secrets";

/// What it means that the head of a pull request is not confirmed.
pub const HEAD_NOT_CONFIRMED: &str = "Gogs may not have updated the head of the pull request when this commit was taken";
