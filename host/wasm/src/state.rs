//! What belongs to one call and dies with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::clocks::{WasiClocksCtx, WasiClocksCtxView, WasiClocksView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::egress::{Egress, Outbound};
use crate::engine::{TICK, TickingEngine};
use crate::error::OverBudget;
use crate::host_functions::kv::KvStore;
use crate::host_functions::log::LogReport;
use crate::host_functions::secrets::SecretSource;
use crate::host_functions::source::SourceFiles;
use crate::limits::Limits;
use crate::threads::Ticks;

/// Bytes that one element of a table takes.
const TABLE_ELEMENT: usize = 16;
/// Elements of one table; the pool has room for no more.
const TABLE_ELEMENTS: usize = 20_000;

/// What the host functions of a call work on.
pub(crate) struct State {
    pub(crate) limits: Limits,
    pub(crate) memory: MemoryBudget,
    /// Ticks in which the guest may still be found running.
    pub(crate) ticks_left: u128,
    pub(crate) ticks: Ticks,
    pub(crate) table: ResourceTable,
    pub(crate) settings: Arc<str>,
    pub(crate) log: LogReport,
    pub(crate) capabilities: Capabilities,
    pub(crate) egress: Egress,
    http: WasiHttpCtx,
    clocks: WasiClocksCtx,
}

/// What the host functions reach out to. None of it is linked without a grant.
#[derive(Clone, Default)]
pub(crate) struct Capabilities {
    /// Namespace and store.
    pub(crate) kv: Option<(Arc<str>, Arc<dyn KvStore>)>,
    pub(crate) secrets: Option<GrantedSecrets>,
    pub(crate) source: Option<Arc<dyn SourceFiles>>,
    pub(crate) outbound: Option<Arc<Outbound>>,
}

/// Names that may be opened, and where the values come from.
pub(crate) type GrantedSecrets = (Arc<BTreeSet<String>>, Arc<dyn SecretSource>);

/// Counts what all memories and tables of a store take together.
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
            // `Ok(false)` would let the guest see -1 and abort for a reason that nobody could name.
            None => Err(OverBudget::Memory.into()),
        }
    }
}

impl ResourceLimiter for MemoryBudget {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // Beyond the guest's own declaration: its business, not our budget's.
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
    pub(crate) fn new(limits: &Limits, settings: Arc<str>, capabilities: Capabilities) -> Self {
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
            log: LogReport::new(limits.log_lines, limits.log_bytes),
            egress: Egress::new(capabilities.outbound.clone(), limits.http_requests),
            capabilities,
            http,
            clocks: WasiClocksCtx::default(),
            limits: limits.clone(),
        }
    }

    /// A store around this state, with every limit set.
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
            // Yielding lets other calls have the thread, and lets the clock of the whole call be looked at.
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

/// What a call left behind besides its answer.
#[derive(Debug, Clone, Default)]
pub struct CallReport {
    /// Its log, cleaned.
    pub log: Vec<crate::host_functions::log::LogLine>,
    /// Lines over the budget.
    pub log_dropped: u64,
    /// From the first instruction to the last, without waiting for a free place.
    pub duration: std::time::Duration,
}

impl CallReport {
    pub(crate) fn of(state: &mut State, started: Instant) -> Self {
        let log = std::mem::take(&mut state.log);
        Self { log_dropped: log.dropped(), log: log.into_lines(), duration: started.elapsed() }
    }
}
