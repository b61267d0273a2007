//! What key switches are given.

use super::{Accelerator, Error, check};
use crate::ring::Basis;

/// One half of one digit of a key, trimmed to Q_level ∪ P.
pub struct KeyRow<'a, L> {
    /// The limbs of q_0 … q_level.
    pub ordinary: &'a [L],
    /// The limbs of P.
    pub special: &'a [L],
}

impl<'a, L> KeyRow<'a, L> {
    /// Limb `i` of the row.
    pub fn limb(&self, i: usize) -> Option<&'a L> {
        self.ordinary.get(i).or_else(|| self.special.get(i.checked_sub(self.ordinary.len())?))
    }
}

/// sum += digit ⊙ row over `level` ∪ P.
pub(super) fn multiply_add_row<A: Accelerator>(
    accelerator: &A,
    level: Basis,
    sum: &mut [A::Limb],
    digit: &[A::Limb],
    row: &KeyRow<'_, A::Limb>,
) -> Result<(), Error> {
    check(level.len(), row.ordinary.len())?;
    check(sum.len(), row.ordinary.len() + row.special.len())?;
    check(sum.len(), digit.len())?;
    let (sum_q, sum_p) = sum.split_at_mut(level.len());
    let (digit_q, digit_p) = digit.split_at(level.len());
    accelerator.multiply_add(level, sum_q, digit_q, row.ordinary)?;
    accelerator.multiply_add(Basis::new(0, 0, row.special.len()), sum_p, digit_p, row.special)
}
