//! AVX-512 IFMA: eight 64-bit lanes, 52-bit multiply-accumulate.
//!
//! `madd52lo/hi(a, x, y)` adds the low or high 52 bits of the 104-bit product of the low 52 bits of `x`, `y`
//! to the 64-bit lane `a`. A product by a fixed factor `w` is Montgomery's with both constants precomputed
//! (`w̃ = −w·2^52 mod q`, `w̃' = w̃/q mod 2^52`): `y·w ≡ hi((y·w̃' mod 2^52)·q) − hi(y·w̃)`, in `(−q, q)`. The low
//! halves cancel exactly, so nothing is masked. Multiply-accumulate overwrites its accumulator, and a copy costs
//! as much dispatch as an addition; hence the order of operations below.
//!
//! A low half comes from `mullo` (VPMULLQ) or from `madd52lo` onto zero. On Zen 4 and 5 the first is one operation and
//! the second is one besides the zero; on Intel, where the zero costs no port, the first is three operations on one
//! port. So whatever takes a [`Modulus`] exists twice: for [`Path::Avx512Madd`](super::Path::Avx512Madd) if `MADD`,
//! otherwise for [`Path::Avx512`](super::Path::Avx512).

pub(super) mod convert;
pub(super) mod matrix;
pub(super) mod ntt;
pub(super) mod powers;
mod tail;
pub(super) mod transform;
pub(super) mod vector;

use core::arch::x86_64::*;

/// Eight words.
pub(super) type V = __m512i;

/// Multiples of the modulus in every lane, and by which instruction low halves are taken.
#[derive(Clone, Copy)]
pub(super) struct Modulus<const MADD: bool> {
    pub(super) q: V,
    pub(super) q2: V,
    pub(super) q4: V,
    pub(super) q8: V,
    pub(super) zero: V,
}

impl<const MADD: bool> Modulus<MADD> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn new(q: u64) -> Self {
        let splat = |k: u64| _mm512_set1_epi64((k * q) as i64);
        Self { q: splat(1), q2: splat(2), q4: splat(4), q8: splat(8), zero: _mm512_setzero_si512() }
    }

    /// `x·y mod 2^52`, of the lowest 52 bits of both; the bits above mean nothing.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn low(&self, x: V, y: V) -> V {
        if MADD { _mm512_madd52lo_epu64(_mm512_setzero_si512(), x, y) } else { _mm512_mullo_epi64(x, y) }
    }
}

/// `min(x, x − m)`: subtracts `m` from the lanes that hold at least `m`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn reduce_once(x: V, m: V) -> V {
    _mm512_min_epu64(x, _mm512_sub_epi64(x, m))
}

/// `offset + y·w` in `(offset − q, offset + q)`, for any `y < 2^52` and a Montgomery pair `w`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn product<const MADD: bool>(c: &Modulus<MADD>, offset: V, y: V, w: [V; 2]) -> V {
    let low = c.low(y, w[1]);
    let high = _mm512_madd52hi_epu64(c.zero, y, w[0]);
    _mm512_madd52hi_epu64(_mm512_sub_epi64(offset, high), low, c.q)
}

/// `(x + y·w, x − y·w)`, both in `(x − q, x + q)`, for any `y < 2^52` and a Montgomery pair `w`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn sum_and_difference<const MADD: bool>(c: &Modulus<MADD>, x: V, y: V, w: [V; 2]) -> (V, V) {
    let twice = _mm512_add_epi64(x, x);
    let low = c.low(y, w[1]);
    let high = _mm512_madd52hi_epu64(x, y, w[0]);
    let sum = _mm512_madd52hi_epu64(_mm512_sub_epi64(twice, high), low, c.q);
    (sum, _mm512_sub_epi64(twice, sum))
}

/// Harvey's butterfly: `[0, 4q)` in and out, `x` and `y` to `x + y·w` and `x − y·w`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn butterfly<const MADD: bool>(c: &Modulus<MADD>, x: V, y: V, w: [V; 2]) -> (V, V) {
    let t = product(c, c.q, y, w);
    let x = reduce_once(x, c.q2);
    (_mm512_add_epi64(x, t), _mm512_sub_epi64(_mm512_add_epi64(x, c.q2), t))
}

/// `(−q, q)` to `[0, q)`: a negative lane is huge as an unsigned number.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn lift<const MADD: bool>(c: &Modulus<MADD>, x: V) -> V {
    _mm512_min_epu64(x, _mm512_add_epi64(x, c.q))
}

/// A Montgomery pair in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn splat((factor, quotient): (u64, u64)) -> [V; 2] {
    [_mm512_set1_epi64(factor as i64), _mm512_set1_epi64(quotient as i64)]
}

/// Eight words of a line.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn get(line: &[u64; 8]) -> V {
    // SAFETY: a line is eight words.
    unsafe { load(line.as_ptr()) }
}

/// Overwrites a line.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn set(line: &mut [u64; 8], v: V) {
    // SAFETY: a line is eight words.
    unsafe { store(line.as_mut_ptr(), v) };
}

/// Eight words from memory.
///
/// # Safety
/// `x` points to eight readable words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) unsafe fn load(x: *const u64) -> V {
    // SAFETY: the caller's promise; the unaligned form asks for nothing more.
    unsafe { _mm512_loadu_si512(x.cast()) }
}

/// Eight words to memory.
///
/// # Safety
/// `x` points to eight writable words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) unsafe fn store(x: *mut u64, v: V) {
    // SAFETY: the caller's promise; the unaligned form asks for nothing more.
    unsafe { _mm512_storeu_si512(x.cast(), v) }
}

/// The Montgomery pair at `w`, in every lane.
///
/// # Safety
/// `w` points to two readable words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) unsafe fn splat_pair(w: *const u64) -> [V; 2] {
    // SAFETY: the caller's promise covers both words.
    unsafe { [_mm512_set1_epi64(*w as i64), _mm512_set1_epi64(*w.add(1) as i64)] }
}

/// The pair of vectors at `w`.
///
/// # Safety
/// `w` points to sixteen readable words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) unsafe fn load_pair(w: *const u64) -> [V; 2] {
    // SAFETY: the caller's promise covers both vectors.
    unsafe { [load(w), load(w.add(8))] }
}
