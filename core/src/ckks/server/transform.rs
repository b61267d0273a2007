//! Linear transforms of the slot vector by diagonals, baby-step giant-step,
//! double-hoisted.

use super::Evaluator;
use crate::accel::Accelerator;
use crate::ckks::{Ciphertext, Error, KeyId, KeyRequests, KeySource, Parameters, Plaintext};

/// A transform y = Σ_{g,b} rot_{g}( diagonal(g, b) ⊙ rot_{b}(x) ): rotation
/// amounts b (baby, hoisted) and g (giant).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BabyGiant<'r> {
    /// Rotations of the input.
    pub baby: &'r [i64],
    /// Rotations of the partial sums.
    pub giant: &'r [i64],
}

/// Supplies plaintexts, encoded over Q_level ∪ P at the level of the input.
pub trait DiagonalSource<A: Accelerator> {
    /// The factor of baby rotation `baby` inside giant step `giant` (indices
    /// into [`BabyGiant`]); `None` when it is zero.
    ///
    /// # Errors
    /// Encoding's errors.
    fn diagonal(&mut self, giant: usize, baby: usize, level: usize) -> Result<Option<Plaintext<A>>, Error>;
}

impl BabyGiant<'_> {
    /// The keys the transform needs for an input at `level`.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn required_keys(
        &self,
        parameters: &Parameters,
        level: usize,
        keys: &mut KeyRequests,
    ) -> Result<(), Error> {
        self.baby
            .iter()
            .chain(self.giant)
            .try_for_each(|&steps| keys.add(KeyId::rotation(parameters, steps), level))
    }
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> Evaluator<'_, A, K> {
    /// Applies a transform; one level down.
    ///
    /// # Errors
    /// [`Error::MissingKey`], [`Error::LevelsExhausted`], encoding's errors.
    pub fn transform(
        &self,
        x: &Ciphertext<A>,
        rotations: BabyGiant<'_>,
        diagonals: &mut impl DiagonalSource<A>,
    ) -> Result<Ciphertext<A>, Error> {
        let level = x.level();
        let hoisted = self.hoist(x)?;
        let mut sums: heapless::Vec<_, MAX_GIANTS> = heapless::Vec::new();
        for _ in rotations.giant {
            sums.push(None).map_err(|_| Error::Full { capacity: MAX_GIANTS })?;
        }
        // Baby steps outside: each rotated copy is alive only while it is used.
        for (b, &steps) in rotations.baby.iter().enumerate() {
            let mut rotated = None;
            for (g, sum) in sums.iter_mut().enumerate() {
                let Some(factor) = diagonals.diagonal(g, b, level)? else { continue };
                if rotated.is_none() {
                    rotated = Some(self.rotate_extended(&hoisted, steps)?);
                }
                if sum.is_none() {
                    *sum = Some(self.extended_product(level)?);
                }
                if let (Some(sum), Some(rotated)) = (sum.as_mut(), rotated.as_ref()) {
                    self.extended_multiply_add(sum, rotated, &factor)?;
                }
            }
        }
        drop(hoisted);
        let mut total = self.extended_product(level)?;
        for (sum, &steps) in sums.into_iter().zip(rotations.giant) {
            if let Some(sum) = sum {
                self.rotate_add(&mut total, sum, steps)?;
            }
        }
        self.rescale_extended(total)
    }
}

/// Most giant steps of one transform.
const MAX_GIANTS: usize = 64;
