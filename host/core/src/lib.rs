//! What Beespace decides. No I/O, no clock, no async, no randomness: time, ids and randomness come in as arguments.
//!
//! The modules stand in the order of the way a push takes (`host/ARCHITECTURE.md` draws it):
//!
//! | stage | here |
//! |---|---|
//! | verify | [`verify`] |
//! | event | [`gogs`] (what Gogs sends), [`event`] (what happened, in our form), [`git_ref`], [`intake`] (what to do about it) |
//! | pipeline | [`pipeline`], [`diagnostic`] |
//! | admit | [`policy`], [`context`], [`baseline`] |
//! | plan | [`plan`], [`image`], [`environment`], [`graph`] |
//! | log | [`mask`] |
//! | outcome | [`outcome`], [`status`], [`build`], [`intervention`] |
//! | notify | [`notice`]; [`run_event`] tells everybody else |
//!
//! [`ids`], [`time`], [`units`], [`digest`] and [`visible`] are the small change that all of them pay with.

pub mod digest;
pub mod ids;
pub mod sanitize;
pub mod time;
pub mod units;

pub mod baseline_policy;
pub mod build;
pub mod change_event;
mod cycle;
pub mod diagnostic;
pub mod environment;
pub mod event;
pub mod git_ref;
pub mod gogs;
pub mod graph;
pub mod image_ref;
pub mod mask;
pub mod notice;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod plugin_context;
pub mod policy;
pub mod script;
pub mod status;
pub mod trigger;
pub mod user_action;
pub mod verify;
