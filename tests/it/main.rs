//! All integration tests, in one binary.
//!
//! Tests with special requirements are in folders of their own, so that `tests/run fast` can skip them: `needs_docker`,
//! `needs_root`, `needs_strace`.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails at anything unexpected")]

mod access;
mod api;
mod base_path;
mod cli;
mod cli_terminal;
mod config;
mod connections;
mod cost_budget;
mod crash;
mod doctor;
mod engine_api;
mod engine_contract;
mod examples;
mod fake_gogs;
mod flow;
mod flow_hostile;
mod flow_modes;
mod flow_rounds_wait;
mod flow_settings;
mod flow_source;
mod flow_waits;
mod forge;
mod fuzz;
mod gogs;
mod health;
mod https;
mod layers;
mod log;
mod log_http;
mod mask;
mod module_graph;
mod needs_docker;
mod needs_root;
mod needs_strace;
mod notify;
mod openapi;
mod outbox;
mod pages;
mod pipeline_reference;
mod plugin_docs;
mod plugin_logs;
mod plugins;
mod plugins_converter;
mod plugins_webhook;
mod policy_previous;
mod retention;
mod scale;
mod seal;
mod source;
mod store;
mod store_full;
mod tidy;
mod untrusted_text;
mod wasm_egress;
mod wasm_egress_limits;
mod wasm_hostile;
mod wasm_languages;
mod wasm_load;
mod wasm_mutated;
mod wasm_notifier;
mod webhook;
mod wit;
