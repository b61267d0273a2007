//! The transform in plain integers: Harvey's lazy butterflies with Shoup's 64-bit constants.
//!
//! Also the reference that every other path must match bit for bit.

use super::KernelError;
use super::prime::{Prime, bit_reverse, reduce_once};

/// `roots[k] = (ψ^brv(k), Shoup's constant)`: stage `m` reads `roots[m..2m]`. The inverse reads it mirrored.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    roots: Box<[(u64, u64)]>,
    scale: (u64, u64),
}

impl Table {
    pub(crate) fn new(prime: &Prime, log: u32) -> Result<Self, KernelError> {
        let degree = 1usize << log;
        let psi = prime.root(degree)?;
        let mut roots = vec![(0, 0); degree].into_boxed_slice();
        let mut w = 1;
        for k in 0..degree {
            roots[bit_reverse(k, log)] = (w, prime.shoup(w));
            w = prime.multiply(w, psi);
        }
        let scale = prime.inverse(degree as u64);
        Ok(Self { roots, scale: (scale, prime.shoup(scale)) })
    }

    /// Natural order in, bit-reversed order out, canonical on both sides.
    pub(crate) fn forward(&self, prime: &Prime, x: &mut [u64]) {
        self.forward_to(prime, x, 1);
    }

    /// The stages that leave blocks of `block` words.
    pub(crate) fn forward_to(&self, prime: &Prime, x: &mut [u64], block: usize) {
        assert_eq!(x.len(), self.roots.len(), "a limb has N words");
        forward_to(prime, x, block, |k| self.roots[k]);
    }

    /// Bit-reversed order in, natural order out, scaled by 1/N, canonical on both sides.
    pub(crate) fn inverse(&self, prime: &Prime, x: &mut [u64]) {
        assert_eq!(x.len(), self.roots.len(), "a limb has N words");
        let q = prime.value();
        let mut groups = x.len() / 2;
        while groups > 0 {
            let half = x.len() / (2 * groups);
            let mirrored = self.roots[groups..2 * groups].iter().rev();
            for (words, &root) in x.chunks_exact_mut(2 * half).zip(mirrored) {
                let (low, high) = words.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    // [0, 2q) in and out; ψ^−k = −ψ^(N−k), hence the difference turned round.
                    let sum = *a + *b;
                    *b = multiply_lazy(q, *b + 2 * q - *a, root);
                    *a = reduce_once(sum, 2 * q);
                }
            }
            groups /= 2;
        }
        for word in x {
            *word = reduce_once(multiply_lazy(q, *word, self.scale), q);
        }
    }
}

/// The forward stages that leave blocks of `block` words, with `root(k)` for ψ^brv(k) and its constant.
pub(crate) fn forward_to(prime: &Prime, x: &mut [u64], block: usize, root: impl Fn(usize) -> (u64, u64)) {
    let q = prime.value();
    let mut groups = 1;
    while groups * block < x.len() {
        let half = x.len() / (2 * groups);
        for (group, words) in x.chunks_exact_mut(2 * half).enumerate() {
            let root = root(groups + group);
            let (low, high) = words.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                // [0, 4q) in and out.
                let u = reduce_once(*a, 2 * q);
                let t = multiply_lazy(q, *b, root);
                (*a, *b) = (u + t, u + 2 * q - t);
            }
        }
        groups *= 2;
    }
    for word in x {
        *word = reduce_once(reduce_once(*word, 2 * q), q);
    }
}

/// `y·w` in `[0, 2q)` for any `y` and Shoup pair `w`.
#[inline(always)]
pub(crate) fn multiply_lazy(q: u64, y: u64, (w, shoup): (u64, u64)) -> u64 {
    let quotient = ((u128::from(y) * u128::from(shoup)) >> 64) as u64;
    w.wrapping_mul(y).wrapping_sub(quotient.wrapping_mul(q))
}
