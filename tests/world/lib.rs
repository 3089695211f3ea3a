//! The world that Beespace is tested in.

pub mod beespace;
pub mod client;
pub mod docker;
pub mod dockerd;
pub mod gogs;
pub mod history;
pub mod kills;
pub mod line;
pub mod process;
pub mod registry;
