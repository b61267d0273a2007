//! The negacyclic number-theoretic transform, portable and in place.
//!
//! Order: natural in, bit-reversed out (forward); the reverse (inverse).
//! out\[i\] = Σ_j x\[j\]·ψ^((2·brv(i)+1)·j). Residues are canonical at the
//! boundary and lazy in [0, 4q) inside (Harvey, "Faster arithmetic for
//! number-theoretic transforms", 2014). The inverse divides by N.

use super::{MAX_LIMBS, Modulus, ModulusChain, Word};
use crate::memory::{Arena, OutOfMemory};

/// The lowest `bits` bits of `i`, reversed.
#[inline(always)]
pub const fn bit_reverse(i: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) }
}

/// Where X → X^g takes its output `i` from, in bit-reversed evaluation order.
/// g is odd and taken modulo 2N.
#[inline(always)]
pub const fn automorphism_index(i: usize, g: usize, log_degree: u32) -> usize {
    let mask = (2usize << log_degree) - 1;
    let exponent = (2 * bit_reverse(i, log_degree) + 1).wrapping_mul(g) & mask;
    bit_reverse(exponent >> 1, log_degree)
}

/// Powers of ψ for one prime. The inverse transform reads the same table
/// backwards: ψ^{−brv(m+j)} = −ψ^{brv(2m−1−j)} for m a power of two, j < m.
pub struct NttTable<'a, W> {
    modulus: Modulus,
    // ψ^brv(i) and its Shoup companion.
    roots: &'a [W],
    companions: &'a [W],
    inverse_degree: (W, W),
}

impl<'a, W: Word> NttTable<'a, W> {
    /// Words taken from the arena for degree `degree`.
    pub const fn words_needed(degree: usize) -> usize {
        2 * degree
    }

    /// Fills a table for a prime ≡ 1 (mod 2N) of at most `W::MAX_MODULUS_BITS` bits.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small; `need` is `usize::MAX`
    /// when the prime does not fit the word or the degree.
    pub fn new(modulus: Modulus, degree: usize, arena: &mut Arena<'a, W>) -> Result<Self, OutOfMemory> {
        let misfit = OutOfMemory { have: arena.remaining(), need: usize::MAX };
        let psi = modulus.primitive_root(degree).ok_or(misfit)?;
        if modulus.bits() > W::MAX_MODULUS_BITS {
            return Err(misfit);
        }
        if arena.remaining() < Self::words_needed(degree) {
            return Err(OutOfMemory { have: arena.remaining(), need: Self::words_needed(degree) });
        }
        let (roots, companions) = (arena.take(degree)?, arena.take(degree)?);
        let log_degree = degree.trailing_zeros();
        let q = modulus.value();
        let mut power = 1;
        for i in 0..degree {
            let slot = bit_reverse(i, log_degree);
            roots[slot] = W::from_u64(power);
            companions[slot] = W::shoup(power, q);
            power = modulus.multiply(power, psi);
        }
        let n = modulus.inverse(modulus.reduce(degree as u64));
        Ok(Self { modulus, roots, companions, inverse_degree: (W::from_u64(n), W::shoup(n, q)) })
    }

    /// The prime.
    pub fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// Forward transform of `x`, N canonical residues.
    pub fn forward(&self, x: &mut [W]) {
        self.forward_to(x, 1);
    }

    /// The layers of the forward transform that leave blocks of `block` words,
    /// a power of two up to N.
    pub fn forward_to(&self, x: &mut [W], block: usize) {
        let degree = self.roots.len();
        debug_assert_eq!(x.len(), degree);
        let q: W = self.modulus.word();
        let two_q = q.wrapping_add(q);
        let mut half = degree / 2;
        let mut blocks = 1;
        while half >= block {
            for (index, pair) in x.chunks_exact_mut(2 * half).enumerate() {
                let (w, companion) = (self.roots[blocks + index], self.companions[blocks + index]);
                let (upper, lower) = pair.split_at_mut(half);
                for (u, v) in upper.iter_mut().zip(lower) {
                    let a = (*u).reduce_once(two_q);
                    let t = v.multiply_shoup_lazy(w, companion, q);
                    *u = a.wrapping_add(t);
                    *v = a.wrapping_add(two_q).wrapping_sub(t);
                }
            }
            half /= 2;
            blocks *= 2;
        }
        for value in x {
            *value = value.reduce_once(two_q).reduce_once(q);
        }
    }

    /// Inverse transform of `x`, N canonical residues, divided by N.
    pub fn inverse(&self, x: &mut [W]) {
        let degree = self.roots.len();
        debug_assert_eq!(x.len(), degree);
        let q: W = self.modulus.word();
        let two_q = q.wrapping_add(q);
        let mut half = 1;
        let mut blocks = degree / 2;
        while blocks > 0 {
            for (block, pair) in x.chunks_exact_mut(2 * half).enumerate() {
                let index = 2 * blocks - 1 - block;
                let (w, companion) = (self.roots[index], self.companions[index]);
                let (upper, lower) = pair.split_at_mut(half);
                for (u, v) in upper.iter_mut().zip(lower) {
                    let (a, b) = (*u, *v);
                    *u = a.wrapping_add(b).reduce_once(two_q);
                    *v = b.wrapping_add(two_q).wrapping_sub(a).multiply_shoup_lazy(w, companion, q);
                }
            }
            half *= 2;
            blocks /= 2;
        }
        let (n, companion) = self.inverse_degree;
        for value in x {
            *value = value.multiply_shoup_lazy(n, companion, q).reduce_once(q);
        }
    }
}

/// One table per prime of a chain.
pub struct RingTables<'a, W> {
    chain: ModulusChain,
    tables: heapless::Vec<NttTable<'a, W>, MAX_LIMBS>,
}

impl<'a, W: Word> RingTables<'a, W> {
    /// Words taken from the arena for `chain`.
    pub fn words_needed(chain: &ModulusChain) -> usize {
        chain.moduli().len() * NttTable::<W>::words_needed(chain.degree())
    }

    /// Fills the tables of every prime of `chain`.
    ///
    /// # Errors
    /// As [`NttTable::new`]; the need of all tables together is checked first.
    pub fn new(chain: &ModulusChain, arena: &mut Arena<'a, W>) -> Result<Self, OutOfMemory> {
        if arena.remaining() < Self::words_needed(chain) {
            return Err(OutOfMemory { have: arena.remaining(), need: Self::words_needed(chain) });
        }
        let mut tables = heapless::Vec::new();
        for modulus in chain.moduli() {
            // Cannot overflow: a chain has at most MAX_LIMBS primes.
            let _ = tables.push(NttTable::new(*modulus, chain.degree(), arena)?);
        }
        Ok(Self { chain: chain.clone(), tables })
    }

    /// The chain.
    pub fn chain(&self) -> &ModulusChain {
        &self.chain
    }

    /// The table of prime `index` of the chain.
    pub fn table(&self, index: usize) -> &NttTable<'a, W> {
        &self.tables[index]
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::ring::primes_below;
    use std::{vec, vec::Vec};

    fn modulus_for<W: Word>(degree: usize) -> Modulus {
        Modulus::new(primes_below(1 << W::MAX_MODULUS_BITS, 2 * degree as u64).next().unwrap()).unwrap()
    }

    fn residues(count: usize, q: u64) -> Vec<u64> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 8) % q
            })
            .collect()
    }

    fn check_against_definition<W: Word>() {
        let degree = 64;
        let m = modulus_for::<W>(degree);
        let mut words = vec![W::default(); NttTable::<W>::words_needed(degree)];
        let table = NttTable::new(m, degree, &mut Arena::new(&mut words)).unwrap();
        let psi = m.primitive_root(degree).unwrap();
        let x = residues(degree, m.value());
        let mut y: Vec<W> = x.iter().map(|&v| W::from_u64(v)).collect();
        table.forward(&mut y);
        for (i, &value) in y.iter().enumerate() {
            let point = m.power(psi, (2 * bit_reverse(i, 6) + 1) as u64);
            let expected = x.iter().rev().fold(0, |acc, &c| m.add(m.multiply(acc, point), c));
            assert_eq!(value.to_u64(), expected);
        }
        table.inverse(&mut y);
        assert!(y.iter().zip(&x).all(|(a, b)| a.to_u64() == *b));
    }

    #[test]
    fn agrees_with_the_definition_on_both_words() {
        check_against_definition::<u32>();
        check_against_definition::<u64>();
    }

    #[test]
    fn products_are_negacyclic_convolutions() {
        let degree = 1 << 10;
        let m = modulus_for::<u64>(degree);
        let mut words = vec![0; NttTable::<u64>::words_needed(degree)];
        let table = NttTable::new(m, degree, &mut Arena::new(&mut words)).unwrap();
        let (x, y) = (residues(degree, m.value()), residues(degree + 7, m.value())[7..].to_vec());
        let mut expected = vec![0; degree];
        for (i, &a) in x.iter().enumerate() {
            for (j, &b) in y.iter().enumerate() {
                let (k, p) = ((i + j) % degree, m.multiply(a, b));
                expected[k] = if i + j < degree { m.add(expected[k], p) } else { m.sub(expected[k], p) };
            }
        }
        let (mut fx, mut fy) = (x.clone(), y.clone());
        table.forward(&mut fx);
        table.forward(&mut fy);
        let mut product: Vec<u64> = fx.iter().zip(&fy).map(|(&a, &b)| a.multiply_mod(b, &m)).collect();
        table.inverse(&mut product);
        assert_eq!(product, expected);
    }

    #[test]
    fn automorphism_permutes_evaluations() {
        let (degree, log_degree) = (1usize << 10, 10);
        let m = modulus_for::<u64>(degree);
        let mut words = vec![0; NttTable::<u64>::words_needed(degree)];
        let table = NttTable::new(m, degree, &mut Arena::new(&mut words)).unwrap();
        let x = residues(degree, m.value());
        for g in [5usize, 25, 2 * degree - 1, 3] {
            let mut image = vec![0; degree];
            for (j, &c) in x.iter().enumerate() {
                let k = j * g % (2 * degree);
                image[k % degree] = if k < degree { c } else { m.negate(c) };
            }
            let mut evaluations = x.clone();
            table.forward(&mut evaluations);
            table.forward(&mut image);
            for (i, &value) in image.iter().enumerate() {
                assert_eq!(value, evaluations[automorphism_index(i, g, log_degree)]);
            }
        }
    }
}
