//! Everything that is tested through the outside of the crates, in one binary.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that meets the unexpected has failed")]

mod access;
mod api;
mod cli;
mod config;
mod crash;
mod engine_bench;
mod engine_contract;
mod engine_docker;
mod examples;
mod flow;
mod flow_docker;
mod forge;
mod gogs;
mod guests;
mod health;
mod log;
mod log_http;
mod mask;
mod pages;
mod plugins;
mod plugins_converter;
mod plugins_webhook;
mod policy_previous;
mod practice;
mod seal;
mod source;
mod store;
mod store_full;
mod tidy;
mod wasm_egress;
mod wasm_hostile;
mod wasm_load;
mod wasm_notifier;
mod webhook;
mod wit;
