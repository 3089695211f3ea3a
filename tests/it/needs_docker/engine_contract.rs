//! Docker keeps the contract of `Engine`; the clauses are in `tests/it/engine_contract.rs`.

crate::engine_contract::contract_tests!(docker);
