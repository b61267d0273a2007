//! The machine word a back-end computes in.

use super::Modulus;
use zeroize::DefaultIsZeroes;

/// A residue's storage: `u32` or `u64`.
///
/// Ranges: a modulus has at most [`Word::MAX_MODULUS_BITS`] bits, so four
/// times it still fits a word (u32) or 52 bits (u64, for IFMA).
pub trait Word: DefaultIsZeroes + Eq + Ord + core::fmt::Debug + Send + Sync + 'static {
    /// Bits of the word.
    const BITS: u32;
    /// Bits of the largest modulus.
    const MAX_MODULUS_BITS: u32;

    /// Keeps the low bits.
    fn from_u64(value: u64) -> Self;
    /// Widens.
    fn to_u64(self) -> u64;
    /// x + y modulo the word.
    fn wrapping_add(self, y: Self) -> Self;
    /// x − y modulo the word.
    fn wrapping_sub(self, y: Self) -> Self;
    /// x · y modulo the word.
    fn wrapping_mul(self, y: Self) -> Self;
    /// The upper word of x · y.
    fn multiply_high(self, y: Self) -> Self;
    /// x · y mod q for canonical x, y (Barrett).
    fn multiply_mod(self, y: Self, modulus: &Modulus) -> Self;

    /// x mod q for x < 2q, without a branch.
    #[inline(always)]
    fn reduce_once(self, q: Self) -> Self {
        self.min(self.wrapping_sub(q))
    }

    /// ⌊s · 2^BITS / q⌋, the companion that makes products by `s` cheap (Shoup).
    fn shoup(s: u64, q: u64) -> Self {
        Self::from_u64((((s as u128) << Self::BITS) / q as u128) as u64)
    }

    /// x · s mod q in [0, 2q), for any word x (Harvey 2014, §3).
    #[inline(always)]
    fn multiply_shoup_lazy(self, s: Self, shoup: Self, q: Self) -> Self {
        self.wrapping_mul(s).wrapping_sub(self.multiply_high(shoup).wrapping_mul(q))
    }
}

impl Word for u64 {
    const BITS: u32 = 64;
    const MAX_MODULUS_BITS: u32 = 50;

    #[inline(always)]
    fn from_u64(value: u64) -> Self {
        value
    }
    #[inline(always)]
    fn to_u64(self) -> u64 {
        self
    }
    #[inline(always)]
    fn wrapping_add(self, y: Self) -> Self {
        self.wrapping_add(y)
    }
    #[inline(always)]
    fn wrapping_sub(self, y: Self) -> Self {
        self.wrapping_sub(y)
    }
    #[inline(always)]
    fn wrapping_mul(self, y: Self) -> Self {
        self.wrapping_mul(y)
    }
    #[inline(always)]
    fn multiply_high(self, y: Self) -> Self {
        ((self as u128 * y as u128) >> 64) as u64
    }
    #[inline(always)]
    fn multiply_mod(self, y: Self, modulus: &Modulus) -> Self {
        modulus.reduce_wide(self as u128 * y as u128)
    }
}

impl Word for u32 {
    const BITS: u32 = 32;
    const MAX_MODULUS_BITS: u32 = 30;

    #[inline(always)]
    fn from_u64(value: u64) -> Self {
        value as u32
    }
    #[inline(always)]
    fn to_u64(self) -> u64 {
        self as u64
    }
    #[inline(always)]
    fn wrapping_add(self, y: Self) -> Self {
        self.wrapping_add(y)
    }
    #[inline(always)]
    fn wrapping_sub(self, y: Self) -> Self {
        self.wrapping_sub(y)
    }
    #[inline(always)]
    fn wrapping_mul(self, y: Self) -> Self {
        self.wrapping_mul(y)
    }
    #[inline(always)]
    fn multiply_high(self, y: Self) -> Self {
        ((self as u64 * y as u64) >> 32) as u32
    }
    #[inline(always)]
    fn multiply_mod(self, y: Self, modulus: &Modulus) -> Self {
        modulus.reduce_narrow(self as u64 * y as u64) as u32
    }
}
