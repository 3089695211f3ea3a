//! Between the types of `wit/` and those of the domain. What goes in is copied; what comes out is a stranger's and is counted,
//! cut, cleaned and checked as if a user had typed it.

pub(crate) mod from_wit;
pub(crate) mod plan;
pub(crate) mod to_wit;
