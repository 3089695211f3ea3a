//! The memory allocator of the bundled plugins.
//!
//! Every call gets a fresh memory, and growing a memory takes the host longer than a whole short call. This allocator therefore
//! starts with a static block that the component has from the beginning, and grows in large blocks. A plugin without this crate
//! uses the allocator of Rust's standard library, which is correct too, only slower.
//!
//! To use it, add the dependency and `use plugin_allocator as _;`.

#![cfg(target_arch = "wasm32")]

use std::alloc::Layout;
use std::arch::wasm32::memory_grow;

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

#[global_allocator]
static ALLOCATOR: TalcSyncCell<Memory, WasmBinning> = TalcSyncCell::new_wasm(Memory { uses_first_block: false });

/// Bytes of the static first block: enough for most calls. Pages that a call does not touch cost nothing.
const FIRST_BLOCK_LEN: usize = 256 << 10;
static mut FIRST_BLOCK: [u8; FIRST_BLOCK_LEN] = [0; FIRST_BLOCK_LEN];

/// Bytes of a WebAssembly page.
const PAGE: usize = 64 << 10;
/// Pages by which the memory grows at least.
const MIN_GROWTH: usize = 8;

/// The source of the allocator's memory: first the static block, then `memory.grow`.
#[derive(Debug)]
struct Memory {
    uses_first_block: bool,
}

// SAFETY: nothing in here allocates.
unsafe impl Source for Memory {
    fn acquire<B: Binning>(heap: &mut Talc<Self, B>, wanted: Layout) -> Result<(), ()> {
        let (base, size) = if std::mem::replace(&mut heap.source.uses_first_block, true) {
            // One extra page holds the allocator's own bookkeeping.
            let pages = (wanted.size() + wanted.align()).div_ceil(PAGE).saturating_add(1).max(MIN_GROWTH);
            let before = memory_grow::<0>(pages);
            if before == usize::MAX {
                return Err(());
            }
            ((before * PAGE) as *mut u8, pages * PAGE)
        } else {
            ((&raw mut FIRST_BLOCK).cast(), FIRST_BLOCK_LEN)
        };
        // SAFETY: only this function names the first block, and the pages grown above have no other owner.
        unsafe { heap.claim(base, size) }.map(drop).ok_or(())
    }
}
