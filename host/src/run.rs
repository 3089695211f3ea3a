//! Runs the steps of a stage.
