//! X → X^g on values in bit-reversed order.
//!
//! Eight consecutive values are the evaluations at `ψ^e·ω^j`, ω of order 8. Raising to the g-th power keeps them
//! together: they come from *one* aligned line of eight values, permuted in one of eight ways. So the permutation of
//! N values is a permutation of N/8 lines, with a choice of lane permutation for each.

use super::prime::bit_reverse;
use super::{KernelError, Prime};

/// The permutation of X → X^g for one ring degree.
#[derive(Clone, Debug)]
pub struct Automorphism {
    /// Source line · 8 + lane permutation, for each destination line.
    pub(crate) index: Box<[u32]>,
    pub(crate) permutations: [[u64; 8]; 8],
}

impl Automorphism {
    /// Tabulates X → X^exponent on the values of a ring of `degree`, a power of two from 2^4 to 2^17.
    pub fn new(degree: usize, exponent: usize) -> Result<Self, KernelError> {
        if !degree.is_power_of_two() || !(16..=1 << 17).contains(&degree) {
            return Err(KernelError::Length(degree));
        }
        if exponent.is_multiple_of(2) {
            return Err(KernelError::EvenExponent(exponent));
        }
        let log = degree.trailing_zeros();
        let g = exponent % (2 * degree);
        // Value i is at ψ^(2·brv(i) + 1); its source is at that exponent times g.
        let source = |i: usize| bit_reverse(((2 * bit_reverse(i, log) + 1) * g % (2 * degree)) >> 1, log);
        let index = (0..degree / 8).map(|line| {
            let first = source(8 * line);
            (first & !7 | bit_reverse(first & 7, 3)) as u32
        });
        let lane = |rotation: usize, k: usize| bit_reverse((rotation + g * bit_reverse(k, 3)) % 8, 3) as u64;
        Ok(Self {
            index: index.collect(),
            permutations: core::array::from_fn(|rotation| core::array::from_fn(|k| lane(rotation, k))),
        })
    }

    /// N.
    pub fn degree(&self) -> usize {
        8 * self.index.len()
    }
}

impl super::Kernels {
    /// `destination(X) = source(X^g)` in evaluation form.
    ///
    /// # Panics
    /// If a limb does not have the table's number of words.
    pub fn automorphism(self, map: &Automorphism, prime: &Prime, destination: &mut [u64], source: &[u64]) {
        self.apply::<false>(map, prime, destination, source);
    }

    /// `sum(X) += source(X^g)` in evaluation form.
    ///
    /// # Panics
    /// If a limb does not have the table's number of words.
    pub fn automorphism_add(self, map: &Automorphism, prime: &Prime, sum: &mut [u64], source: &[u64]) {
        self.apply::<true>(map, prime, sum, source);
    }

    fn apply<const ADD: bool>(
        self,
        map: &Automorphism,
        prime: &Prime,
        destination: &mut [u64],
        source: &[u64],
    ) {
        assert_eq!((destination.len(), source.len()), (map.degree(), map.degree()), "a limb has N words");
        let (index, permutations) = (&map.index, &map.permutations);
        match self.path() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: kernels exist only for a path the processor has.
            super::Path::Avx512 | super::Path::Avx512Madd => unsafe {
                super::avx512::vector::automorphism::<ADD>(prime, destination, source, index, permutations);
            },
            _ => super::scalar::automorphism::<ADD>(prime, destination, source, index, permutations),
        }
    }
}
