//! Pooled limbs on huge pages.
//!
//! Limbs are cut from large slabs that the kernel is asked to back with huge
//! pages; a dropped limb goes back to a free list. The pool never gives memory
//! back while it lives, and never exceeds the limit it was made with.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

const HUGE_PAGE: usize = 2 << 20;
const SLAB_BYTES: usize = 32 << 20;

/// A pool of limbs of one degree.
pub(crate) struct Pool {
    degree: usize,
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<NonNull<u64>>,
    slabs: Vec<(NonNull<u8>, Layout)>,
    made: usize,
    out: usize,
    peak: usize,
}

// SAFETY: the raw pointers are owned by the pool and handed out one at a time
// under the lock; nothing is tied to a thread.
unsafe impl Send for State {}

impl Pool {
    /// At most `capacity` limbs of `degree` words.
    pub(crate) fn new(degree: usize, capacity: usize) -> Arc<Self> {
        Arc::new(Self { degree, capacity, state: Mutex::default() })
    }

    /// A limb, with whatever it last held; `None` at the limit or when the
    /// system has no memory.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Limb> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.free.is_empty() {
            self.grow(&mut state)?;
        }
        let words = state.free.pop()?;
        state.out += 1;
        state.peak = state.peak.max(state.out);
        Some(Limb { words, pool: Arc::clone(self) })
    }

    fn grow(&self, state: &mut State) -> Option<()> {
        let bytes = self.degree * size_of::<u64>();
        let count = (SLAB_BYTES / bytes).max(1).min(self.capacity - state.made);
        if count == 0 {
            return None;
        }
        let layout = Layout::from_size_align(count * bytes, HUGE_PAGE).ok()?;
        // SAFETY: the layout has a non-zero size.
        let slab = NonNull::new(unsafe { alloc(layout) })?;
        // The advice comes before the first touch: zeroing then faults in huge
        // pages, 512 times fewer than small ones.
        #[cfg(target_os = "linux")]
        // SAFETY: the range was just allocated; the advice does not change its content.
        unsafe {
            libc::madvise(slab.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
        }
        // SAFETY: the slab is as long as the layout says, and nobody else has it yet.
        unsafe { slab.as_ptr().write_bytes(0, layout.size()) };
        state.slabs.push((slab, layout));
        state.made += count;
        for i in (0..count).rev() {
            // SAFETY: limb i lies inside the slab, and its offset keeps 64-byte alignment.
            state.free.push(unsafe { slab.add(i * bytes) }.cast());
        }
        Some(())
    }

    /// Words per limb.
    pub(crate) fn degree(&self) -> usize {
        self.degree
    }

    /// The limit.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Limbs that can still be taken.
    pub(crate) fn available(&self) -> usize {
        self.capacity - self.state.lock().unwrap_or_else(PoisonError::into_inner).out
    }

    /// The most limbs ever out at once.
    pub(crate) fn peak(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).peak
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Every limb holds the pool alive, so all are back.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (slab, layout) in state.slabs.drain(..) {
            // SAFETY: allocated in `grow` with this layout and freed only here.
            unsafe { dealloc(slab.as_ptr(), layout) }
        }
    }
}

/// One residue polynomial, on loan from the pool of a [`crate::Multicore`].
pub struct Limb {
    words: NonNull<u64>,
    pool: Arc<Pool>,
}

// SAFETY: a limb owns its words exclusively, like a boxed slice.
unsafe impl Send for Limb {}
// SAFETY: shared access only reads.
unsafe impl Sync for Limb {}

impl std::ops::Deref for Limb {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        // SAFETY: `degree` initialised words that this limb owns.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.pool.degree) }
    }
}

impl std::ops::DerefMut for Limb {
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: as above, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_ptr(), self.pool.degree) }
    }
}

impl Drop for Limb {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.out -= 1;
        state.free.push(self.words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limbs_are_disjoint_counted_and_reused() {
        let pool = Pool::new(1 << 10, 5);
        let mut limbs: Vec<Limb> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((limbs.len(), pool.available(), pool.peak()), (5, 0, 5));
        for (i, limb) in limbs.iter_mut().enumerate() {
            limb.fill(i as u64);
        }
        assert!(limbs.iter().enumerate().all(|(i, limb)| limb.iter().all(|&w| w == i as u64)));
        drop(limbs);
        assert_eq!(pool.available(), 5);
        assert_eq!(pool.take().map(|l| l.as_ptr() as usize % 64), Some(0));
    }
}
