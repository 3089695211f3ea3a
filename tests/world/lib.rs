//! The world that Beespace is tested in.

pub mod beespace;
pub mod client;
pub mod crash_soak;
pub mod docker;
pub mod dockerd;
pub mod gogs;
pub mod process;
pub mod registry;
pub mod seed_data;
pub mod tcp_proxy;
