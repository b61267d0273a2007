//! Checking a transform that somebody else computed.
//!
//! For a secret uniform vector u there is one vector v with ⟨u, NTT(x)⟩ = ⟨v, x⟩ for every x, namely v = NTTᵀ(u).
//! Comparing the two sums costs two inner products and misses a wrong limb with probability 1/q: a wrong y
//! passes only if ⟨u, y − NTT(x)⟩ = 0 (Freivalds 1977, with a random vector for the random matrix). Because NTT
//! is a bijection v is uniform too, and the same pair checks the inverse transform. Small primes take several
//! pairs, so that a limb is missed with probability below 2^−44.
//!
//! NTTᵀ needs no code of its own. The inverse is w_j = N⁻¹·Σ_i u_i·ψ^(−(2·brv(i)+1)·j), and
//! ψ^(−(2b+1)·(N−j)) = −ψ^((2b+1)·j), so v_0 = N·w_0 and v_j = −N·w_(N−j).
//!
//! The pairs are secret from the engine: one that knew u could choose errors that pass.

use chacha20::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
use zeroize::Zeroize;

use super::{Accelerator, Error, polynomial::allocate_limbs};
use crate::memory::{Arena, OutOfMemory};
use crate::ring::{Basis, Modulus, Word};

/// Most pairs for one prime.
const MAX_PAIRS: usize = 3;

/// A form a limb can be in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Coefficients,
    Evaluations,
}

/// What the functionals of a prime make of a limb: equal for a limb and its transform.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Image([u64; MAX_PAIRS]);

/// The secret pairs (u, v) for one prime.
pub(super) struct Check<'m> {
    modulus: Modulus,
    degree: usize,
    /// u, v of the first pair, then of the next.
    words: &'m mut [u64],
}

/// Pairs needed for primes of this size: a pair misses with probability 1/q < 2^−(bits−1).
const fn pairs(bits: u32) -> usize {
    let need = 44_u32.div_ceil(bits - 1) as usize;
    if need < MAX_PAIRS { need } else { MAX_PAIRS }
}

impl<'m> Check<'m> {
    /// Words taken from the arena.
    pub(super) const fn words_needed(modulus: &Modulus, degree: usize) -> usize {
        2 * degree * pairs(modulus.bits())
    }

    /// Draws the pairs for prime number `prime` of the accelerator's chain. `scratch` has N words.
    pub(super) fn new<A: Accelerator>(
        accelerator: &A,
        prime: usize,
        seed: &[u8; 32],
        arena: &mut Arena<'m, u64>,
        scratch: &mut [A::Word],
    ) -> Result<Self, CheckError> {
        let chain = accelerator.chain();
        let (degree, modulus) = (chain.degree(), chain.moduli()[prime]);
        let words = arena.take(Self::words_needed(&modulus, degree)).map_err(CheckError::Memory)?;
        // A basis names special primes from the first one on; a limb of a later one needs them all.
        let basis = match prime.checked_sub(chain.ordinary()) {
            None => Basis::new(prime, 1, 0),
            Some(special) => Basis::new(0, 0, special + 1),
        };
        let mut limbs = allocate_limbs(accelerator, basis.len())?;
        let n = modulus.reduce(degree as u64);
        for (index, pair) in words.chunks_exact_mut(2 * degree).enumerate() {
            let (u, v) = pair.split_at_mut(degree);
            let mut rng = ChaCha20Rng::from_seed(*seed);
            rng.set_stream((prime as u64) << 8 | index as u64);
            for (word, scratch) in u.iter_mut().zip(scratch.iter_mut()) {
                *word = uniform(&mut rng, &modulus);
                *scratch = A::Word::from_u64(*word);
            }
            accelerator.clear(&mut limbs)?;
            if let Some(last) = limbs.last_mut() {
                accelerator.write(last, scratch)?;
            }
            accelerator.ntt_inverse(basis, &mut limbs)?;
            if let Some(last) = limbs.last() {
                accelerator.read(last, scratch)?;
            }
            for (j, word) in v.iter_mut().enumerate() {
                let scaled = modulus.multiply(n, scratch[(degree - j) % degree].to_u64());
                *word = if j == 0 { scaled } else { modulus.sub(0, scaled) };
            }
        }
        accelerator.clear(&mut limbs)?;
        scratch.zeroize();
        Ok(Self { modulus, degree, words })
    }

    /// The image of N words in the given form.
    pub(super) fn image(&self, side: Side, words: &[u64]) -> Image {
        let q = u128::from(self.modulus.value());
        let mut image = Image::default();
        for (to, pair) in image.0.iter_mut().zip(self.words.chunks_exact(2 * self.degree)) {
            let (u, v) = pair.split_at(self.degree);
            let functional = if side == Side::Evaluations { u } else { v };
            *to = (inner_product(functional, words) % q) as u64;
        }
        image
    }

    /// Whether `words` is canonical and has the image of the limb it came from.
    pub(super) fn accepts(&self, expected: &Image, side: Side, words: &[u64]) -> bool {
        let q = self.modulus.value();
        words.iter().fold(true, |all, &word| all & (word < q)) && self.image(side, words) == *expected
    }
}

impl Drop for Check<'_> {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}

/// Products below 2^100, at most 2^17 of them: the sum fits without reduction.
fn inner_product(a: &[u64], b: &[u64]) -> u128 {
    a.iter().zip(b).fold(0, |sum, (&a, &b)| sum + u128::from(a) * u128::from(b))
}

fn uniform(rng: &mut ChaCha20Rng, modulus: &Modulus) -> u64 {
    loop {
        let draw = rng.next_u64() >> (64 - modulus.bits());
        if draw < modulus.value() {
            return draw;
        }
    }
}

/// Why no pairs could be drawn.
pub(super) enum CheckError {
    Memory(OutOfMemory),
    Accelerator(Error),
}

impl From<Error> for CheckError {
    fn from(error: Error) -> Self {
        Self::Accelerator(error)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::accel::Portable;
    use crate::memory::LimbPool;
    use crate::ring::{ModulusChain, RingTables};
    use std::{vec, vec::Vec};

    const N: usize = 1 << 10;
    /// Sizes that take one, two and three pairs; the smallest has 14 bits, so misses can be counted.
    const PRIMES: [u64; 4] = [12_289, 1_099_511_592_961, 1_073_707_009, 1_125_899_906_826_241];

    fn with_checks(test: impl FnOnce(&Portable<'_, '_, u64, 8>, &[Check<'_>])) {
        let chain = ModulusChain::new(10, &PRIMES[..2], &PRIMES[2..]).unwrap();
        let mut table_words = vec![0; RingTables::<u64>::words_needed(&chain)];
        let tables = RingTables::new(&chain, &mut Arena::new(&mut table_words)).unwrap();
        let mut pool_words = vec![0; 8 * N];
        let pool = LimbPool::new(&mut Arena::new(&mut pool_words), N, 8).unwrap();
        let portable = Portable::new(&tables, &pool).unwrap();
        let mut words = vec![0; 2 * N * (3 + 2 + 2 + 1)];
        let mut arena = Arena::new(&mut words);
        let checks: Vec<Check<'_>> = (0..PRIMES.len())
            .map(|i| Check::new(&portable, i, &[9; 32], &mut arena, &mut vec![0; N]).ok().unwrap())
            .collect();
        assert_eq!(arena.remaining(), 0);
        test(&portable, &checks);
    }

    fn residues(q: u64, seed: u64) -> Vec<u64> {
        (1..=N as u64).map(|i| (i + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) % q).collect()
    }

    #[test]
    fn both_forms_of_a_limb_have_one_image() {
        with_checks(|portable, checks| {
            let mut limbs = allocate_limbs(portable, 4).unwrap();
            let coefficients: Vec<_> = PRIMES.iter().map(|&q| residues(q, q)).collect();
            for (limb, x) in limbs.iter_mut().zip(&coefficients) {
                portable.write(limb, x).unwrap();
            }
            portable.ntt_forward(Basis::new(0, 2, 2), &mut limbs).unwrap();
            for ((check, x), limb) in checks.iter().zip(&coefficients).zip(&limbs) {
                let image = check.image(Side::Coefficients, x);
                assert!(image != Image::default());
                assert!(check.accepts(&image, Side::Evaluations, limb.words()));
                let image = check.image(Side::Evaluations, limb.words());
                assert!(check.accepts(&image, Side::Coefficients, x));
            }
        });
    }

    #[test]
    fn one_wrong_or_uncanonical_word_is_seen() {
        with_checks(|_, checks| {
            for (check, q) in checks.iter().zip(PRIMES) {
                let x = residues(q, 1);
                let image = check.image(Side::Evaluations, &x);
                for at in 0..N {
                    let mut y = x.clone();
                    y[at] = (y[at] + 1) % q;
                    assert!(!check.accepts(&image, Side::Evaluations, &y));
                    y[at] = x[at] + q;
                    assert!(!check.accepts(&image, Side::Evaluations, &y));
                }
            }
        });
    }

    /// A single pair misses one wrong limb in q; three pairs miss none that a test could ever show.
    #[test]
    fn the_miss_rate_is_one_in_q() {
        with_checks(|_, checks| {
            let (check, q) = (&checks[0], PRIMES[0]);
            let zero = Image::default();
            let (mut single, mut all) = (0, 0);
            let mut error = vec![0; N];
            for trial in 0..60_000_u64 {
                error[0] = 1 + trial % (q - 1);
                error[1 + (trial % 1000) as usize] = trial.wrapping_mul(0x9E37_79B9_7F4A_7C15) % q;
                let image = check.image(Side::Evaluations, &error);
                error[1 + (trial % 1000) as usize] = 0;
                single += u32::from(image.0[0] == zero.0[0]);
                all += u32::from(image == zero);
            }
            assert!((1..=15).contains(&single), "{single} missed, 4.9 expected");
            assert_eq!(all, 0);
        });
    }

    #[test]
    fn seeds_and_primes_give_different_pairs() {
        with_checks(|portable, checks| {
            let mut words = vec![0; 6 * N];
            let mut arena = Arena::new(&mut words);
            let other = Check::new(portable, 0, &[8; 32], &mut arena, &mut vec![0; N]).ok().unwrap();
            assert_ne!(other.words, checks[0].words);
            assert_ne!(checks[0].words[..N], checks[0].words[2 * N..3 * N]);
            drop(other);
            assert!(words.iter().all(|&w| w == 0), "pairs are wiped");
        });
    }
}
