//! The world that Beespace is tested in.

pub mod gogs;
