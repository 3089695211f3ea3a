//! Memory of the plugins that come with the server. Each of their calls has a memory of its own, and to grow one takes the host longer than a
//! short call takes in all: so the heap begins with what a component has from the start, and grows by large pieces. A plugin that does without
//! this crate has the allocator of Rust's library, which is all right.
//!
//! `use heap as _;` is all that is to be done.

#![cfg(target_arch = "wasm32")]

use std::alloc::Layout;
use std::arch::wasm32::memory_grow;

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

#[global_allocator]
static HEAP: TalcSyncCell<Memory, WasmBinning> = TalcSyncCell::new_wasm(Memory { is_begun: false });

/// As much as most calls need. What a call does not touch of it costs nothing.
const FIRST: usize = 256 << 10;
static mut FIRST_PIECE: [u8; FIRST] = [0; FIRST];

const PAGE: usize = 64 << 10;
/// Pages that are asked for at least.
const PIECE: usize = 8;

/// Where the heap has its memory from.
#[derive(Debug)]
struct Memory {
    is_begun: bool,
}

// SAFETY: nothing in here allocates.
unsafe impl Source for Memory {
    fn acquire<B: Binning>(heap: &mut Talc<Self, B>, wanted: Layout) -> Result<(), ()> {
        let (base, size) = if std::mem::replace(&mut heap.source.is_begun, true) {
            // One page for what the heap notes about it.
            let pages = (wanted.size() + wanted.align()).div_ceil(PAGE).saturating_add(1).max(PIECE);
            let before = memory_grow::<0>(pages);
            if before == usize::MAX {
                return Err(());
            }
            ((before * PAGE) as *mut u8, pages * PAGE)
        } else {
            ((&raw mut FIRST_PIECE).cast(), FIRST)
        };
        // SAFETY: nobody else names the first piece, and nobody else has what was grown just now.
        unsafe { heap.claim(base, size) }.map(drop).ok_or(())
    }
}
