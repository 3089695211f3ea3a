//! Pages.

pub mod ansi;
pub mod lines;
