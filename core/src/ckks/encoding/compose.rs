//! From residues back to integers.

use crate::accel::{Accelerator, Polynomial};
use crate::ckks::{Error, Plaintext};
use crate::ring::{Basis, ModulusChain, Word};

/// Limbs that decide a decrypted value: messages and their noise stay below
/// q_0·q_1/2, or q_0/2 at level 0, so two limbs are enough.
pub(crate) const fn low_limbs(level: usize) -> usize {
    if level == 0 { 1 } else { 2 }
}

/// Words that reading coefficients of a polynomial at `level` takes: one or
/// two limbs.
pub const fn words_to_read(degree: usize, level: usize) -> usize {
    low_limbs(level) * degree
}

/// The centred integers behind one or two limbs of N canonical residues each,
/// modulo q_0 and, with two, q_1. The lengths must fit.
pub(crate) fn compose<W: Word>(chain: &ModulusChain, words: &[W], mut sink: impl FnMut(usize, i128)) {
    let degree = chain.degree();
    let (low, high) = words.split_at(degree);
    let q0 = chain.moduli()[0].value();
    if high.is_empty() {
        for (k, x) in low.iter().enumerate() {
            let x = x.to_u64() as i64;
            let centred = if x > (q0 / 2) as i64 { x - q0 as i64 } else { x };
            sink(k, centred as i128);
        }
        return;
    }
    // Garner: x = x_0 + q_0·((x_1 − x_0)·q_0^{−1} mod q_1).
    let m1 = &chain.moduli()[1];
    let q1 = m1.value();
    let inverse = m1.inverse(m1.reduce(q0));
    let (one_companion, inverse_companion) = (u64::shoup(1, q1), u64::shoup(inverse, q1));
    let product = q0 as i128 * q1 as i128;
    for (k, (x0, x1)) in low.iter().zip(high).enumerate() {
        let (x0, x1) = (x0.to_u64(), x1.to_u64());
        let difference = x1 + 2 * q1 - x0.multiply_shoup_lazy(1, one_companion, q1);
        let y = difference.multiply_shoup_lazy(inverse, inverse_companion, q1).reduce_once(q1);
        let x = x0 as i128 + q0 as i128 * y as i128;
        sink(k, if x > product / 2 { x - product } else { x });
    }
}

/// Reads one or two limbs in coefficient form and composes them. `words` has
/// at least N for each limb.
pub(crate) fn read_low<A: Accelerator>(
    accelerator: &A,
    limbs: &[A::Limb],
    words: &mut [A::Word],
    sink: impl FnMut(usize, i128),
) -> Result<(), Error> {
    let degree = accelerator.chain().degree();
    let need = limbs.len() * degree;
    let have = words.len();
    let words = words.get_mut(..need).ok_or(Error::Length { have, need })?;
    for (limb, part) in limbs.iter().zip(words.chunks_exact_mut(degree)) {
        accelerator.read(limb, part)?;
    }
    compose(accelerator.chain(), words, sink);
    Ok(())
}

/// The coefficients of a plaintext, for [`super::Encoder::decode`]. `words`
/// has [`words_to_read`] entries or more, `coefficients` N.
///
/// # Errors
/// [`Error::Length`], or the accelerator's.
pub fn plaintext_coefficients<A: Accelerator>(
    accelerator: &A,
    plaintext: &Plaintext<A>,
    words: &mut [A::Word],
    coefficients: &mut [f64],
) -> Result<(), Error> {
    super::float::length(coefficients.len(), accelerator.chain().degree())?;
    let basis = Basis::new(0, low_limbs(plaintext.level()), 0);
    let low = plaintext.polynomial().duplicate_to(accelerator, basis)?.into_coefficients(accelerator)?;
    read_low(accelerator, low.limbs(), words, |k, x| coefficients[k] = x as f64)
}

/// The plaintext of N encoded coefficients over `basis`: Q_level, or
/// Q_level ∪ P for a double-hoisted transform.
///
/// # Errors
/// The accelerator's.
pub fn plaintext<A: Accelerator>(
    accelerator: &A,
    basis: Basis,
    coefficients: &[i64],
) -> Result<Plaintext<A>, Error> {
    let polynomial = Polynomial::from_signed(accelerator, basis, coefficients)?;
    Ok(Plaintext::from_polynomial(polynomial.into_evaluations(accelerator)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::primes_below;
    use proptest::prelude::*;

    fn composed(q: [u64; 2], x: i128, limbs: usize) -> i128 {
        let chain = ModulusChain::new(10, &q, &[]).unwrap();
        let mut words = [0u64; 2048];
        for (part, q) in words.chunks_exact_mut(1024).zip(q) {
            part.fill(x.rem_euclid(q as i128) as u64);
        }
        let mut out = None;
        compose(&chain, &words[..1024 * limbs], |k, x| {
            if k == 1023 {
                out = Some(x);
            }
        });
        out.unwrap()
    }

    proptest! {
        #[test]
        fn residues_give_back_the_centred_integer(bits in (21u32..=50, 21u32..=50), x in any::<i128>(), edge in 0i128..3) {
            let step = 1 << 11;
            let q0 = primes_below(1 << bits.0, step).next().unwrap();
            let q1 = primes_below(1 << bits.1, step).find(|&q| q != q0).unwrap();
            let product = q0 as i128 * q1 as i128;
            let half = product / 2;
            for x in [x.rem_euclid(product) - half, half - edge, edge - half, edge, -edge] {
                prop_assert_eq!(composed([q0, q1], x, 2), x);
            }
            let half = q0 as i128 / 2;
            for x in [x.rem_euclid(q0 as i128) - half, half - edge, edge - half, -edge] {
                prop_assert_eq!(composed([q0, q1], x, 1), x);
            }
        }
    }
}
