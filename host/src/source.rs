//! One bare mirror per repository, and every question about a commit.
