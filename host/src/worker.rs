//! Takes rows that wait, one fair turn at a time.
