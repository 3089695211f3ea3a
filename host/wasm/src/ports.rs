//! Ports: the traits through which host functions reach resources of the server. The server implements them; this crate contains
//! no implementation.

pub(crate) mod kv;
pub(crate) mod secrets;
pub(crate) mod source;

use std::pin::Pin;

/// The future that a port method returns. (A trait that is used as an object cannot have `async fn`.)
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
