//! What one pass of a baby-step giant-step transform is given:
//! [`Accelerator::hoisted_sums`](super::Accelerator::hoisted_sums).

use super::{Accelerator, Error, KeyRow, Limbs, MAX_DIGITS, MAX_STEPS, check, polynomial};
use crate::ring::{Basis, MAX_LIMBS, ModulusChain};

/// One baby step of a transform.
pub struct Step<'a, L> {
    /// X → X^galois after the switch; odd, below 2N.
    pub galois: usize,
    /// Both halves of the key, trimmed to the level; `None` for the identity, whose `galois` is 1.
    pub key: Option<[&'a [KeyRow<'a, L>]; 2]>,
}

/// Plaintext factors in evaluation form, over the ordinary primes of a level and the special primes in use.
///
/// A polynomial in X^(N/n) has evaluations that are constant on aligned runs of N/n words: only one word of
/// each run is stored, and `repeat` factors share a limb.
pub struct Factors<'a, L> {
    /// How often each stored word repeats: a power of two from 1 to N/8.
    pub repeat: usize,
    /// Number of factors.
    pub count: usize,
    /// Prime-major: m = ⌈count/repeat⌉ limbs for each prime of the basis. Factor k is the N/repeat words from
    /// (k mod repeat)·N/repeat on of the prime's limb ⌊k/repeat⌋.
    pub limbs: &'a [L],
}

impl<'a, L> Factors<'a, L> {
    /// Limbs for each prime: m.
    #[must_use]
    pub fn limbs_per_prime(&self) -> usize {
        self.count.div_ceil(self.repeat.max(1))
    }

    /// The limb that holds factor `k` modulo prime `i` of the basis, and where in it the factor's words start;
    /// `None` when there is no such factor.
    #[must_use]
    pub fn locate(&self, degree: usize, i: usize, k: usize) -> Option<(&'a L, usize)> {
        let repeat = self.repeat.max(1);
        let limb = self.limbs.get(i * self.limbs_per_prime() + k / repeat).filter(|_| k < self.count)?;
        Some((limb, k % repeat * (degree / repeat)))
    }
}

/// `Ok` when [`Accelerator::repeat`](super::Accelerator::repeat) is defined for limbs of `degree` words.
///
/// # Errors
/// [`Error::Range`] when `repeat` is no power of two from 1 to N/8; [`Error::Shape`] when the words end beyond N.
pub fn check_repeat(degree: usize, offset: usize, repeat: usize) -> Result<(), Error> {
    if !repeat.is_power_of_two() || repeat > degree / 8 {
        return Err(Error::Range);
    }
    match offset.checked_add(degree / repeat) {
        Some(end) if end <= degree => Ok(()),
        _ => Err(Error::Shape { have: degree, need: offset.saturating_add(degree / repeat) }),
    }
}

/// The basis of a call of [`Accelerator::hoisted_sums`](super::Accelerator::hoisted_sums) whose arguments fit
/// together: `level`, then the special primes that the sums have limbs for.
///
/// # Errors
/// [`Error::Shape`] when lengths or counts differ or the chain lacks a prime; [`Error::Range`] when a `galois` is
/// even or not below 2N, an identity's is not 1, or a `repeat` is not as [`Factors`] asks.
pub fn check_sums<L>(
    chain: &ModulusChain,
    level: Basis,
    x: [&[L]; 2],
    digits: &[&[L]],
    steps: &[Step<'_, L>],
    factors: &Factors<'_, L>,
    sums: &[[&mut [L]; 2]],
) -> Result<Basis, Error> {
    let limbs = sums.first().map_or(level.len(), |sum| sum[0].len());
    let basis = level.with_special(limbs.saturating_sub(level.len()));
    check(basis.len(), limbs)?;
    if !level.fits(chain) || !basis.fits(chain) || level.special() > 0 {
        return Err(Error::Shape { have: chain.moduli().len(), need: limbs });
    }
    sums.iter().flatten().try_for_each(|sum| check(limbs, sum.len()))?;
    x.iter().try_for_each(|x| check(level.len(), x.len()))?;
    check(digits.len().min(MAX_DIGITS), digits.len())?;
    if !sums.is_empty() {
        digits.iter().try_for_each(|digit| check(limbs, digit.len()))?;
    }
    check(steps.len().min(MAX_STEPS), steps.len())?;
    for step in steps {
        let identity = step.key.is_none();
        if step.galois % 2 == 0 || step.galois >= 2 * chain.degree() || (identity && step.galois != 1) {
            return Err(Error::Range);
        }
        for half in step.key.iter().flatten() {
            check(digits.len(), half.len())?;
            for row in *half {
                check(level.len(), row.ordinary.len())?;
                check(basis.special(), row.special.len())?;
            }
        }
    }
    check_repeat(chain.degree(), 0, factors.repeat)?;
    check(sums.len().saturating_mul(steps.len()), factors.count)?;
    check(limbs.saturating_mul(factors.limbs_per_prime()), factors.limbs.len())?;
    Ok(basis)
}

/// [`Accelerator::hoisted_sums`](super::Accelerator::hoisted_sums), step by step.
pub(super) fn hoisted_sums<A: Accelerator>(
    accelerator: &A,
    level: Basis,
    x: [&[A::Limb]; 2],
    digits: &[&[A::Limb]],
    steps: &[Step<'_, A::Limb>],
    factors: &Factors<'_, A::Limb>,
    sums: &mut [[&mut [A::Limb]; 2]],
) -> Result<(), Error> {
    let chain = accelerator.chain();
    let basis = check_sums(chain, level, x, digits, steps, factors, sums)?;
    if sums.is_empty() {
        return Ok(());
    }
    sums.iter_mut().flatten().try_for_each(|sum| accelerator.clear(sum))?;
    let special = Basis::new(0, 0, basis.special());
    let p: heapless::Vec<u64, MAX_LIMBS> = chain.of(level).map(|m| chain.product_mod(special, m)).collect();
    let limbs = || polynomial::allocate_limbs(accelerator, basis.len());
    let mut rotated: [Limbs<A>; 2] = [limbs()?, limbs()?];
    let mut switched: [Limbs<A>; 2] = [limbs()?, limbs()?];
    for (b, step) in steps.iter().enumerate() {
        let [u0, u1] = &mut switched;
        if let Some(key) = step.key {
            accelerator.inner_product(level, [&mut *u0, &mut *u1], digits, key)?;
            accelerator.multiply_scalar_add(level, &mut u0[..level.len()], x[0], &p)?;
            for (r, u) in rotated.iter_mut().zip([&*u0, &*u1]) {
                accelerator.automorphism(basis, r, u, step.galois)?;
            }
        } else {
            for (r, x) in rotated.iter_mut().zip(x) {
                accelerator.clear(r)?;
                accelerator.multiply_scalar_add(level, &mut r[..level.len()], x, &p)?;
            }
        }
        // The first half has been read: its limbs take the factors.
        for (g, sum) in sums.iter_mut().enumerate() {
            for (i, factor) in u0.iter_mut().enumerate() {
                let place = factors.locate(chain.degree(), i, g * steps.len() + b);
                let (limb, offset) =
                    place.ok_or(Error::Shape { have: factors.limbs.len(), need: factors.count })?;
                accelerator.repeat(factor, limb, offset, factors.repeat)?;
            }
            for (sum, r) in sum.iter_mut().zip(&rotated) {
                accelerator.multiply_add(basis, sum, r, u0)?;
            }
        }
    }
    Ok(())
}
