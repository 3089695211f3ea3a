//! The way of a push.
