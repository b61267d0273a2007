//! Centred fast basis conversion.
//!
//! Residues of x modulo D = Π q_i become the residue modulo another prime of
//! the representative of x in about [−D/2, D/2). The quotient is rounded in
//! fixed point, so the result is the same bit for bit on every machine; the
//! floating-point original is Halevi, Polyakov, Shoup (CT-RSA 2019, §2.2).
//!
//! y_i = x_i·(D/q_i)^{−1} mod q_i, v = ⌊(Σ ⌊y_i·r_i / 2^52⌋ + 2^{w−1}) / 2^w⌋
//! with w = min bits(q_i) − 1 and r_i = ⌊2^{52+w}/q_i⌋; the result is
//! Σ y_i·(D/q_i) − v·D. It is off by one D only within k·2^{−w} of ±D/2.

use super::{Basis, Modulus, ModulusChain, Word};

/// Most primes a conversion may start from.
pub const MAX_SOURCES: usize = 16;

/// The constants of one source basis.
#[derive(Clone, Debug)]
pub struct Converter {
    moduli: heapless::Vec<Modulus, MAX_SOURCES>,
    // (D/q_i)^{−1} mod q_i
    inverses: heapless::Vec<u64, MAX_SOURCES>,
    // r_i
    fractions: heapless::Vec<u64, MAX_SOURCES>,
    width: u32,
}

impl Converter {
    /// Constants for `source`; `None` when it is empty or has more than
    /// [`MAX_SOURCES`] primes.
    pub fn new(chain: &ModulusChain, source: Basis) -> Option<Self> {
        if source.is_empty() || source.len() > MAX_SOURCES || !source.fits(chain) {
            return None;
        }
        let moduli: heapless::Vec<Modulus, MAX_SOURCES> = chain.of(source).copied().collect();
        let width = moduli.iter().map(Modulus::bits).min()? - 1;
        let inverses = moduli
            .iter()
            .map(|m| {
                let others = moduli.iter().filter(|o| *o != m);
                m.inverse(others.fold(1, |p, o| m.multiply(p, m.reduce(o.value()))))
            })
            .collect();
        let fractions = moduli.iter().map(|m| ((1u128 << (52 + width)) / m.value() as u128) as u64).collect();
        Some(Self { moduli, inverses, fractions, width })
    }

    /// Source primes.
    pub fn sources(&self) -> &[Modulus] {
        &self.moduli
    }

    /// (D/q_i)^{−1} mod q_i for every source.
    pub fn inverses(&self) -> &[u64] {
        &self.inverses
    }

    /// r_i for every source.
    pub fn fractions(&self) -> &[u64] {
        &self.fractions
    }

    /// w, the bits of the fixed-point fraction.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// D/q_i mod `target` for every source, and D mod `target` last.
    pub fn weights(&self, target: &Modulus) -> ([u64; MAX_SOURCES], u64) {
        let mut weights = [0; MAX_SOURCES];
        for (weight, m) in weights.iter_mut().zip(&self.moduli) {
            let others = self.moduli.iter().filter(|o| *o != m);
            *weight = others.fold(1, |p, o| target.multiply(p, target.reduce(o.value())));
        }
        let product = self.moduli.iter().fold(1, |p, m| target.multiply(p, target.reduce(m.value())));
        (weights, product)
    }

    /// One coefficient: y_i into `y`, v returned. `x` has one residue per source.
    pub fn scale_column(&self, x: &[u64], y: &mut [u64]) -> u64 {
        let mut sum = 0u64;
        for (i, m) in self.moduli.iter().enumerate() {
            y[i] = m.multiply(x[i], self.inverses[i]);
            sum += ((y[i] as u128 * self.fractions[i] as u128) >> 52) as u64;
        }
        (sum + (1 << (self.width - 1))) >> self.width
    }

    /// Converts whole limbs to one target prime: `sources` in coefficient form.
    pub fn convert<W: Word>(&self, sources: &[&[W]], target: &Modulus, out: &mut [W]) {
        let (weights, product) = self.weights(target);
        let (mut x, mut y) = ([0; MAX_SOURCES], [0; MAX_SOURCES]);
        for (column, out) in out.iter_mut().enumerate() {
            for (x, source) in x.iter_mut().zip(sources) {
                *x = source[column].to_u64();
            }
            let v = self.scale_column(&x, &mut y);
            let mut sum = 0;
            for (y, weight) in y.iter().zip(&weights).take(self.moduli.len()) {
                sum = target.add(sum, target.multiply(target.reduce(*y), *weight));
            }
            let excess = target.multiply(target.reduce(v), product);
            *out = W::from_u64(target.sub(sum, excess));
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::ring::primes_below;
    use proptest::prelude::*;
    use std::vec::Vec;

    // x = Σ over two or three primes fits i128 when the primes are small.
    proptest! {
        #[test]
        fn agrees_with_integers(bits in 22u32..40, count in 1usize..4, seed in any::<i128>()) {
            let primes: Vec<u64> = primes_below(1 << bits, 2048).take(count + 1).collect();
            let chain = ModulusChain::new(10, &primes, &[]).unwrap();
            let source = Basis::new(1, count, 0);
            let product: i128 = primes[1..].iter().map(|&q| q as i128).product();
            let x = seed.rem_euclid(product) - product / 2;
            // Stay clear of the edge where rounding may go either way.
            prop_assume!(x.abs() < product / 2 - (product >> (bits - 4)));
            let residues: Vec<[u64; 1]> = primes[1..].iter().map(|&q| [x.rem_euclid(q as i128) as u64]).collect();
            let columns: Vec<&[u64]> = residues.iter().map(|r| &r[..]).collect();
            let mut out = [0u64];
            Converter::new(&chain, source).unwrap().convert(&columns, &chain.moduli()[0], &mut out);
            prop_assert_eq!(out[0] as i128, x.rem_euclid(primes[0] as i128));
        }
    }
}
