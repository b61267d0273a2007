//! Element-wise kernels, eight words at a time. Canonical in and out; lengths are checked by the dispatcher.

use core::arch::x86_64::*;

use super::super::prime::{MASK52, Prime};
use super::{Modulus, V, get, lift, load, product, reduce_once, set, splat};

/// Barrett's reduction of 104-bit products kept as a low sum and a high sum.
struct Barrett<const MADD: bool> {
    c: Modulus<MADD>,
    /// Moves a canonical factor to the top of 52 bits.
    shift: __m128i,
    ratio: V,
    mask: V,
}

impl<const MADD: bool> Barrett<MADD> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(prime: &Prime) -> Self {
        Self {
            c: Modulus::new(prime.value()),
            shift: _mm_cvtsi64_si128(i64::from(52 - prime.bits())),
            ratio: _mm512_set1_epi64(prime.ratio52 as i64),
            mask: _mm512_set1_epi64(MASK52 as i64),
        }
    }

    /// `(x·y mod 2^52, floor(x·y / 2^(bits − 1)))`, each added to a running sum.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn accumulate(&self, (low, high): (V, V), x: V, y: V) -> (V, V) {
        let left = _mm512_sll_epi64(x, self.shift);
        let right = _mm512_add_epi64(y, y);
        (_mm512_madd52lo_epu64(low, x, y), _mm512_madd52hi_epu64(high, left, right))
    }

    /// The canonical residue of one accumulated product, or of two: the quotient is short by less than 2.5 or 4.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn reduce(&self, (low, high): (V, V)) -> V {
        let quotient = _mm512_madd52hi_epu64(self.c.zero, high, self.ratio);
        let r = _mm512_sub_epi64(low, self.c.low(quotient, self.c.q));
        reduce_once(reduce_once(_mm512_and_si512(r, self.mask), self.c.q2), self.c.q)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn multiply(&self, x: V, y: V) -> V {
        self.reduce(self.accumulate((self.c.zero, self.c.zero), x, y))
    }
}

/// Sets every line of `x` to `f` of itself.
macro_rules! each {
    ($x:ident => $f:expr) => {
        for x in $x.as_chunks_mut::<8>().0 {
            let $x = get(x);
            set(x, $f);
        }
    };
    ($x:ident, $($y:ident),+ => $f:expr) => {
        for (index, x) in $x.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let $x = get(x);
            $(let $y = get(&$y.as_chunks::<8>().0[index]);)+
            set(x, $f);
        }
    };
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn add_assign<const MADD: bool>(prime: &Prime, x: &mut [u64], y: &[u64]) {
    let c = Modulus::<MADD>::new(prime.value());
    each!(x, y => reduce_once(_mm512_add_epi64(x, y), c.q));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn sub_assign<const MADD: bool>(prime: &Prime, x: &mut [u64], y: &[u64]) {
    let c = Modulus::<MADD>::new(prime.value());
    each!(x, y => lift(&c, _mm512_sub_epi64(x, y)));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn negate_assign<const MADD: bool>(prime: &Prime, x: &mut [u64]) {
    let c = Modulus::<MADD>::new(prime.value());
    each!(x => lift(&c, _mm512_sub_epi64(c.zero, x)));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn multiply<const MADD: bool>(prime: &Prime, destination: &mut [u64], x: &[u64], y: &[u64]) {
    let barrett = Barrett::<MADD>::new(prime);
    let sources = x.as_chunks::<8>().0.iter().zip(y.as_chunks::<8>().0);
    for (destination, (x, y)) in destination.as_chunks_mut::<8>().0.iter_mut().zip(sources) {
        set(destination, barrett.multiply(get(x), get(y)));
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn multiply_assign<const MADD: bool>(prime: &Prime, x: &mut [u64], y: &[u64]) {
    let barrett = Barrett::<MADD>::new(prime);
    each!(x, y => barrett.multiply(x, y));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn multiply_add<const MADD: bool>(prime: &Prime, sum: &mut [u64], x: &[u64], y: &[u64]) {
    let barrett = Barrett::<MADD>::new(prime);
    each!(sum, x, y => reduce_once(_mm512_add_epi64(sum, barrett.multiply(x, y)), barrett.c.q));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn multiply_scalar_assign<const MADD: bool>(prime: &Prime, x: &mut [u64], s: u64) {
    let (c, w) = (Modulus::<MADD>::new(prime.value()), splat(prime.montgomery(s)));
    each!(x => lift(&c, product(&c, c.zero, x, w)));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn multiply_scalar_add<const MADD: bool>(prime: &Prime, sum: &mut [u64], x: &[u64], s: u64) {
    let (c, w) = (Modulus::<MADD>::new(prime.value()), splat(prime.montgomery(s)));
    // (−q, 2q) up to [0, 3q).
    each!(sum, x => {
        let t = product(&c, _mm512_add_epi64(sum, c.q), x, w);
        reduce_once(reduce_once(t, c.q2), c.q)
    });
}

/// One reduction for all terms, at most sixteen.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn multiply_scalars_add<const MADD: bool>(
    prime: &Prime,
    sum: &mut [u64],
    terms: &[(&[u64], u64)],
) {
    let c = Modulus::<MADD>::new(prime.value());
    let inverse = _mm512_set1_epi64(prime.inverse52 as i64);
    let mut scaled = [(core::ptr::null::<u64>(), 0); 16];
    let scaled = &mut scaled[..terms.len()];
    for (scaled, (x, s)) in scaled.iter_mut().zip(terms) {
        assert_eq!(x.len(), sum.len());
        *scaled = (x.as_ptr(), prime.reduce(u128::from(*s) << 52));
    }
    for (line, sum) in sum.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let (mut low, mut high) = (c.zero, c.zero);
        for &(x, s) in &*scaled {
            // SAFETY: every limb has as many words as the sum, and this is one of their lines.
            let (x, s) = (unsafe { load(x.add(8 * line)) }, _mm512_set1_epi64(s as i64));
            low = _mm512_madd52lo_epu64(low, x, s);
            high = _mm512_madd52hi_epu64(high, x, s);
        }
        // Sixteen products below q², divided by 2^52, and less than one q: within (−q, 5q), then [0, 6q).
        let t = _mm512_add_epi64(montgomery(&c, inverse, low, high), c.q);
        let t = reduce_once(_mm512_add_epi64(get(sum), t), c.q4);
        set(sum, reduce_once(reduce_once(t, c.q2), c.q));
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn add_scalar_assign<const MADD: bool>(prime: &Prime, x: &mut [u64], s: u64) {
    let (c, s) = (Modulus::<MADD>::new(prime.value()), _mm512_set1_epi64(s as i64));
    each!(x => reduce_once(_mm512_add_epi64(x, s), c.q));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn sub_multiply_scalar<const MADD: bool>(prime: &Prime, x: &mut [u64], y: &[u64], s: u64) {
    let (c, w) = (Modulus::<MADD>::new(prime.value()), splat(prime.montgomery(s)));
    each!(x, y => {
        let difference = _mm512_sub_epi64(_mm512_add_epi64(x, c.q), y);
        lift(&c, product(&c, c.zero, difference, w))
    });
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn tensor<const MADD: bool>(prime: &Prime, d: [&mut [u64]; 3], a: [&[u64]; 2], b: [&[u64]; 2]) {
    let barrett = Barrett::<MADD>::new(prime);
    let zero = (barrett.c.zero, barrett.c.zero);
    let [d0, d1, d2] = d.map(|limb| limb.as_chunks_mut::<8>().0);
    let [a0, a1] = a.map(|limb| limb.as_chunks::<8>().0);
    let [b0, b1] = b.map(|limb| limb.as_chunks::<8>().0);
    let factors = a0.iter().zip(a1).zip(b0.iter().zip(b1));
    for (((d0, d1), d2), ((a0, a1), (b0, b1))) in d0.iter_mut().zip(d1).zip(d2).zip(factors) {
        let (a0, a1, b0, b1) = (get(a0), get(a1), get(b0), get(b1));
        set(d0, barrett.multiply(a0, b0));
        set(d1, barrett.reduce(barrett.accumulate(barrett.accumulate(zero, a0, b1), a1, b0)));
        set(d2, barrett.multiply(a1, b1));
    }
}

/// One reduction of each of the three for eight terms.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn tensor_add<const MADD: bool>(prime: &Prime, d: [&mut [u64]; 3], terms: &[[[&[u64]; 2]; 2]]) {
    let c = Modulus::<MADD>::new(prime.value());
    let inverse = _mm512_set1_epi64(prime.inverse52 as i64);
    let radix = splat(prime.montgomery(prime.reduce(1 << 52)));
    let [d0, d1, d2] = d.map(|limb| limb.as_chunks_mut::<8>().0);
    let pointers: Vec<[*const u64; 4]> = terms
        .iter()
        .map(|&[[a0, a1], [b0, b1]]| {
            let limbs = [a0, a1, b0, b1];
            assert!(limbs.iter().all(|limb| limb.len() == 8 * d0.len()));
            limbs.map(<[u64]>::as_ptr)
        })
        .collect();
    for (line, ((d0, d1), d2)) in d0.iter_mut().zip(d1).zip(d2).enumerate() {
        let mut sums = [get(d0), get(d1), get(d2)];
        // Sixteen products to the sum in the middle: below 2^104.
        for terms in pointers.chunks(8) {
            let (mut low, mut high) = ([c.zero; 3], [c.zero; 3]);
            for term in terms {
                // SAFETY: every limb has as many words as the sums, and this is one of their lines.
                let [a0, a1, b0, b1] = term.map(|limb| unsafe { load(limb.add(8 * line)) });
                for (k, x, y) in [(0, a0, b0), (1, a0, b1), (1, a1, b0), (2, a1, b1)] {
                    low[k] = _mm512_madd52lo_epu64(low[k], x, y);
                    high[k] = _mm512_madd52hi_epu64(high[k], x, y);
                }
            }
            for (k, sum) in sums.iter_mut().enumerate() {
                let t = lift(&c, montgomery(&c, inverse, low[k], high[k]));
                // Below 2^52, so a product by 2^104 takes the Montgomery factor out.
                *sum = reduce_once(_mm512_add_epi64(*sum, lift(&c, product(&c, c.zero, t, radix))), c.q);
            }
        }
        set(d0, sums[0]);
        set(d1, sums[1]);
        set(d2, sums[2]);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn reduce_signed<const MADD: bool>(prime: &Prime, destination: &mut [u64], source: &[i64]) {
    let c = Modulus::<MADD>::new(prime.value());
    let one = splat(prime.montgomery(1));
    let top = splat(prime.montgomery(prime.reduce(1 << 52)));
    for (destination, source) in destination.as_chunks_mut::<8>().0.iter_mut().zip(source.as_chunks::<8>().0)
    {
        // SAFETY: a line of signed words is eight words.
        let x = unsafe { load(source.as_ptr().cast()) };
        let magnitude = _mm512_abs_epi64(x);
        // IFMA reads the low 52 bits by itself.
        let low = lift(&c, product(&c, c.zero, magnitude, one));
        let high = lift(&c, product(&c, c.zero, _mm512_srli_epi64::<52>(magnitude), top));
        let r = reduce_once(_mm512_add_epi64(low, high), c.q);
        let negative = _mm512_movepi64_mask(x);
        set(destination, lift(&c, _mm512_mask_sub_epi64(r, negative, c.zero, r)));
    }
}

/// Both halves of `Σ_d digit_d ⊙ key_d`, added to what is there if `ADD`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn inner_product<const ADD: bool, const MADD: bool>(
    prime: &Prime,
    sums: [&mut [u64]; 2],
    digits: &[&[u64]],
    keys: [&[&[u64]]; 2],
) {
    let c = Modulus::<MADD>::new(prime.value());
    let inverse = _mm512_set1_epi64(prime.inverse52 as i64);
    let radix = splat(prime.montgomery(prime.reduce(1 << 52)));
    let count = digits.len();
    let mut terms = [[core::ptr::null::<u64>(); 3]; 16];
    for (d, term) in terms[..count].iter_mut().enumerate() {
        let limbs = [digits[d], keys[0][d], keys[1][d]];
        assert!(limbs.iter().all(|limb| limb.len() == sums[0].len()));
        *term = limbs.map(<[u64]>::as_ptr);
    }
    let [sum0, sum1] = sums.map(|sum| sum.as_chunks_mut::<8>().0);
    for (line, (sum0, sum1)) in sum0.iter_mut().zip(sum1).enumerate() {
        let mut low = [c.zero; 2];
        let mut high = [c.zero; 2];
        for term in &terms[..count] {
            // SAFETY: every limb has as many words as the sums, and this is one of their lines.
            let [digit, key0, key1] = term.map(|limb| unsafe { load(limb.add(8 * line)) });
            low[0] = _mm512_madd52lo_epu64(low[0], digit, key0);
            high[0] = _mm512_madd52hi_epu64(high[0], digit, key0);
            low[1] = _mm512_madd52lo_epu64(low[1], digit, key1);
            high[1] = _mm512_madd52hi_epu64(high[1], digit, key1);
        }
        for (half, sum) in [sum0, sum1].into_iter().enumerate() {
            let t = montgomery(&c, inverse, low[half], high[half]);
            // Below 2^52 again, so a product by 2^104 takes the Montgomery factor out.
            let t = lift(&c, product(&c, c.zero, lift(&c, t), radix));
            let t = if ADD { reduce_once(_mm512_add_epi64(get(sum), t), c.q) } else { t };
            set(sum, t);
        }
    }
}

/// `(low + 2^52·high)·2^−52 mod q` in `(−q, 2^52)`, for a sum below 2^104.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn montgomery<const MADD: bool>(c: &Modulus<MADD>, inverse: V, low: V, high: V) -> V {
    let high = _mm512_add_epi64(high, _mm512_srli_epi64::<52>(low));
    let quotient = c.low(low, inverse);
    _mm512_sub_epi64(high, _mm512_madd52hi_epu64(c.zero, quotient, c.q))
}

/// Line `i` of the destination is line `index[i] / 8` of the source under permutation `index[i] % 8`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn automorphism<const ADD: bool>(
    prime: &Prime,
    destination: &mut [u64],
    source: &[u64],
    index: &[u32],
    permutations: &[[u64; 8]; 8],
) {
    let q = _mm512_set1_epi64(prime.value() as i64);
    let source = source.as_chunks::<8>().0;
    for (destination, &index) in destination.as_chunks_mut::<8>().0.iter_mut().zip(index) {
        let permutation = get(&permutations[index as usize % 8]);
        let line = _mm512_permutexvar_epi64(permutation, get(&source[index as usize / 8]));
        let line = if ADD { reduce_once(_mm512_add_epi64(get(destination), line), q) } else { line };
        set(destination, line);
    }
}
