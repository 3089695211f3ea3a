//! The command line: nouns, then verbs.

pub mod excerpt;
pub mod lint;
pub mod output;
