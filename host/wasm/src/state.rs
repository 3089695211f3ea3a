//! The state of one call, which is dropped with its store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::clocks::{WasiClocksCtx, WasiClocksCtxView, WasiClocksView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::call_log::{CallLog, LogLine};
use crate::egress::{Egress, Outbound};
use crate::engine::{TICK, TickingEngine};
use crate::error::OverBudget;
use crate::limits::Limits;
use crate::ports::kv::KvStore;
use crate::ports::secrets::SecretSource;
use crate::ports::source::SourceFiles;
use crate::threads::Ticks;

/// Size of one table element in bytes.
const TABLE_ELEMENT: usize = 16;
/// Maximum number of elements in one table; the pool cannot hold more.
const TABLE_ELEMENTS: usize = 20_000;

/// The data that the host functions of a call use.
pub(crate) struct State {
    pub(crate) limits: Limits,
    pub(crate) memory: MemoryBudget,
    /// Remaining ticks at which the guest may be running.
    pub(crate) ticks_left: u128,
    pub(crate) ticks: Ticks,
    pub(crate) table: ResourceTable,
    pub(crate) settings: Arc<str>,
    pub(crate) log: CallLog,
    pub(crate) resources: HostResources,
    pub(crate) egress: Egress,
    http: WasiHttpCtx,
    clocks: WasiClocksCtx,
}

/// The external resources of the host functions. None is linked without a grant.
#[derive(Clone, Default)]
pub(crate) struct HostResources {
    /// Namespace and store.
    pub(crate) kv: Option<(Arc<str>, Arc<dyn KvStore>)>,
    pub(crate) secrets: Option<GrantedSecrets>,
    pub(crate) source: Option<Arc<dyn SourceFiles>>,
    pub(crate) outbound: Option<Arc<Outbound>>,
}

/// The names that may be opened, and the source of the values.
pub(crate) type GrantedSecrets = (Arc<BTreeSet<String>>, Arc<dyn SecretSource>);

/// Counts the bytes of all memories and tables of a store.
pub(crate) struct MemoryBudget {
    used: usize,
    cap: usize,
}

impl MemoryBudget {
    fn grow(&mut self, by: usize) -> wasmtime::Result<bool> {
        match self.used.checked_add(by).filter(|total| *total <= self.cap) {
            Some(total) => {
                self.used = total;
                Ok(true)
            }
            // `Ok(false)` would return -1 to the guest, which would then abort without a clear reason.
            None => Err(OverBudget::Memory.into()),
        }
    }
}

impl ResourceLimiter for MemoryBudget {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The guest exceeds its own declared maximum. This is not a violation of the limit.
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            return Err(OverBudget::Memory.into());
        }
        self.grow(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT))
    }

    fn instances(&self) -> usize {
        200
    }

    fn memories(&self) -> usize {
        16
    }

    fn tables(&self) -> usize {
        64
    }
}

impl State {
    pub(crate) fn new(limits: &Limits, settings: Arc<str>, resources: HostResources) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(64 << 10);
        Self {
            memory: MemoryBudget { used: 0, cap: limits.memory_bytes },
            ticks: Ticks::default(),
            ticks_left: limits.guest_time.as_millis() / TICK.as_millis(),
            table,
            settings,
            log: CallLog::new(limits.log_lines, limits.log_bytes),
            egress: Egress::new(resources.outbound.clone(), limits.http_requests),
            resources,
            http,
            clocks: WasiClocksCtx::default(),
            limits: limits.clone(),
        }
    }

    /// Creates a store with this state and all limits.
    pub(crate) fn into_store(self, engine: &TickingEngine) -> wasmtime::Result<Store<Self>> {
        let (hostcall_bytes, handles) = (self.limits.hostcall_bytes, self.limits.handles);
        let mut store = Store::try_new(engine.get(), self)?;
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(hostcall_bytes);
        store.set_max_component_handles(handles);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            state.ticks_left = state.ticks_left.saturating_sub(1);
            state.ticks.fetch_add(1, Ordering::Relaxed);
            // Yielding lets other calls run on the thread and lets the total timeout fire.
            Ok(if state.ticks_left == 0 { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
        });
        Ok(store)
    }
}

impl WasiClocksView for State {
    fn clocks(&mut self) -> WasiClocksCtxView<'_> {
        WasiClocksCtxView { ctx: &mut self.clocks, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.egress, table: &mut self.table, ctx: &mut self.http }
    }
}

/// The log of a call and its duration.
#[derive(Debug, Clone, Default)]
pub struct CallReport {
    /// The log of the call, sanitized.
    pub log: Vec<LogLine>,
    /// Number of dropped log lines.
    pub log_dropped: u64,
    /// Duration of the call, without the wait for a call slot.
    pub duration: Duration,
}

impl CallReport {
    pub(crate) fn of(state: &mut State, started: Instant) -> Self {
        let log = std::mem::take(&mut state.log);
        Self { log_dropped: log.dropped(), log: log.into_lines(), duration: started.elapsed() }
    }
}
