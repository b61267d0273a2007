//! One word-sized prime and everything precomputed about it.
//!
//! Three ways to multiply live side by side, because each instruction set has its own cheapest one:
//! Barrett on 128-bit products (scalar), 52-bit Montgomery and Barrett (AVX-512 IFMA), and a rounded
//! floating-point quotient (AVX2). All of them end in the canonical residue, so they agree bit for bit.

use super::KernelError;

/// Smallest accepted modulus is above this power of two.
pub const MIN_BITS: u32 = 20;
/// Largest accepted modulus is below this power of two: residues in `[0, 4q)` then fit IFMA's 52 bits.
pub const MAX_BITS: u32 = 50;

pub(crate) const MASK52: u64 = (1 << 52) - 1;

/// An odd modulus `2^20 < q < 2^50` with its reduction constants.
///
/// Nothing here needs `q` to be prime except inversion; the name says what it is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prime {
    q: u64,
    bits: u32,
    /// floor(2^(bits + 62) / q), below 2^63.
    ratio64: u64,
    /// floor(2^(bits + 51) / q), below 2^52.
    #[cfg(target_arch = "x86_64")]
    pub(crate) ratio52: u64,
    /// q^-1 mod 2^52.
    pub(crate) inverse52: u64,
}

impl Prime {
    /// Precomputes the constants of `q`; refuses an even modulus or one outside `(2^20, 2^50)`.
    pub fn new(q: u64) -> Result<Self, KernelError> {
        if q <= 1 << MIN_BITS || q >= 1 << MAX_BITS || q.is_multiple_of(2) {
            return Err(KernelError::Modulus(q));
        }
        let bits = 64 - q.leading_zeros();
        // Newton's iteration doubles the number of correct low bits: 3, 6, 12, 24, 48, 96.
        let mut inverse = q;
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(q.wrapping_mul(inverse)));
        }
        Ok(Self {
            q,
            bits,
            ratio64: ((1u128 << (bits + 62)) / u128::from(q)) as u64,
            #[cfg(target_arch = "x86_64")]
            ratio52: ((1u128 << (bits + 51)) / u128::from(q)) as u64,
            inverse52: inverse & MASK52,
        })
    }

    /// The modulus.
    pub const fn value(&self) -> u64 {
        self.q
    }

    /// floor(log2 q) + 1.
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// `x + y mod q` for canonical inputs.
    #[inline]
    pub const fn add(&self, x: u64, y: u64) -> u64 {
        reduce_once(x + y, self.q)
    }

    /// `x − y mod q` for canonical inputs.
    #[inline]
    pub const fn sub(&self, x: u64, y: u64) -> u64 {
        reduce_once(x + self.q - y, self.q)
    }

    /// `−x mod q` for a canonical input.
    #[inline]
    pub const fn negate(&self, x: u64) -> u64 {
        reduce_once(self.q - x, self.q)
    }

    /// `x · y mod q` for canonical inputs (more exactly, for any product below `4q²`).
    #[inline]
    pub const fn multiply(&self, x: u64, y: u64) -> u64 {
        self.reduce_product(x as u128 * y as u128)
    }

    /// `z mod q` for `z < 4q²`.
    #[inline]
    pub(crate) const fn reduce_product(&self, z: u128) -> u64 {
        // The shift loses less than half a unit of the quotient, the floors one more: r < 2q.
        let top = (z >> (self.bits - 2)) as u64;
        let quotient = ((top as u128 * self.ratio64 as u128) >> 64) as u64;
        let r = (z as u64).wrapping_sub(quotient.wrapping_mul(self.q));
        reduce_once(r, self.q)
    }

    /// `z mod q` for any `z`: one division by the machine's own routine, for tables and odd corners.
    #[inline]
    pub const fn reduce(&self, z: u128) -> u64 {
        (z % self.q as u128) as u64
    }

    /// `x^exponent mod q`.
    pub const fn power(&self, x: u64, mut exponent: u64) -> u64 {
        let mut base = x % self.q;
        let mut result = 1;
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = self.multiply(result, base);
            }
            base = self.multiply(base, base);
            exponent >>= 1;
        }
        result
    }

    /// `x^−1 mod q` by Fermat: right only for a prime modulus and `x ≢ 0`.
    pub const fn inverse(&self, x: u64) -> u64 {
        self.power(x, self.q - 2)
    }

    /// A primitive `2N`-th root of unity: `g^((q−1)/2N)` for the smallest quadratic non-residue `g ≥ 2`.
    pub fn root(&self, degree: usize) -> Result<u64, KernelError> {
        let order = 2 * degree as u64;
        if !degree.is_power_of_two() || !(self.q - 1).is_multiple_of(order) {
            return Err(KernelError::Degree { degree, modulus: self.q });
        }
        // The least non-residue of a prime below 2^50 is tiny; a composite modulus may have none.
        let non_residue = (2..1000)
            .find(|&g| self.power(g, (self.q - 1) / 2) == self.q - 1)
            .ok_or(KernelError::Modulus(self.q))?;
        Ok(self.power(non_residue, (self.q - 1) / order))
    }

    /// floor(w · 2^64 / q), Shoup's constant for multiplying by a fixed canonical `w`.
    pub(crate) const fn shoup(&self, w: u64) -> u64 {
        (((w as u128) << 64) / self.q as u128) as u64
    }

    /// A fixed canonical factor ready for 52-bit Montgomery: `(−w · 2^52 mod q, that · q^−1 mod 2^52)`.
    ///
    /// The sign makes `hi(y·that'·q) − hi(y·that) ≡ y·w`, the order in which multiply-accumulate needs no copies.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn montgomery(&self, w: u64) -> (u64, u64) {
        let factor = (((self.negate(w) as u128) << 52) % self.q as u128) as u64;
        (factor, factor.wrapping_mul(self.inverse52) & MASK52)
    }
}

/// `min(x, x − m)` in wrapping arithmetic: subtracts `m` once if `x ≥ m`, without a branch.
#[inline(always)]
pub(crate) const fn reduce_once(x: u64, m: u64) -> u64 {
    let y = x.wrapping_sub(m);
    if y < x { y } else { x }
}

/// The low `bits` bits of `x` in reverse order.
pub(crate) const fn bit_reverse(x: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { x.reverse_bits() >> (usize::BITS - bits) }
}
