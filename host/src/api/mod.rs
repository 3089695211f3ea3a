//! The JSON API: every route on one page.
