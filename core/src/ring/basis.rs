//! Which primes of a chain a polynomial's limbs belong to.

use super::ModulusChain;

/// A contiguous run of ordinary primes, then the first `special` special ones.
///
/// Q_l is `Basis::level(l)`, Q_l ∪ P is `Basis::level(l).with_special(k)`, a
/// key-switching digit is a run that need not start at q_0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Basis {
    start: u8,
    ordinary: u8,
    special: u8,
}

impl Basis {
    /// Ordinary primes `start .. start + ordinary`, then `special` special primes.
    pub const fn new(start: usize, ordinary: usize, special: usize) -> Self {
        Self { start: start as u8, ordinary: ordinary as u8, special: special as u8 }
    }

    /// q_0 … q_level.
    pub const fn level(level: usize) -> Self {
        Self::new(0, level + 1, 0)
    }

    /// The same ordinary primes, then `special` special ones.
    pub const fn with_special(self, special: usize) -> Self {
        Self { special: special as u8, ..self }
    }

    /// Limbs in the basis.
    pub const fn len(&self) -> usize {
        self.ordinary as usize + self.special as usize
    }

    /// Whether the basis has no limb.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index of the first ordinary prime.
    pub const fn start(&self) -> usize {
        self.start as usize
    }

    /// Ordinary primes in the basis.
    pub const fn ordinary(&self) -> usize {
        self.ordinary as usize
    }

    /// Special primes in the basis.
    pub const fn special(&self) -> usize {
        self.special as usize
    }

    /// Position in `chain` of limb `i`'s prime.
    #[inline]
    pub fn prime_index(&self, chain: &ModulusChain, i: usize) -> usize {
        if i < self.ordinary() { self.start() + i } else { chain.ordinary() + i - self.ordinary() }
    }

    /// Whether every prime exists in `chain`.
    pub fn fits(&self, chain: &ModulusChain) -> bool {
        self.start() + self.ordinary() <= chain.ordinary() && self.special() <= chain.special()
    }
}
