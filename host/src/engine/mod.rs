//! What runs a plan.
