//! The host functions that plugins may import, one file per WIT interface.

pub(crate) mod artifacts;
pub(crate) mod config;
pub(crate) mod kv;
pub(crate) mod log;
pub(crate) mod secrets;
pub(crate) mod source;
