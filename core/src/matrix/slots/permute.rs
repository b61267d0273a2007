//! Weighted sums of shifts of a matrix: the permutations σ and τ, and products with known weights.

use super::{Axis, MAX_GIANTS, Packing};
use crate::accel::Accelerator;
use crate::ckks::server::{Evaluator, ExtendedProduct};
use crate::ckks::{Ciphertext, Error, KeySource, Plaintext};

/// A shift by `k` places, and whether past the end of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift {
    pub(super) k: usize,
    pub(super) wrapped: bool,
}

/// An encoded factor, kept by the caller or made for one use.
pub(super) enum Encoded<'w, A: Accelerator> {
    Once(Plaintext<A>),
    Kept(&'w Plaintext<A>),
}

impl<A: Accelerator> Encoded<'_, A> {
    pub(super) fn plaintext(&self) -> &Plaintext<A> {
        match self {
            Self::Once(plaintext) => plaintext,
            Self::Kept(plaintext) => plaintext,
        }
    }
}

impl Shift {
    /// Of the entry at (row, column).
    fn at(packing: &Packing, axis: Axis, k: usize, column: usize) -> Self {
        Self { k, wrapped: axis == Axis::Columns && column + k >= packing.dimension }
    }
}

impl Packing {
    /// The shifts that a sum along `axis` consists of; only columns wrap.
    pub(super) fn shifts(self, axis: Axis) -> impl Iterator<Item = Shift> {
        let wrapped = if axis == Axis::Columns { 1..self.dimension } else { 0..0 };
        let straight = (0..self.dimension).map(|k| Shift { k, wrapped: false });
        straight.chain(wrapped.map(|k| Shift { k, wrapped: true }))
    }

    /// The place of a shift among [`Packing::shifts`], if it is one.
    pub(super) fn shift_index(self, shift: Shift) -> Option<usize> {
        match shift {
            Shift { k, wrapped: false } => Some(k),
            Shift { k, wrapped: true } => k.checked_sub(1).map(|k| self.dimension + k),
        }
    }

    /// Slot `slot` of the factor of `shift`, turned back by the giant turn that follows the product; `weight` has
    /// (lane, row, column) of the result.
    pub(super) fn shift_factor(
        self,
        axis: Axis,
        shift: Shift,
        slot: usize,
        weight: impl Fn(usize, usize, usize) -> f64,
    ) -> f64 {
        let slots = self.lanes * self.dimension * self.dimension;
        let giant = (shift.k - shift.k % self.babies()) * self.unit(axis) as usize;
        let (lane, row, column) = self.entry((slot + slots - giant) % slots);
        if Shift::at(&self, axis, shift.k, column) == shift { weight(lane, row, column) } else { 0.0 }
    }
}

/// Σ over the shifts of factor(shift) ⊙ (x shifted), one level down.
pub(super) fn sum_of_shifts<'w, A: Accelerator + 'w, K: KeySource<A> + ?Sized>(
    evaluator: &Evaluator<'_, A, K>,
    packing: Packing,
    axis: Axis,
    x: &Ciphertext<A>,
    mut factor: impl FnMut(Shift) -> Result<Encoded<'w, A>, Error>,
) -> Result<Ciphertext<A>, Error> {
    let (level, unit) = (x.level(), packing.unit(axis));
    let (babies, giants) = (packing.babies(), packing.giants());
    let straight = evaluator.hoist(x)?;
    let back = match axis {
        Axis::Columns => Some(evaluator.rotate_hoisted(&straight, packing.wrap())?),
        Axis::Rows => None,
    };
    let back = back.as_ref().map(|back| evaluator.hoist(back)).transpose()?;
    let sources = [(Some(&straight), false), (back.as_ref(), true)];
    let mut sums: [Option<ExtendedProduct<A>>; MAX_GIANTS] = core::array::from_fn(|_| None);
    // Baby turns outside: each turned copy is alive only while it is used.
    for baby in 0..babies {
        for (source, wrapped) in sources {
            let Some(source) = source else { continue };
            let turned = evaluator.rotate_extended(source, baby as i64 * unit)?;
            for (giant, sum) in sums.iter_mut().enumerate().take(giants) {
                let shift = Shift { k: giant * babies + baby, wrapped };
                if packing.shift_index(shift).is_none() {
                    continue;
                }
                let sum = match sum {
                    Some(sum) => sum,
                    none => none.insert(evaluator.extended_product(level)?),
                };
                evaluator.extended_multiply_add(sum, &turned, factor(shift)?.plaintext())?;
            }
        }
    }
    let mut total = evaluator.extended_product(level)?;
    for (giant, sum) in sums.into_iter().enumerate() {
        if let Some(sum) = sum {
            evaluator.rotate_add(&mut total, sum, (giant * babies) as i64 * unit)?;
        }
    }
    evaluator.rescale_extended(total)
}
