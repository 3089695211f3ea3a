//! How the API, the pages and the command line present the same data: times, names of builds, plans, log lines, approvals,
//! warnings.

pub mod approval;
pub mod build_title;
mod container_text;
pub mod delivery_state;
pub mod error_line;
pub mod log_html;
pub mod log_search;
pub mod pipeline_text;
pub mod plan_text;
pub mod policy_warning;
pub mod time;
pub mod trust;
