//! Pages.

pub mod ansi;
