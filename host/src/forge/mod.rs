//! Gogs' API: repositories, permissions, hooks.
//!
//! | file | holds |
//! |---|---|
//! | [`client`] | one request: address, token, limits, and what the answer means |
//! | [`repository`] | who the token is, what it may do where |
//! | [`hook`] | a repository's hooks |
//! | [`enable`] | how a repository begins and ceases to build here |
//! | [`error`] | what went wrong, and what to do |

mod client;
mod enable;
mod error;
mod hook;
mod repository;

pub use client::Forge;
pub use enable::{EnableError, Enabler, HookLocks};
pub use error::ForgeError;
pub use hook::{GogsHook, GogsHookConfig};
