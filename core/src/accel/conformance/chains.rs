//! The chains the suite runs on.

use crate::ring::{ChainError, MAX_LIMBS, ModulusChain, primes_below};

/// How large and how many the primes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Sizes {
    /// The largest the word allows, five and three special ones.
    Large,
    /// 40 bits (or what the word allows), five and two.
    Middle,
    /// 30 bits, six and two.
    Small,
    /// From 22 bits to the largest, six and three.
    Mixed,
    /// As many sources as a conversion takes: seventeen and fifteen.
    Many,
    /// A single prime.
    One,
}

/// A chain of primes of at most `max_bits` bits.
///
/// # Errors
/// [`ChainError`] when there are too few such primes.
pub fn chain(log_degree: u32, sizes: Sizes, max_bits: u32) -> Result<ModulusChain, ChainError> {
    let (bits, ordinary, special): (&[u32], usize, usize) = match sizes {
        Sizes::Large => (&[50], 5, 3),
        Sizes::Middle => (&[40], 5, 2),
        Sizes::Small => (&[30], 6, 2),
        Sizes::Mixed => (&[50, 22, 40, 30, 35, 45, 50, 50, 48], 6, 3),
        Sizes::Many => (&[50, 46, 46, 46], 17, 15),
        Sizes::One => (&[50], 1, 0),
    };
    let mut primes = heapless::Vec::<u64, MAX_LIMBS>::new();
    for i in 0..ordinary + special {
        let bound = 1 << bits[i % bits.len()].min(max_bits);
        let prime = primes_below(bound, 2 << log_degree).find(|q| !primes.contains(q));
        // Never full: 32 primes at most. Too few primes leave the chain too short.
        let _ = prime.map(|q| primes.push(q));
    }
    let (q, p) = primes.split_at(ordinary.min(primes.len()));
    ModulusChain::new(log_degree, q, p)
}
