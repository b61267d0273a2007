//! What the products of the matrix room are given: [`Accelerator::row_products`](super::Accelerator::row_products)
//! and [`Accelerator::block_products`](super::Accelerator::block_products).

use super::{Accelerator, Error, Limbs, check, polynomial};
use crate::ring::{Basis, ModulusChain};

/// What [`Accelerator::row_products`](super::Accelerator::row_products) writes for k output rows: k samples of one
/// module, in coefficient form.
pub struct RowSums<'a, L> {
    /// Σ_i X^i·b_i(X^k): the bodies of the k samples, interleaved. A limb for every prime.
    pub body: &'a mut [L],
    /// For j = 0 … k−1, Σ_i X^i·a_{i,j}(X^k): what multiplies component j of the secret. Limb j·primes + i is
    /// that of prime i.
    pub masks: &'a mut [L],
}

/// `Ok` when the arguments of [`Accelerator::row_products`](super::Accelerator::row_products) fit together.
///
/// # Errors
/// [`Error::Range`] when `rows` is no power of two from 1 to N/8; [`Error::Shape`] when lengths differ or the chain
/// lacks a prime.
pub fn check_rows<L>(
    chain: &ModulusChain,
    basis: Basis,
    rows: usize,
    weights: &[i16],
    x: &[[&[L]; 2]],
    sums: &[RowSums<'_, L>],
) -> Result<(), Error> {
    if !rows.is_power_of_two() || rows > chain.degree() / 8 {
        return Err(Error::Range);
    }
    if !basis.fits(chain) {
        return Err(Error::Shape { have: chain.moduli().len(), need: basis.len() });
    }
    check(rows.saturating_mul(rows).saturating_mul(x.len()).saturating_mul(sums.len()), weights.len())?;
    x.iter().flatten().try_for_each(|half| check(basis.len(), half.len()))?;
    for sum in sums {
        check(basis.len(), sum.body.len())?;
        check(rows * basis.len(), sum.masks.len())?;
    }
    Ok(())
}

/// `Ok` when the arguments of [`Accelerator::block_products`](super::Accelerator::block_products) fit together.
///
/// # Errors
/// [`Error::Range`] when `block` is no power of two from 8 to N; [`Error::Shape`] when lengths differ or the chain
/// lacks a prime.
pub fn check_blocks<L>(
    chain: &ModulusChain,
    basis: Basis,
    block: usize,
    left: &[&[L]],
    right: &[&[L]],
    destination: &[&mut [L]],
) -> Result<(), Error> {
    check_block(chain.degree(), block)?;
    if !basis.fits(chain) {
        return Err(Error::Shape { have: chain.moduli().len(), need: basis.len() });
    }
    check(left.len(), right.len())?;
    check(block, destination.len())?;
    left.iter().chain(right).try_for_each(|row| check(basis.len(), row.len()))?;
    destination.iter().try_for_each(|row| check(basis.len(), row.len()))
}

/// `Ok` for a power of two from 8 to `degree`.
///
/// # Errors
/// [`Error::Range`].
pub fn check_block(degree: usize, block: usize) -> Result<(), Error> {
    if block.is_power_of_two() && (8..=degree).contains(&block) { Ok(()) } else { Err(Error::Range) }
}

/// `Ok` when the arguments of [`Accelerator::odd_power_sums`] fit together.
///
/// # Errors
/// [`Error::Shape`] when lengths differ or the chain lacks a prime.
pub fn check_powers<L>(
    chain: &ModulusChain,
    basis: Basis,
    x: &[L],
    rows: &[&[L]],
    sums: &[&mut [L]],
) -> Result<(), Error> {
    if !basis.fits(chain) {
        return Err(Error::Shape { have: chain.moduli().len(), need: basis.len() });
    }
    check(basis.len(), x.len())?;
    rows.iter().try_for_each(|row| check(basis.len(), row.len()))?;
    sums.iter().try_for_each(|sum| check(basis.len(), sum.len()))
}

/// [`Accelerator::odd_power_sums`] by Horner's rule.
pub(super) fn odd_power_sums<A: Accelerator>(
    accelerator: &A,
    basis: Basis,
    x: &[A::Limb],
    rows: &[&[A::Limb]],
    sums: &mut [&mut [A::Limb]],
) -> Result<(), Error> {
    check_powers(accelerator.chain(), basis, x, rows, sums)?;
    let copy = || -> Result<Limbs<A>, Error> {
        let mut limbs = polynomial::allocate_limbs(accelerator, basis.len())?;
        accelerator.copy(&mut limbs, x)?;
        Ok(limbs)
    };
    let (mut power, mut square) = (copy()?, copy()?);
    accelerator.multiply_assign(basis, &mut square, x)?;
    for sum in sums {
        accelerator.clear(sum)?;
        for row in rows.iter().rev() {
            accelerator.multiply_assign(basis, sum, &power)?;
            accelerator.add_assign(basis, sum, row)?;
        }
        accelerator.multiply_assign(basis, &mut power, &square)?;
    }
    Ok(())
}
