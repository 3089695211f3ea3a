//! The JSON API: every route on one page.

pub mod log;
