//! The host functions that plugins may call, one file an interface.

pub(crate) mod artifacts;
pub(crate) mod config;
pub(crate) mod kv;
pub(crate) mod log;
pub(crate) mod secrets;
pub(crate) mod source;

use std::pin::Pin;

/// What a port gives back: a future that borrows it. (A trait that is used as an object cannot have `async fn`.)
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
