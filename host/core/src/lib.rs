//! The decisions of Beespace: pure functions and types, without I/O, clock, async or randomness. Time, ids and randomness are
//! passed in as arguments.
//!
//! The modules are declared in the order in which a push passes through them (`host/ARCHITECTURE.md` has the diagram):
//!
//! | phase | modules |
//! |---|---|
//! | verify | [`verify`]: the webhook's signature |
//! | event | [`gogs`]: Gogs' payloads; [`git_ref`]: names of refs; [`event`]: our own form; [`trigger`]: build or ignore |
//! | | [`trust`]: whether the code of an event gets secrets; [`pull_request_head`]: the commit of a pull request |
//! | | [`schedule`]: builds that start by themselves |
//! | pipeline | [`pipeline`]: the file and its `when`; [`diagnostic`]: problems in the file |
//! | admit | [`policy`]: verdicts, decisions, approvals; [`baseline_policy`]: built-in rules; [`plugin_context`]: plugin input |
//! | | [`build_admission`]: the decision about a whole build |
//! | | [`rule_set`]: what decisions depend on besides their subjects |
//! | plan | [`plan`]: the work of a step; [`image_ref`]: image references; [`script`]: the step's script |
//! | | [`metadata_service`]: addresses that no container and no plugin may reach |
//! | run | [`build`]: builds, stages, steps; [`stage_graph`], [`graph`]: scheduling; [`environment`]: variables |
//! | | [`step_type`]: later rounds |
//! | | [`user_action`]: approve, decline, cancel |
//! | log | [`output`]: streams of a container; [`mask`]: secrets in the output |
//! | outcome | [`exit`]: the end of a container; [`status`]; [`reason`] |
//! | retention | [`clock_check`]: whether old data may be removed |
//! | notify | [`notice`]: messages for people; [`change_event`]: changes for pages, streams and workers |
//!
//! [`digest`], [`error_cause`], [`ids`], [`sanitize`], [`time`], [`units`] and the private `cycle_detection` are shared by all
//! phases. No two modules import each other, directly or through others: `tests/it/layers.rs` has the table of allowed imports.

mod cycle_detection;
pub mod digest;
pub mod error_cause;
pub mod ids;
pub mod sanitize;
pub mod time;
pub mod units;

pub mod verify;

pub mod event;
pub mod git_ref;
pub mod gogs;
pub mod pull_request_head;
pub mod schedule;
pub mod trigger;
pub mod trust;

pub mod diagnostic;
pub mod pipeline;

pub mod baseline_policy;
pub mod build_admission;
pub mod plugin_context;
pub mod policy;
pub mod rule_set;

pub mod image_ref;
pub mod metadata_service;
pub mod plan;
pub mod script;

pub mod build;
pub mod environment;
pub mod graph;
pub mod stage_graph;
pub mod step_type;
pub mod user_action;

pub mod mask;
pub mod output;

pub mod exit;
pub mod reason;
pub mod reason_code;
pub mod status;

pub mod change_event;
pub mod notice;
pub mod notifier_refusals;

pub mod clock_check;
