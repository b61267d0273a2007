//! One prime modulus and arithmetic on canonical residues.

use super::Word;

/// A prime q with its Barrett constant, 2 ≤ bits(q) ≤ 50.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Modulus {
    q: u64,
    bits: u32,
    // ⌊2^(2·bits) / q⌋ ≤ 2^(bits+1)
    ratio: u64,
}

impl Modulus {
    /// `None` unless 3 ≤ q < 2^50 and q is odd. Primality is the caller's to check.
    pub const fn new(q: u64) -> Option<Self> {
        if q < 3 || q.is_multiple_of(2) || q >> 50 != 0 {
            return None;
        }
        let bits = 64 - q.leading_zeros();
        Some(Self { q, bits, ratio: ((1u128 << (2 * bits)) / q as u128) as u64 })
    }

    /// The value q.
    #[inline(always)]
    pub const fn value(&self) -> u64 {
        self.q
    }

    /// ⌊log2 q⌋ + 1.
    #[inline(always)]
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// x mod q for x < q² (Barrett; Handbook of Applied Cryptography, 14.42:
    /// the quotient is at most two short).
    #[inline(always)]
    pub const fn reduce_wide(&self, x: u128) -> u64 {
        let estimate = ((x >> (self.bits - 1)) as u64 as u128 * self.ratio as u128) >> (self.bits + 1);
        let r = (x as u64).wrapping_sub((estimate as u64).wrapping_mul(self.q));
        let r = r.wrapping_sub(self.q & ((r >= self.q) as u64).wrapping_neg());
        r.wrapping_sub(self.q & ((r >= self.q) as u64).wrapping_neg())
    }

    /// x mod q for x < q², q < 2^30: the same in one word.
    #[inline(always)]
    pub const fn reduce_narrow(&self, x: u64) -> u64 {
        let estimate = ((x >> (self.bits - 1)) * self.ratio) >> (self.bits + 1);
        let r = x.wrapping_sub(estimate.wrapping_mul(self.q));
        let r = r.wrapping_sub(self.q & ((r >= self.q) as u64).wrapping_neg());
        r.wrapping_sub(self.q & ((r >= self.q) as u64).wrapping_neg())
    }

    /// x mod q for any word.
    #[inline(always)]
    pub const fn reduce(&self, x: u64) -> u64 {
        x % self.q
    }

    /// x mod q in [0, q) for a signed x.
    #[inline(always)]
    pub const fn reduce_signed(&self, x: i64) -> u64 {
        let r = x.unsigned_abs() % self.q;
        let negative = ((x < 0) as u64) & ((r != 0) as u64);
        let mask = negative.wrapping_neg();
        (r & !mask) | ((self.q - r) & mask)
    }

    /// x + y for canonical x, y.
    #[inline(always)]
    pub const fn add(&self, x: u64, y: u64) -> u64 {
        let s = x + y;
        s - (self.q & ((s >= self.q) as u64).wrapping_neg())
    }

    /// x − y for canonical x, y.
    #[inline(always)]
    pub const fn sub(&self, x: u64, y: u64) -> u64 {
        let d = x.wrapping_sub(y);
        d.wrapping_add(self.q & ((x < y) as u64).wrapping_neg())
    }

    /// −x for canonical x.
    #[inline(always)]
    pub const fn negate(&self, x: u64) -> u64 {
        self.sub(0, x)
    }

    /// x · y for canonical x, y.
    #[inline(always)]
    pub const fn multiply(&self, x: u64, y: u64) -> u64 {
        self.reduce_wide(x as u128 * y as u128)
    }

    /// x^e for canonical x. Time depends on e, which is public.
    pub const fn power(&self, x: u64, mut e: u64) -> u64 {
        let (mut base, mut result) = (x, 1);
        while e != 0 {
            if e & 1 == 1 {
                result = self.multiply(result, base);
            }
            base = self.multiply(base, base);
            e >>= 1;
        }
        result
    }

    /// x^{−1} for x ≠ 0 (Fermat; q is prime).
    pub const fn inverse(&self, x: u64) -> u64 {
        self.power(x, self.q - 2)
    }

    /// ψ, a primitive 2N-th root of unity: g^((q−1)/2N) for the smallest
    /// non-residue g. `None` unless 2N divides q − 1 and q is prime.
    pub const fn primitive_root(&self, degree: usize) -> Option<u64> {
        let order = 2 * degree as u64;
        if !order.is_power_of_two() || !(self.q - 1).is_multiple_of(order) {
            return None;
        }
        // A prime below 2^50 has a non-residue below 2·ln²q (Bach 1990, under
        // ERH): far below this bound, which keeps a composite from looping.
        let mut g = 2;
        while self.power(g, (self.q - 1) / 2) != self.q - 1 {
            g += 1;
            if g == 1 << 12 {
                return None;
            }
        }
        Some(self.power(g, (self.q - 1) / order))
    }

    /// q as a word.
    #[inline(always)]
    pub fn word<W: Word>(&self) -> W {
        W::from_u64(self.q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arithmetic_agrees_with_u128(q in (2u64..1 << 49).prop_map(|q| q | 1).prop_filter("q ≥ 3", |q| *q >= 3),
                                       x in any::<u64>(), y in any::<u64>(), s in any::<i64>()) {
            let m = Modulus::new(q).unwrap();
            let (x, y) = (x % q, y % q);
            let wide = |v: u128| (v % q as u128) as u64;
            prop_assert_eq!(m.multiply(x, y), wide(x as u128 * y as u128));
            prop_assert_eq!(m.add(x, y), wide(x as u128 + y as u128));
            prop_assert_eq!(m.sub(x, y), wide(x as u128 + q as u128 - y as u128));
            prop_assert_eq!(m.reduce_signed(s) as i128, (s as i128).rem_euclid(q as i128));
            if q < 1 << 30 {
                prop_assert_eq!((x as u32).multiply_mod(y as u32, &m) as u64, m.multiply(x, y));
            }
        }
    }

    #[test]
    fn the_root_is_primitive() {
        let m = Modulus::new(65537).unwrap();
        let psi = m.primitive_root(1 << 12).unwrap();
        assert_eq!(m.power(psi, 1 << 12), m.value() - 1);
    }
}
