//! Between the types of `wit/` and those of the domain. What goes in is copied; what comes out is a stranger's and is counted,
//! cut, cleaned and checked as if a user had typed it.

pub(crate) mod inward;
pub(crate) mod outward;
pub(crate) mod plan;
