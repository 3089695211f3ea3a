//! The building blocks of the tests: a fake Gogs, servers, engines, registries, a TCP proxy, plugins.

pub mod beespace;
pub mod client;
pub mod crash_soak;
pub mod docker;
pub mod dockerd;
pub mod engine_fixture;
pub mod guest_build;
pub mod process;
pub mod registry;
pub mod seed_data;
pub mod seeded_rng;
pub mod tcp_proxy;

pub use fake_gogs as gogs;

/// How long a test waits for a condition before it fails. Only a failing test waits as long, so this is far more than the slowest
/// machine needs.
pub const WAIT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);
