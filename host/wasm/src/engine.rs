//! The wasmtime engine, one per process: all its settings, its instance pool, and its epoch ticker.
//!
//! All WebAssembly proposals that plugins do not need and that past security advisories concerned are disabled (garbage
//! collection, exceptions, function references, threads, component-model async). A component that uses one of them is rejected
//! when it is loaded.

use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails, WasmFeatures,
};

/// Interval at which the engine checks the time limits of running guests: the resolution of `Limits::guest_time`.
pub const TICK: Duration = Duration::from_millis(10);

/// Stack size of a guest. The rest of [`FIBER_STACK`] is reserved for host functions, whose stack overflow would end the process.
const GUEST_STACK: usize = 512 << 10;
const FIBER_STACK: usize = 1 << 20;

/// Upper bound for a linear memory, whatever its limit.
const MAX_MEMORY: usize = 512 << 20;

/// Bytes of a stack and of a table that stay mapped after a call and are zeroed. The page faults of the next call would cost
/// more.
const KEEP_RESIDENT: usize = 64 << 10;

/// The same for a linear memory. Most calls fit into this size.
const MEMORY_KEEP_RESIDENT: usize = 512 << 10;

/// An engine with a running epoch ticker. There is no other way to create an engine, so every running guest can be interrupted.
#[derive(Clone)]
pub(crate) struct TickingEngine(Engine);

impl TickingEngine {
    /// Builds the engine with a pool for `max_running` concurrent calls and starts its ticker. The ticker ends with the engine.
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

#[expect(
    clippy::disallowed_methods,
    reason = "this is a dedicated thread; on the async threads a busy guest could delay the tick"
)]
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
        // Replaying a recorded decision must give the same result on another processor.
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
        // By default an environment variable can make the host parse debug information of a guest.
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

/// Pool sizes. They are derived from a component written in Python, which has 38 core instances and two memories.
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
        // All memories stay warm: the next call of a plugin finds its memory mapped already.
        .max_unused_warm_slots(memories)
        // Each call releases its own memory. With batches, a small call would sometimes release the memory of large ones.
        .decommit_batch_size(1)
        .async_stack_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT);
    // With the pagemap scan only written pages are zeroed. Without it all bytes up to the limit are zeroed, which takes longer
    // than mapping the memory anew.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(MEMORY_KEEP_RESIDENT);
    }
    pool
}
