//! A fixed pool of limbs: a free list of slices behind a spin lock. A limb
//! goes back when it is dropped, so losing a level gives memory back at once.

use super::{Arena, OutOfMemory};
use spin::Mutex;

/// At most `CAP` limbs of `degree` words each, shared by reference.
pub struct LimbPool<'m, W, const CAP: usize> {
    state: Mutex<State<'m, W, CAP>>,
    degree: usize,
    capacity: usize,
}

struct State<'m, W, const CAP: usize> {
    free: heapless::Vec<&'m mut [W], CAP>,
    low_water: usize,
}

impl<'m, W, const CAP: usize> LimbPool<'m, W, CAP> {
    /// Words that a pool of `limbs` limbs of `degree` words takes from an arena.
    pub const fn words_needed(degree: usize, limbs: usize) -> usize {
        degree * limbs
    }

    /// Cuts `limbs` limbs out of `arena`.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small, or in limbs when `limbs`
    /// exceeds `CAP`.
    pub fn new(arena: &mut Arena<'m, W>, degree: usize, limbs: usize) -> Result<Self, OutOfMemory> {
        if limbs > CAP {
            return Err(OutOfMemory { have: CAP, need: limbs });
        }
        let need = degree.saturating_mul(limbs);
        if arena.remaining() < need {
            return Err(OutOfMemory { have: arena.remaining(), need });
        }
        let mut free = heapless::Vec::new();
        for _ in 0..limbs {
            // Cannot overflow: limbs ≤ CAP was checked above.
            let _ = free.push(arena.take(degree)?);
        }
        Ok(Self { state: Mutex::new(State { free, low_water: limbs }), degree, capacity: limbs })
    }

    /// A limb, with whatever it last held; `None` when all are out.
    pub fn take(&self) -> Option<PoolLimb<'_, 'm, W, CAP>> {
        let mut state = self.state.lock();
        let words = state.free.pop()?;
        state.low_water = state.low_water.min(state.free.len());
        Some(PoolLimb { words, pool: self })
    }

    /// Words per limb.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// Limbs in the pool, out or in.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Limbs that can be taken now.
    pub fn available(&self) -> usize {
        self.state.lock().free.len()
    }

    /// The most limbs that were ever out at once.
    pub fn peak(&self) -> usize {
        self.capacity - self.state.lock().low_water
    }
}

/// One limb on loan from a [`LimbPool`].
pub struct PoolLimb<'p, 'm, W, const CAP: usize> {
    words: &'m mut [W],
    pool: &'p LimbPool<'m, W, CAP>,
}

impl<W, const CAP: usize> PoolLimb<'_, '_, W, CAP> {
    /// The words, read-only.
    pub fn words(&self) -> &[W] {
        self.words
    }

    /// The words.
    pub fn words_mut(&mut self) -> &mut [W] {
        self.words
    }
}

impl<W, const CAP: usize> Drop for PoolLimb<'_, '_, W, CAP> {
    fn drop(&mut self) {
        // The list had room for this limb when the pool was made.
        let _ = self.pool.state.lock().free.push(core::mem::take(&mut self.words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limbs_return_on_drop_and_the_peak_is_counted() {
        let mut words = [0u64; 64];
        let pool = LimbPool::<u64, 4>::new(&mut Arena::new(&mut words), 16, 4).unwrap();
        let first = pool.take().unwrap();
        let rest: heapless::Vec<_, 4> = core::iter::from_fn(|| pool.take()).collect();
        assert_eq!((rest.len(), pool.available()), (3, 0));
        assert!(pool.take().is_none());
        drop(rest);
        drop(first);
        assert_eq!((pool.available(), pool.peak()), (4, 4));
    }

    #[test]
    fn one_word_less_is_refused_with_both_numbers() {
        let mut words = [0u64; 63];
        let error = LimbPool::<u64, 4>::new(&mut Arena::new(&mut words), 16, 4).err();
        assert_eq!(error, Some(OutOfMemory { have: 63, need: 64 }));
    }
}
