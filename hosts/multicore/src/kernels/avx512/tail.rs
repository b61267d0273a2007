//! The last six stages, on 64 contiguous words in eight registers.
//!
//! Three stages join whole vectors. After them vector `g` of block `i` is a polynomial modulo `X^8 − D^8`, with
//! `D = ψ^e` and `e = 2·brv(8i + g) + 1`. Instead of per-lane twiddles for three more stages (the bulk of a usual
//! table), lane `b` is multiplied by `D^b = d_i^b · ω^{brv(g)·b}`, `ω` of order 64: the first factor is one vector
//! per block, the second one of eight fixed vectors; what remains is a cyclic transform of length 8 with fixed
//! twiddles, whose first stage multiplies nothing. Eleven more products per 64 words, fifteen times less table.

use core::arch::x86_64::*;

use super::super::aligned::AlignedWords;
use super::super::prime::{Prime, bit_reverse};
use super::ntt::{Ahead, forward_stage, inverse_stages};
use super::{
    Modulus, V, butterfly, get, lift, load, load_pair, product, reduce_once, splat, splat_pair, store,
    sum_and_difference,
};

/// Words of a block.
const BLOCK: usize = 64;
/// Table words per block: seven pairs and a pad, then `d^b` in Montgomery form.
const ENTRY: usize = 24;

#[derive(Clone, Debug)]
pub(super) struct Table {
    blocks: AlignedWords,
    /// Pairs of vectors: the twist of vectors 0 … 7, then the stages of distance 2 and 1.
    forward: AlignedWords,
    /// The same for the inverse; its twist carries 1/N.
    inverse: AlignedWords,
    count: usize,
}

/// What an inverse multiplies the vectors of every block by, and the constant of Montgomery's quotients.
pub(super) struct Twists {
    vectors: [[V; 2]; 8],
    inverse52: V,
}

impl Table {
    pub(super) fn new(prime: &Prime, psi: u64, log: u32) -> Self {
        let degree = 1usize << log;
        let count = degree / BLOCK;
        let pow = |exponent: usize| prime.power(psi, (exponent % (2 * degree)) as u64);
        let mut blocks = Vec::with_capacity(count * ENTRY);
        for block in 0..count {
            for stage in 0..3 {
                let first = (count + block) << stage;
                for index in first..first + (1 << stage) {
                    let (factor, quotient) = prime.montgomery(pow(bit_reverse(index, log)));
                    blocks.extend([factor, quotient]);
                }
            }
            blocks.extend([0, 0]);
            let d = 2 * bit_reverse(block, log - 6) + 1;
            blocks.extend((0..8).map(|b| prime.montgomery(pow(d * b)).0));
        }

        let (eighth, quarter) = (degree / 4, degree / 2);
        let twist = |g: usize, b: usize| bit_reverse(g, 3) * b * (degree / 32);
        let distance_two = |lane: usize| if lane < 4 { 0 } else { quarter };
        let distance_one =
            |lane: usize| [0, quarter, 0, quarter, eighth, 3 * eighth, eighth, 3 * eighth][lane];
        let mut forward = Vec::new();
        let mut inverse = Vec::new();
        let scale = prime.inverse(degree as u64);
        for g in 0..8 {
            push_pair(prime, &mut forward, |b| pow(twist(g, b)));
            // The block table serves the mirrored block, whose d is ω_8 times the inverse of ours.
            push_pair(prime, &mut inverse, |b| {
                prime.multiply(scale, pow(twist(7 - g, b) + 2 * degree * 8 - eighth * b))
            });
        }
        push_pair(prime, &mut forward, |lane| pow(distance_two(lane)));
        push_pair(prime, &mut forward, |lane| pow(distance_one(lane)));
        push_pair(prime, &mut inverse, |lane| pow(2 * degree - distance_two(lane)));
        push_pair(prime, &mut inverse, |lane| pow(2 * degree - distance_one(lane)));
        Self {
            blocks: AlignedWords::new(&blocks),
            forward: AlignedWords::new(&forward),
            inverse: AlignedWords::new(&inverse),
            count,
        }
    }

    /// Pair `pair` of the first three stages of a block.
    pub(super) fn root(&self, block: usize, pair: usize) -> (u64, u64) {
        let at = block * ENTRY + 2 * pair;
        let table = self.blocks.lines().as_flattened();
        (table[at], table[at + 1])
    }

    /// Finishes `words`, the `block`-th of the equal blocks of the limb: `[0, 4q)` or `[0, 16q)` in, canonical out.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn forward<const LAZY: bool, const MADD: bool>(
        &self,
        c: &Modulus<MADD>,
        inverse52: V,
        words: &mut [u64],
        block: usize,
        ahead: &mut Ahead,
    ) {
        let first = block * (words.len() / BLOCK);
        let blocks = self.blocks.lines().as_flattened();
        let fixed = self.forward.lines();
        assert_eq!(fixed.len(), 20);
        let fixed = fixed.as_ptr().cast::<u64>();
        // SAFETY: the table has ten pairs of vectors.
        let (two, one) = unsafe { (load_pair(fixed.add(128)), load_pair(fixed.add(144))) };
        // Both halves of a block are long chains, longer than the processor looks ahead. So the second half of one
        // block runs between the stages of the first half of the next.
        let mut nothing = Scratch([0; BLOCK]);
        let mut previous = nothing.0.as_mut_ptr();
        for (index, words) in words.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            ahead.step();
            let entry = blocks[(first + index) * ENTRY..][..ENTRY].as_ptr();
            let base = words.as_mut_ptr();
            // SAFETY: base and previous have 64 words, entry 24, the fixed table ten pairs.
            unsafe {
                let mut v: [V; 8] = core::array::from_fn(|k| load(base.add(8 * k)));
                let w: [[V; 2]; 7] = core::array::from_fn(|k| splat_pair(entry.add(2 * k)));
                let (x, y) = cyclic_four(c, previous);
                forward_stage!(c, v, w, 8usize, LAZY, 0);
                let (x, y) = cyclic_two(c, x, y, two);
                forward_stage!(c, v, w, 8usize, LAZY, 1);
                let (x, y) = butterflies(c, x, y, one);
                forward_stage!(c, v, w, 8usize, LAZY, 2);
                let (x, y) = (canonical(c, x), canonical(c, y));
                for (g, v) in v.iter_mut().enumerate().skip(1) {
                    *v = product(c, c.q, *v, load_pair(fixed.add(16 * g)));
                }
                let d = load(entry.add(16));
                let d = [d, c.low(d, inverse52)];
                cyclic_close(previous, x, y);
                for (k, v) in v.into_iter().enumerate() {
                    store(base.add(8 * k), product(c, c.q, v, d));
                }
            }
            previous = base;
        }
        // SAFETY: as above.
        unsafe {
            let (x, y) = cyclic_four(c, previous);
            let (x, y) = cyclic_two(c, x, y, two);
            let (x, y) = butterflies(c, x, y, one);
            cyclic_close(previous, canonical(c, x), canonical(c, y));
        }
    }

    /// What the inverse multiplies by, with a canonical `factor` taken in beside 1/N.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn inverse_twists<const MADD: bool>(
        &self,
        c: &Modulus<MADD>,
        prime: &Prime,
        factor: u64,
    ) -> Twists {
        let fixed = &self.inverse.lines()[..16];
        let inverse52 = _mm512_set1_epi64(prime.inverse52 as i64);
        let w = splat(prime.montgomery(factor));
        let vectors = core::array::from_fn(|g| {
            let twist = get(&fixed[2 * g]);
            if factor == 1 {
                return [twist, get(&fixed[2 * g + 1])];
            }
            // Still in Montgomery form: only the factor's own is taken out.
            let twist = lift(c, product(c, c.zero, twist, w));
            [twist, c.low(twist, inverse52)]
        });
        Twists { vectors, inverse52 }
    }

    /// Opens `words`, the `block`-th of the equal blocks of the limb, from `values` or in place: canonical in,
    /// `[0, 2q)` out.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn inverse<const MADD: bool>(
        &self,
        c: &Modulus<MADD>,
        twists: &Twists,
        values: Option<&[u64]>,
        words: &mut [u64],
        block: usize,
        ahead: &mut Ahead,
    ) {
        assert!(values.is_none_or(|values| values.len() == words.len()));
        let first = block * (words.len() / BLOCK);
        let blocks = self.blocks.lines().as_flattened();
        let fixed = self.inverse.lines();
        assert_eq!(fixed.len(), 20);
        let fixed = fixed.as_ptr().cast::<u64>();
        // SAFETY: the table has ten pairs of vectors.
        let (two, one) = unsafe { (load_pair(fixed.add(128)), load_pair(fixed.add(144))) };
        for (k, words) in words.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let base = words.as_mut_ptr();
            let from = values.map_or(base.cast_const(), |values| values[16 * k..][..16].as_ptr());
            // SAFETY: base and from have sixteen words.
            unsafe {
                let (x, y) = cyclic_inverse(c, load(from), load(from.add(8)), two, one);
                store(base, x);
                store(base.add(8), y);
            }
        }
        for (index, words) in words.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            ahead.step();
            let entry = blocks[(self.count - 1 - first - index) * ENTRY..][..ENTRY].as_ptr();
            let base = words.as_mut_ptr();
            // SAFETY: base has 64 words, entry 24.
            let (mut v, w, d): ([V; 8], [[V; 2]; 7], V) = unsafe {
                (
                    core::array::from_fn(|k| load(base.add(8 * k))),
                    core::array::from_fn(|k| splat_pair(entry.add(2 * k))),
                    load(entry.add(16)),
                )
            };
            let d = [d, _mm512_madd52lo_epu64(c.zero, d, twists.inverse52)];
            for (v, twist) in v.iter_mut().zip(&twists.vectors) {
                *v = product(c, c.q, *v, *twist);
                *v = product(c, c.q, *v, d);
            }
            inverse_stages!(c, v, w, 8usize);
            for (k, v) in v.into_iter().enumerate() {
                // SAFETY: base has 64 words.
                unsafe { store(base.add(8 * k), v) };
            }
        }
    }
}

fn push_pair(prime: &Prime, words: &mut Vec<u64>, lane: impl Fn(usize) -> u64) {
    let pairs: [(u64, u64); 8] = core::array::from_fn(|b| prime.montgomery(lane(b)));
    words.extend(pairs.iter().map(|pair| pair.0));
    words.extend(pairs.iter().map(|pair| pair.1));
}

/// The value of an expression for k = 0, 1, 2, 3. Four independent chains advance together, so that the
/// instructions the processor holds back are few.
macro_rules! lockstep {
    ($k:ident => $value:expr) => {
        [
            {
                let $k = 0usize;
                $value
            },
            {
                let $k = 1usize;
                $value
            },
            {
                let $k = 2usize;
                $value
            },
            {
                let $k = 3usize;
                $value
            },
        ]
    };
}

/// A block for the step before the first.
#[repr(align(64))]
struct Scratch([u64; BLOCK]);

/// Distance 4 of eight cyclic transforms of length 8, one per vector, natural order in: the operands of distance 2,
/// a01 b01 a45 b45 against a23 b23 a67 b67 for vectors a and b. `[0, 2q)` in, `[0, 4q)` out.
///
/// # Safety
/// `base` points to 64 words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn cyclic_four<const MADD: bool>(c: &Modulus<MADD>, base: *const u64) -> ([V; 4], [V; 4]) {
    // SAFETY: the caller's promise.
    let a = lockstep!(k => unsafe { load(base.add(16 * k)) });
    // SAFETY: as above.
    let b = lockstep!(k => unsafe { load(base.add(16 * k + 8)) });
    let x = lockstep!(k => _mm512_shuffle_i64x2::<0x44>(a[k], b[k]));
    let y = lockstep!(k => _mm512_shuffle_i64x2::<0xEE>(a[k], b[k]));
    let sum = lockstep!(k => _mm512_add_epi64(x[k], y[k]));
    let difference = lockstep!(k => _mm512_sub_epi64(_mm512_add_epi64(x[k], c.q2), y[k]));
    (
        lockstep!(k => _mm512_shuffle_i64x2::<0x88>(sum[k], difference[k])),
        lockstep!(k => _mm512_shuffle_i64x2::<0xDD>(sum[k], difference[k])),
    )
}

/// Distance 2: the operands of distance 1, a02 b02 a46 b46 against a13 b13 a57 b57. `[0, 4q)` in and out.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn cyclic_two<const MADD: bool>(c: &Modulus<MADD>, x: [V; 4], y: [V; 4], w: [V; 2]) -> ([V; 4], [V; 4]) {
    let (p, r) = butterflies(c, x, y, w);
    (lockstep!(k => _mm512_unpacklo_epi64(p[k], r[k])), lockstep!(k => _mm512_unpackhi_epi64(p[k], r[k])))
}

/// `[0, 4q)` to `[0, q)`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn canonical<const MADD: bool>(c: &Modulus<MADD>, x: [V; 4]) -> [V; 4] {
    let x = lockstep!(k => reduce_once(x[k], c.q2));
    lockstep!(k => reduce_once(x[k], c.q))
}

/// Stores the results of distance 1 in bit-reversed order.
///
/// # Safety
/// `base` points to 64 words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn cyclic_close(base: *mut u64, even: [V; 4], odd: [V; 4]) {
    let first = _mm512_setr_epi64(0, 8, 1, 9, 4, 12, 5, 13);
    let second = _mm512_setr_epi64(2, 10, 3, 11, 6, 14, 7, 15);
    for k in 0..4 {
        // SAFETY: the caller's promise.
        unsafe {
            store(base.add(16 * k), _mm512_permutex2var_epi64(even[k], first, odd[k]));
            store(base.add(16 * k + 8), _mm512_permutex2var_epi64(even[k], second, odd[k]));
        }
    }
}

/// Four times [`butterfly`](super::butterfly).
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn butterflies<const MADD: bool>(c: &Modulus<MADD>, x: [V; 4], y: [V; 4], w: [V; 2]) -> ([V; 4], [V; 4]) {
    let low = lockstep!(k => c.low(y[k], w[1]));
    let t = lockstep!(k => _mm512_madd52hi_epu64(c.zero, y[k], w[0]));
    let t = lockstep!(k => _mm512_sub_epi64(c.q, t[k]));
    let t = lockstep!(k => _mm512_madd52hi_epu64(t[k], low[k], c.q));
    let x = lockstep!(k => reduce_once(x[k], c.q2));
    let sum = lockstep!(k => _mm512_add_epi64(x[k], t[k]));
    (sum, lockstep!(k => _mm512_sub_epi64(_mm512_add_epi64(x[k], c.q2), t[k])))
}

/// Eight times the inverse of [`cyclic`]; canonical in, `[0, 4q)` out.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn cyclic_inverse<const MADD: bool>(c: &Modulus<MADD>, a: V, b: V, two: [V; 2], one: [V; 2]) -> (V, V) {
    let even = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(0, 2, 8, 10, 4, 6, 12, 14), b);
    let odd = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(1, 3, 9, 11, 5, 7, 13, 15), b);
    let x = _mm512_add_epi64(even, odd);
    let y = product(c, c.q, _mm512_sub_epi64(_mm512_add_epi64(even, c.q), odd), one);
    let p = _mm512_unpacklo_epi64(x, y);
    let r = _mm512_unpackhi_epi64(x, y);
    let x = reduce_once(_mm512_add_epi64(p, r), c.q2);
    let y = product(c, c.q, _mm512_sub_epi64(_mm512_add_epi64(p, c.q2), r), two);
    let p = _mm512_permutex2var_epi64(x, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), y);
    let r = _mm512_permutex2var_epi64(x, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), y);
    let sum = _mm512_add_epi64(p, r);
    let difference = _mm512_sub_epi64(_mm512_add_epi64(p, c.q2), r);
    (_mm512_shuffle_i64x2::<0x44>(sum, difference), _mm512_shuffle_i64x2::<0xEE>(sum, difference))
}
