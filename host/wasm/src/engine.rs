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
    ///
    /// If the address space of the process is limited (`ulimit -v`), the pool may not fit. Memories are then mapped for each
    /// call: calls take longer, and the server still starts.
    ///
    /// # Errors
    /// The process has not even enough memory for that, or no thread for the ticker.
    pub(crate) fn start(max_running: u32) -> wasmtime::Result<Self> {
        let engine = Engine::new(&pooled(max_running)).or_else(|error| {
            tracing::info!(
                error = format!("{error:#}"),
                "the address space of this process is limited, so plugin calls map their memory anew and take longer; \
                 raise the limit (`ulimit -v`, `LimitAS=`) for full speed"
            );
            Engine::new(&unpooled())
        })?;
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

/// Settings that do not depend on how memories are allocated.
fn config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // Replaying a recorded decision must give the same result on another processor.
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(true)
        .wasm_component_model(true)
        // Components of several languages have adapters between parts with memories of their own.
        .wasm_multi_memory(true)
        .concurrency_support(false)
        .gc_support(false)
        .wasm_features(unused_features(), false)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(FIBER_STACK)
        .async_stack_zeroing(true)
        // By default an environment variable can make the host parse debug information of a guest.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

/// Memories, tables and stacks are reserved at the start. An address that is out of bounds hits a guard, without a check.
fn pooled(max_running: u32) -> Config {
    let mut config = config();
    config
        .memory_reservation(4 << 30)
        .memory_may_move(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(max_running)));
    config
}

/// Each call maps what it needs and no more, and every access is checked.
fn unpooled() -> Config {
    let mut config = config();
    config
        .memory_reservation(0)
        .memory_reservation_for_growth(1 << 20)
        .memory_guard_size(64 << 10)
        .memory_may_move(true)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand);
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
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::WIDE_ARITHMETIC
}

/// Most memories of one component. Those written in JavaScript (QuickJS) or Python have up to three.
const MEMORIES: u32 = 4;
/// Most tables of one component.
const TABLES: u32 = 16;
/// Most core instances of one component. Those written in Python have about forty.
const CORE_INSTANCES: u32 = 100;

/// Pool sizes. Every call gets the most that one component may have, so a call in a slot always finds its resources.
fn pool(max_running: u32) -> PoolingAllocationConfig {
    // A pool cannot be empty.
    let max_running = max_running.max(1);
    let memories = max_running.saturating_mul(MEMORIES);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(max_running)
        .total_stacks(max_running)
        .total_core_instances(max_running.saturating_mul(CORE_INSTANCES))
        .total_memories(memories)
        .total_tables(max_running.saturating_mul(TABLES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_memories_per_module(MEMORIES)
        .max_tables_per_module(TABLES)
        .max_tables_per_component(TABLES)
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
