//! The one wasmtime engine of the process: every setting of it, its pool, and the ticker without which it cannot exist.
//!
//! Left out are all proposals that plugins do not need and that past advisories were about (garbage collection, exceptions,
//! function references, threads, component-model async); a component that uses one is refused when it is loaded.

use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails, WasmFeatures,
};

/// How often the engine looks at the budgets of running guests: the unit of [`crate::Limits::guest_time`].
pub const TICK: Duration = Duration::from_millis(10);

/// A guest's stack. What is left of [`FIBER_STACK`] is for host functions, where an overflow would end the process.
const GUEST_STACK: usize = 512 << 10;
const FIBER_STACK: usize = 1 << 20;

/// No memory of a guest can be larger, whatever its budget says.
const MAX_MEMORY: usize = 512 << 20;

/// Bytes of a stack and of a table that stay mapped, and are zeroed, when a call is over: page faults of the next call cost more than that.
const KEEP_RESIDENT: usize = 64 << 10;

/// The same for a memory. Of most calls it is all that they use.
const MEMORY_KEEP_RESIDENT: usize = 512 << 10;

/// An engine whose epoch moves. There is no other way to get one, so no guest can run where nothing would stop it.
#[derive(Clone)]
pub(crate) struct TickingEngine(Engine);

impl TickingEngine {
    /// Builds the engine with room for `max_running` calls at a time, and starts its ticker. The ticker ends with the engine.
    pub(crate) fn start(max_running: u32) -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(max_running))?;
        let weak = engine.weak();
        std::thread::Builder::new().name("wasm-epoch".to_owned()).spawn(move || tick(&weak))?;
        Ok(Self(engine))
    }

    pub(crate) fn get(&self) -> &Engine {
        &self.0
    }
}

impl std::fmt::Debug for TickingEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TickingEngine")
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own: on the async threads a busy guest could hold up the tick")]
fn tick(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        std::thread::sleep(TICK);
    }
}

fn config(max_running: u32) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // A recorded decision must come out the same on another processor.
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(true)
        .wasm_component_model(true)
        .concurrency_support(false)
        .gc_support(false)
        .wasm_features(unused_features(), false)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(FIBER_STACK)
        .async_stack_zeroing(true)
        .memory_reservation(4 << 30)
        .memory_may_move(false)
        // The default lets an environment variable make the host parse debug information that a guest brought.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(max_running)));
    config
}

fn unused_features() -> WasmFeatures {
    WasmFeatures::THREADS
        | WasmFeatures::SHARED_EVERYTHING_THREADS
        | WasmFeatures::STACK_SWITCHING
        | WasmFeatures::CUSTOM_PAGE_SIZES
        | WasmFeatures::GC
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::MEMORY64
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::WIDE_ARITHMETIC
}

/// A component made from Python has 38 core instances and two memories; those are the sizes behind these numbers.
fn pool(max_running: u32) -> PoolingAllocationConfig {
    let memories = max_running.saturating_mul(2);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(max_running)
        .total_stacks(max_running)
        .total_core_instances(max_running.saturating_mul(40))
        .total_memories(memories)
        .total_tables(max_running.saturating_mul(8))
        .max_core_instances_per_component(100)
        .max_memories_per_component(4)
        .max_tables_per_component(16)
        .max_memory_size(MAX_MEMORY)
        // All of them: a plugin's next call finds the memory of its last one in place, where it would have to be mapped anew.
        .max_unused_warm_slots(memories)
        // Each call gives its own memory back: in batches, a small call would now and then pay for those of large ones.
        .decommit_batch_size(1)
        .async_stack_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT);
    // Finds what a call has written to, so that only this is zeroed. Without it everything up to the limit would be, which takes longer than mapping
    // it anew does.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(MEMORY_KEEP_RESIDENT);
    }
    pool
}
