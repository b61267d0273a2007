//! One limb of a baby-step giant-step transform in a single pass, tile by tile.
//!
//! An aligned run of 2^k values in bit-reversed order is the image of one aligned run under X → X^g. So a tile of
//! every rotated input is computed from one tile of the digits and of the keys, stays in the cache while all sums
//! take their products from it, and is gone: memory sees keys, factors and sums once.

use super::path::avx512_or;
use super::{Automorphism, Kernels, MAX_DIGITS, Prime, scalar};

/// Most words of a tile.
pub const MAX_TILE: usize = 512;
/// Most steps: their products stay below 2^64 in each lane.
pub const MAX_STEPS: usize = 256;

/// One baby step modulo one prime.
pub enum TransformStep<'a> {
    /// P·x, for both halves of the input and P mod q.
    Identity([&'a [u64]; 2], u64),
    /// A key switch, then an automorphism.
    Switch {
        /// X → X^g.
        map: &'a Automorphism,
        /// Both halves of the key, a limb for each digit.
        key: [Vec<&'a [u64]>; 2],
    },
}

/// What one limb of a transform is made of: limbs of N words, canonical and in evaluation form.
pub struct Transform<'a> {
    /// The prime.
    pub prime: &'a Prime,
    /// What a switch adds to its first half before the automorphism: the input's first half, times P mod q;
    /// `None` where P vanishes.
    pub x: Option<(&'a [u64], u64)>,
    /// The raised digits, at most [`MAX_DIGITS`] of them.
    pub digits: Vec<&'a [u64]>,
    /// From one to [`MAX_STEPS`].
    pub steps: Vec<TransformStep<'a>>,
    /// How often each word of a factor repeats, a power of two.
    pub repeat: usize,
    /// For each sum and each step a factor of N/repeat words.
    pub factors: Vec<&'a [u64]>,
}

impl Transform<'_> {
    /// Panics unless every pointer that a tile is read through stays inside its limb.
    fn check(&self, degree: usize, sums: usize) {
        let (digits, steps) = (self.digits.len(), self.steps.len());
        assert!(digits <= MAX_DIGITS && (1..=MAX_STEPS).contains(&steps), "{digits} digits, {steps} steps");
        let mut limbs: Vec<&[u64]> = self.digits.clone();
        limbs.extend(self.x.map(|(x, _)| x));
        for step in &self.steps {
            match step {
                TransformStep::Identity(x, _) => limbs.extend(x),
                TransformStep::Switch { map, key } => {
                    assert!(map.degree() == degree && key.iter().all(|half| half.len() == digits));
                    limbs.extend(key.iter().flatten());
                }
            }
        }
        assert!(limbs.iter().all(|limb| limb.len() == degree), "limbs of {degree} words");
        assert!(self.repeat.is_power_of_two() && self.factors.len() == sums * steps);
        assert!(self.factors.iter().all(|factor| factor.len() == degree / self.repeat));
    }
}

impl Kernels {
    /// `sums[g][h] = Σ_b factor_{g·B+b} ⊙ r_b[h]` on the columns from `start` on, with `r_b[h]` the image of step b.
    ///
    /// `tiles` are two for each step, all of one length: a power of two of at least eight words.
    ///
    /// # Panics
    /// If a length or a number of limbs is not as [`Transform`] says, or the columns are no whole number of tiles.
    pub fn transform(
        self,
        transform: &Transform<'_>,
        degree: usize,
        start: usize,
        tiles: &mut [[&mut [u64]; 2]],
        sums: &mut [[&mut [u64]; 2]],
    ) {
        transform.check(degree, sums.len());
        assert_eq!(tiles.len(), transform.steps.len(), "two tiles for each step");
        let tile = tiles[0][0].len();
        let columns = sums.first().map_or(0, |sum| sum[0].len());
        assert!(tile.is_power_of_two() && tile >= 8 && tiles.iter().flatten().all(|t| t.len() == tile));
        assert!(sums.iter().flatten().all(|sum| sum.len() == columns), "sums of one length");
        assert!(start.is_multiple_of(tile) && columns.is_multiple_of(tile) && start + columns <= degree);
        for from in (0..columns).step_by(tile) {
            let mut out: Vec<[&mut [u64]; 2]> =
                sums.iter_mut().map(|pair| pair.each_mut().map(|sum| &mut sum[from..from + tile])).collect();
            avx512_or!(
                self,
                transform::tile(transform, start + from, tiles, &mut out),
                self.tile(transform, start + from, tiles, &mut out)
            );
        }
    }

    /// The columns of one tile, from `at` on, by kernels that work on whole limbs elsewhere.
    fn tile<'a>(
        self,
        transform: &Transform<'a>,
        at: usize,
        tiles: &mut [[&mut [u64]; 2]],
        sums: &mut [[&mut [u64]; 2]],
    ) {
        let (prime, length) = (transform.prime, tiles[0][0].len());
        let mut scratch = [vec![0; length], vec![0; length]];
        for (step, tiles) in transform.steps.iter().zip(tiles.iter_mut()) {
            match step {
                TransformStep::Identity(x, product) => {
                    for (tile, x) in tiles.iter_mut().zip(x) {
                        tile.copy_from_slice(&x[at..at + length]);
                        self.multiply_scalar_assign(prime, tile, *product);
                    }
                }
                TransformStep::Switch { map, key } => {
                    let index = &map.index[at / 8..(at + length) / 8];
                    let from = index[0] as usize & !(length - 1);
                    let run = |limbs: &[&'a [u64]]| -> Vec<&'a [u64]> {
                        limbs.iter().map(|limb| &limb[from..from + length]).collect()
                    };
                    let [first, second] = &mut scratch;
                    let keys = [run(&key[0]), run(&key[1])];
                    let digits = run(&transform.digits);
                    self.inner_product(prime, [first, second], &digits, [&keys[0], &keys[1]]);
                    if let Some((x, product)) = transform.x {
                        self.multiply_scalar_add(prime, first, &x[from..from + length], product);
                    }
                    let index: Vec<u32> = index.iter().map(|i| i - from as u32).collect();
                    for (tile, source) in tiles.iter_mut().zip(&scratch) {
                        scalar::automorphism::<false>(prime, tile, source, &index, &map.permutations);
                    }
                }
            }
        }
        let mut expanded: Vec<Vec<u64>> = vec![vec![0; length]; transform.steps.len()];
        for (sums, factors) in sums.iter_mut().zip(transform.factors.chunks(transform.steps.len())) {
            for (expanded, factor) in expanded.iter_mut().zip(factors) {
                for (i, word) in expanded.iter_mut().enumerate() {
                    *word = factor[(at + i) / transform.repeat];
                }
            }
            sums.iter_mut().for_each(|sum| sum.fill(0));
            for (factors, tiles) in expanded.chunks(MAX_DIGITS).zip(tiles.chunks(MAX_DIGITS)) {
                let factors: Vec<&[u64]> = factors.iter().map(Vec::as_slice).collect();
                let halves = [0, 1].map(|h| tiles.iter().map(|tile| &*tile[h]).collect::<Vec<&[u64]>>());
                let [first, second] = sums;
                self.inner_product_add(prime, [first, second], &factors, [&halves[0], &halves[1]]);
            }
        }
    }
}
