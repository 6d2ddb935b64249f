//! The component's allocator: a bump pointer over memory that is there from the start, with free lists for small blocks.
//!
//! *In*: allocations of one instance, which lives for one partition. *Out*: memory, without `memory.grow` until the initial
//! memory is used up: a growth costs the host two system calls for each individual. Blocks of up to 2 KiB are rounded up to a
//! power of two and reused; of larger ones only the latest is given back or grown in place. wasm32 only, one thread.
#![allow(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;

const PAGE: usize = 1 << 16;
const ALIGN: usize = 16;
/// Smallest small block.
const SMALLEST_LOG2: u32 = 4;
/// Largest small block is 2 KiB.
const CLASSES: usize = 8;

struct Heap {
    /// First byte not handed out; 0 before the first allocation.
    next: usize,
    /// For each size of small block, the latest freed one; it holds the address of the one before.
    free: [usize; CLASSES],
}

struct Bump(UnsafeCell<Heap>);

// SAFETY: wasm32-unknown-unknown without the atomics feature has one thread.
unsafe impl Sync for Bump {}

#[global_allocator]
static HEAP: Bump = Bump(UnsafeCell::new(Heap { next: 0, free: [0; CLASSES] }));

unsafe extern "C" {
    static __heap_base: u8;
}

/// What [`leave_room`] has ready.
const ROOM: usize = 1 << 20;

/// Grows memory now, where else each `contribute` would: what `prepare` leaves is where all of them begin. Where it cannot grow, so be it.
pub(crate) fn leave_room() {
    // SAFETY: one thread, and no reference outlives the call.
    let heap = unsafe { &mut *HEAP.0.get() };
    let _ = heap.next.checked_add(ROOM).is_some_and(Heap::reach);
}

/// The size class of a small block.
fn class(layout: Layout) -> Option<usize> {
    let log2 = layout.size().max(1 << SMALLEST_LOG2).next_power_of_two().trailing_zeros();
    let class = (log2 - SMALLEST_LOG2) as usize;
    (class < CLASSES && layout.align() <= ALIGN).then_some(class)
}

impl Heap {
    fn take(&mut self, size: usize, align: usize) -> *mut u8 {
        if self.next == 0 {
            self.next = &raw const __heap_base as usize;
        }
        let at = self.next.next_multiple_of(align.max(ALIGN));
        let Some(end) = at.checked_add(size) else { return core::ptr::null_mut() };
        if !Self::reach(end) {
            return core::ptr::null_mut();
        }
        self.next = end;
        at as *mut u8
    }

    /// Whether memory up to `end` is there, growing it if need be.
    fn reach(end: usize) -> bool {
        let have = core::arch::wasm32::memory_size::<0>() * PAGE;
        end <= have || core::arch::wasm32::memory_grow::<0>((end - have).div_ceil(PAGE)) != usize::MAX
    }
}

// SAFETY: blocks are disjoint: `take` only moves up, a small block is in use or in one free list, and a large one is given back
// only when it is the last. Sizes and alignments are those of the layout or more.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and no reference outlives the call.
        let heap = unsafe { &mut *self.0.get() };
        let Some(class) = class(layout) else { return heap.take(layout.size(), layout.align()) };
        let reused = heap.free[class];
        if reused == 0 {
            return heap.take(1 << (class as u32 + SMALLEST_LOG2), ALIGN);
        }
        // SAFETY: a freed small block is at least 16 bytes, aligned, and holds the next one's address.
        heap.free[class] = unsafe { *(reused as *const usize) };
        reused as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        let heap = unsafe { &mut *self.0.get() };
        if let Some(class) = class(layout) {
            // SAFETY: the block is ours again, at least 16 bytes and aligned.
            unsafe { *block.cast::<usize>() = heap.free[class] };
            heap.free[class] = block as usize;
        } else if block as usize + layout.size() == heap.next {
            heap.next = block as usize;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `realloc`: `size` is not 0 and does not overflow with the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class(layout), class(wanted)) {
            (Some(old), Some(new)) if old == new => return block,
            (None, None) => {
                // SAFETY: as in `alloc`.
                let heap = unsafe { &mut *self.0.get() };
                let last = block as usize + layout.size() == heap.next;
                if last && (block as usize).checked_add(size).is_some_and(Heap::reach) {
                    heap.next = block as usize + size;
                    return block;
                }
                if size <= layout.size() {
                    return block;
                }
            }
            _ => {}
        }
        // SAFETY: both blocks are valid for the smaller of the two sizes, and disjoint.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                core::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}
