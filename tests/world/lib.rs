//! The world that Beespace is tested in.

pub mod docker;
pub mod gogs;
