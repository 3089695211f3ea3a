//! Engines: the contract that every engine keeps, and the engines themselves.
//!
//! Code above this module does not depend on how an engine makes containers. An engine makes no decisions:
//! [`beespace_core::exit`] interprets how a container has exited.

mod container_io;
mod contract;
pub mod docker;
pub mod dummy;
mod error;
pub mod fail_points;
mod health_cache;
mod tar_stream;

pub use container_io::{Launch, Output, OutputSender};
pub use contract::{Capabilities, Engine, EngineInfo, EngineWarning, ImageOutcome};
pub use error::EngineError;
pub use health_cache::HealthCache;
