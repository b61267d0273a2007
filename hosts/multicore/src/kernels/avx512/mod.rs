//! AVX-512 IFMA: eight 64-bit lanes, 52-bit multiply-accumulate.
//!
//! `madd52lo/hi(a, x, y)` adds the low or high 52 bits of the 104-bit product of the low 52 bits of `x`, `y`
//! to the 64-bit lane `a`. A product by a fixed factor `w` is Montgomery's with both constants precomputed
//! (`w̃ = w·2^52 mod q`, `w̃' = w̃/q mod 2^52`): three multiply-accumulates and one subtraction,
//! `hi(y·w̃) − hi((y·w̃' mod 2^52)·q) ≡ y·w`, in `(−q, q)`: no low halves to subtract, hence no mask.

pub(super) mod ntt;
pub(super) mod tail;

use core::arch::x86_64::*;

/// Eight words.
pub(super) type V = __m512i;

/// Multiples of the modulus in every lane.
#[derive(Clone, Copy)]
pub(super) struct Modulus {
    pub(super) q: V,
    pub(super) q2: V,
    pub(super) q4: V,
    pub(super) q8: V,
    pub(super) zero: V,
}

impl Modulus {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn new(q: u64) -> Self {
        let splat = |k: u64| _mm512_set1_epi64((k * q) as i64);
        Self { q: splat(1), q2: splat(2), q4: splat(4), q8: splat(8), zero: _mm512_setzero_si512() }
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
pub(super) fn product(c: &Modulus, offset: V, y: V, w: [V; 2]) -> V {
    let low = _mm512_madd52lo_epu64(c.zero, y, w[1]);
    let high = _mm512_madd52hi_epu64(offset, y, w[0]);
    _mm512_sub_epi64(high, _mm512_madd52hi_epu64(c.zero, low, c.q))
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
