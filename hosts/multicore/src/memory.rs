//! Pooled limbs on huge pages.
//!
//! Limbs are cut from large slabs that the kernel is asked to back with huge
//! pages; a dropped limb goes back to a free list. The pool never gives memory
//! back while it lives, and never exceeds the limit it was made with.

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
    slabs: Vec<Slab>,
    made: usize,
    out: usize,
    peak: usize,
}

// SAFETY: the raw pointers, slabs among them, are owned by the pool and handed out one at a time
// under the lock; nothing is tied to a thread.
unsafe impl Send for State {}

impl Pool {
    /// At most `capacity` limbs of `degree` words.
    pub(crate) fn new(degree: usize, capacity: usize) -> Arc<Self> {
        Arc::new(Self { degree, capacity, state: Mutex::default() })
    }

    /// A limb, with whatever it last held, at first zeros; `None` at the limit or when the
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
        let slab = Slab::new(count * bytes)?;
        let start = slab.start;
        state.slabs.push(slab);
        state.made += count;
        for i in (0..count).rev() {
            // SAFETY: limb i lies inside the slab, and its offset keeps 64-byte alignment.
            state.free.push(unsafe { start.add(i * bytes) }.cast());
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

/// Zeros on a huge page's boundary, given back when dropped: every limb holds the pool alive, so all are back then.
struct Slab {
    start: NonNull<u8>,
    bytes: usize,
}

#[cfg(target_os = "linux")]
impl Slab {
    /// Pages of the kernel's, zeros already: nothing touches them before the kernel that fills a limb does, and as
    /// kernels run on all threads, so does the clearing of pages.
    fn new(bytes: usize) -> Option<Self> {
        let bytes = bytes.next_multiple_of(HUGE_PAGE);
        let (all, access) = (bytes + HUGE_PAGE, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new private mapping, wherever the kernel likes.
        let mapped = unsafe {
            libc::mmap(std::ptr::null_mut(), all, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let before = mapped.align_offset(HUGE_PAGE);
        // SAFETY: `before` is less than a huge page, and the mapping a huge page longer than the slab. What lies
        // around the slab is a part of the mapping that nobody uses. The advice changes no content; it comes before
        // the first touch, so that pages come in huge ones, 512 times fewer.
        unsafe {
            let start = mapped.byte_add(before);
            if before > 0 {
                libc::munmap(mapped, before);
            }
            libc::munmap(start.byte_add(bytes), HUGE_PAGE - before);
            libc::madvise(start, bytes, libc::MADV_HUGEPAGE);
            Some(Self { start: NonNull::new(start.cast())?, bytes })
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no limb of it is out.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(not(target_os = "linux"))]
impl Slab {
    fn layout(bytes: usize) -> Option<std::alloc::Layout> {
        std::alloc::Layout::from_size_align(bytes, HUGE_PAGE).ok()
    }

    fn new(bytes: usize) -> Option<Self> {
        // SAFETY: the layout has a non-zero size.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(Self::layout(bytes)?) })?;
        Some(Self { start, bytes })
    }
}

#[cfg(not(target_os = "linux"))]
impl Drop for Slab {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.bytes) {
            // SAFETY: allocated by `new` with this layout, and no limb of it is out.
            unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) }
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
    fn limbs_start_as_zeros_on_pages_of_their_own_slab() {
        let pool = Pool::new(1 << 16, 200);
        let limbs: Vec<Limb> = std::iter::from_fn(|| pool.take()).collect();
        assert!(limbs.len() == 200 && limbs.iter().flat_map(|limb| limb.iter()).all(|&word| word == 0));
        let slab = SLAB_BYTES / (8 << 16);
        assert!(limbs.iter().step_by(slab).all(|limb| (limb.as_ptr() as usize).is_multiple_of(HUGE_PAGE)));
    }

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
