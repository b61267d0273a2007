//! Modular arithmetic in double precision, for processors with fused multiply-add but no wide integer product.
//!
//! For integers `|x| ≤ 2q` and `|w| ≤ q/2`, `q < 2^50`: `h = x·w` rounded, `l = fma(x, w, −h)` its exact error,
//! `c = round(x·(w/q))` a quotient off by less than 3/4, and `fma(−c, q, h) + l` is `x·w − c·q` exactly, between
//! `±3q/4`: every intermediate is an integer below 2^53 or a representable multiple (after van der Hoeven, Lecerf,
//! Quintin, *Modular SIMD arithmetic in Mathemagix*, 2016, section 3). Residues are signed inside and canonical at
//! the boundary.

pub(super) mod ntt;
pub(super) mod vector;

use super::prime::Prime;

/// Four double-precision lanes. A value of the implementing type is the proof that the processor has them.
pub(super) trait Lanes: Copy {
    /// Four lanes.
    type F: Copy;

    fn splat(self, x: f64) -> Self::F;
    fn load(self, x: &[f64; 4]) -> Self::F;
    /// Lanes stored as bit patterns.
    fn get(self, x: &[u64; 4]) -> Self::F;
    fn set(self, x: &mut [u64; 4], v: Self::F);
    /// Words below 2^52 as numbers.
    fn read_words(self, x: &[u64; 4]) -> Self::F;
    /// Integral non-negative numbers below 2^52 as words.
    fn write_words(self, x: &mut [u64; 4], v: Self::F);
    fn add(self, x: Self::F, y: Self::F) -> Self::F;
    fn sub(self, x: Self::F, y: Self::F) -> Self::F;
    fn mul(self, x: Self::F, y: Self::F) -> Self::F;
    /// `x·y − z` in one rounding.
    fn mul_sub(self, x: Self::F, y: Self::F, z: Self::F) -> Self::F;
    /// `z − x·y` in one rounding.
    fn neg_mul_add(self, x: Self::F, y: Self::F, z: Self::F) -> Self::F;
    fn round(self, x: Self::F) -> Self::F;
    /// `x + m` where `x < 0`, else `x`.
    fn add_if_negative(self, x: Self::F, m: Self::F) -> Self::F;
    fn transpose(self, x: [Self::F; 4]) -> [Self::F; 4];
}

/// A modulus and its reciprocal.
#[derive(Clone, Copy)]
pub(super) struct Field<S: Lanes> {
    s: S,
    q: S::F,
    reciprocal: S::F,
}

impl<S: Lanes> Field<S> {
    #[inline(always)]
    fn new(s: S, prime: &Prime) -> Self {
        let q = prime.value() as f64;
        Self { s, q: s.splat(q), reciprocal: s.splat(1.0 / q) }
    }

    /// `x·w` within `±3q/4` for a pair `(w, w/q)` with `|w| ≤ q/2` and `|x| ≤ 2q`.
    #[inline(always)]
    fn product(self, x: S::F, (w, ratio): (S::F, S::F)) -> S::F {
        let quotient = self.s.round(self.s.mul(x, ratio));
        self.remainder(x, w, quotient)
    }

    /// `x·y` within `±q` for canonical factors.
    #[inline(always)]
    fn multiply(self, x: S::F, y: S::F) -> S::F {
        let quotient = self.s.round(self.s.mul(self.s.mul(x, y), self.reciprocal));
        self.remainder(x, y, quotient)
    }

    #[inline(always)]
    fn remainder(self, x: S::F, y: S::F, quotient: S::F) -> S::F {
        let high = self.s.mul(x, y);
        let low = self.s.mul_sub(x, y, high);
        self.s.add(self.s.neg_mul_add(quotient, self.q, high), low)
    }

    /// A few times q down to about `±q/2`.
    #[inline(always)]
    fn reduce(self, x: S::F) -> S::F {
        self.s.neg_mul_add(self.s.round(self.s.mul(x, self.reciprocal)), self.q, x)
    }

    /// `(−q, q)` to `[0, q)`.
    #[inline(always)]
    fn lift(self, x: S::F) -> S::F {
        self.s.add_if_negative(x, self.q)
    }

    /// A fixed canonical factor as a pair in every lane.
    #[inline(always)]
    fn factor(self, prime: &Prime, w: u64) -> (S::F, S::F) {
        let (w, ratio) = centred(prime, w);
        (self.s.splat(w), self.s.splat(ratio))
    }
}

/// The representative of `w` in `±q/2`, and its quotient by q.
fn centred(prime: &Prime, w: u64) -> (f64, f64) {
    let q = prime.value();
    let w = if w > q / 2 { -((q - w) as f64) } else { w as f64 };
    (w, w / q as f64)
}
