//! The transpose of d rows.
//!
//! With m_i = Σ_j X^j·m_{i,j}(Z) and u_t = Σ_i (X·ζ^(−t))^i·m_i,
//! σ_t(u_t) = Σ_{i,j} X^i·(X·ζ^t)^j·m_{i,j}, since σ_t maps X to X·ζ^t and ζ to
//! itself. Row j of the transpose, Σ_i X^i·m_{i,j}, is therefore
//! (1/d)·Σ_t (X·ζ^t)^(−j)·σ_t(u_t): two transforms without a key, and one
//! key-switched automorphism to a row in between. Everything but the switches is
//! linear over Z_q, so that the division by d is exact, noise and all, if it comes first.

use super::fourier::Direction;
use super::{LaneEvaluator, check_rows};
use crate::accel::{Accelerator, Evaluations, Polynomial};
use crate::ckks::{Ciphertext, Error, KeySource};
use crate::ring::Basis;

impl<A: Accelerator, K: KeySource<A> + ?Sized> LaneEvaluator<'_, A, K> {
    /// Transposes in place, lane by lane: of d `rows`, the first `live` hold a
    /// matrix of `live` rows and d columns, the others any ciphertext of the
    /// same level, read as zero; afterwards row j holds column j.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are d rows and `live` of them;
    /// [`Error::Level`]; [`Error::MissingKey`] before any work.
    pub fn transpose(&self, rows: &mut [Ciphertext<A>], live: usize) -> Result<(), Error> {
        check_rows(self.lanes.width, rows.len())?;
        if live > rows.len() {
            return Err(Error::Length { have: live, need: rows.len() });
        }
        let level = self.level_of(rows.iter())?;
        self.check_keys(level)?;
        let accelerator = self.evaluator.accelerator();
        if live == 0 {
            return Ok(accelerator.for_each(rows, |_, row| {
                row.parts.iter_mut().try_for_each(|part| accelerator.clear(part.limbs_mut()))
            })?);
        }
        self.divide_by_width(&mut rows[..live])?;
        self.transform(Direction::Forward, rows, 2, live)?;
        accelerator.for_each(rows, |position, row| {
            let galois = self.lanes.galois(self.lanes.conjugate(position));
            if galois != 1 {
                *row = self.evaluator.automorphism(row, galois)?;
            }
            Ok::<(), Error>(())
        })?;
        self.transform(Direction::Inverse, rows, 2, self.lanes.width)
    }

    /// Every row times 1/d.
    pub(super) fn divide_by_width(&self, rows: &mut [Ciphertext<A>]) -> Result<(), Error> {
        let (accelerator, width) = (self.evaluator.accelerator(), self.lanes.width);
        accelerator.for_each(rows, |_, row| self.evaluator.divide_exactly(row, width))
    }

    /// destination = σ(x/P), for x over Q_level ∪ P.
    pub(super) fn divide_and_map(
        &self,
        destination: &mut Polynomial<A, Evaluations>,
        mut x: Polynomial<A, Evaluations>,
        galois: usize,
    ) -> Result<(), Error> {
        let accelerator = self.evaluator.accelerator();
        let (level, special) = (destination.basis(), Basis::new(0, 0, x.basis().special()));
        accelerator.mod_down(level, special, x.limbs_mut())?;
        let quotient = &x.limbs()[..level.len()];
        Ok(accelerator.automorphism(level, destination.limbs_mut(), quotient, galois)?)
    }
}
