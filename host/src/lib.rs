//! Does what [`beespace_core`] decides. Start reading at [`flow`]: it is the way of a push, in one page.

pub mod access;
pub mod address;
pub mod admit;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod engine;
pub mod flow;
pub mod forge;
pub mod front;
pub mod guard;
pub mod intervention;
pub mod log;
pub mod notify;
pub mod plugins;
pub mod run;
pub mod seal;
pub mod session;
pub mod shutdown;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod web;
pub mod webhook;
pub mod worker;
