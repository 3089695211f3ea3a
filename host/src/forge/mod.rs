//! The Gogs API: repositories, permissions, webhooks.
//!
//! | file | holds |
//! |---|---|
//! | [`client`] | one request: URL, token, limits, and the meaning of the response |
//! | [`repository`] | the token's user and their permissions |
//! | [`hook`] | the webhooks of a repository |
//! | [`enable`] | enable, repair and disable a repository |
//! | [`error`] | errors, each with its remedy |

mod client;
mod enable;
mod error;
mod hook;
mod repository;

pub use client::Forge;
pub use enable::{EnableError, Enabler, HookLocks};
pub use error::ForgeError;
pub use hook::{GogsHook, GogsHookConfig};
