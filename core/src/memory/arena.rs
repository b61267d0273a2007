//! A bump arena over a caller's words.

/// Memory that was needed and was not there, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OutOfMemory {
    /// Words that were left.
    pub have: usize,
    /// Words that were asked for.
    pub need: usize,
}

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "out of memory: {} words needed, {} left; hand over a larger slice", self.need, self.have)
    }
}

impl core::error::Error for OutOfMemory {}

/// Hands out disjoint pieces of one slice, front to back; nothing is given back.
pub struct Arena<'m, W> {
    free: &'m mut [W],
}

impl<'m, W> Arena<'m, W> {
    /// An arena over all of `words`.
    pub fn new(words: &'m mut [W]) -> Self {
        Self { free: words }
    }

    /// Takes the next `count` words, with whatever they hold.
    ///
    /// # Errors
    /// [`OutOfMemory`] when fewer are left; the arena is then unchanged.
    pub fn take(&mut self, count: usize) -> Result<&'m mut [W], OutOfMemory> {
        if count > self.free.len() {
            return Err(OutOfMemory { have: self.free.len(), need: count });
        }
        let (taken, rest) = core::mem::take(&mut self.free).split_at_mut(count);
        self.free = rest;
        Ok(taken)
    }

    /// Words still free.
    pub fn remaining(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_need_fits_and_one_less_does_not() {
        let mut words = [0u64; 12];
        let mut arena = Arena::new(&mut words);
        assert_eq!(arena.take(5).map(|w| w.len()), Ok(5));
        assert_eq!(arena.take(8).err(), Some(OutOfMemory { have: 7, need: 8 }));
        assert_eq!(arena.take(7).map(|w| w.len()), Ok(7));
        assert_eq!(arena.remaining(), 0);
    }
}
