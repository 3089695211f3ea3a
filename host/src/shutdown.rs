//! Stop intake, drain or hand over, close.
