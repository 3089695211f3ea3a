//! The composition root: what lives long, and who knows whom.
