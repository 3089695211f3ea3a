//! Tests that count system calls with strace.

mod cost_budget;
