//! Tests that need a container engine. `tests/ensure-docker` starts one.

mod cost_budget;
mod crash;
mod deferred_start;
mod e2e_engine_hang;
mod engine_contract;
mod engine_docker;
mod engine_full;
mod engine_hang;
mod engine_outage;
mod engine_pull;
pub(crate) mod flow_docker;
mod flow_rounds;
mod flow_rounds_wait;
mod flow_settings;
mod images;
mod network_isolation;
