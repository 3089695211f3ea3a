//! `beespace.toml`, the environment, and where each value came from.
