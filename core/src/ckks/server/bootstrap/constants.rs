//! The plaintexts of a bootstrap: the factors of its linear stages, and i.

use super::BootstrapPlan;
use crate::accel::{Accelerator, Polynomial};
use crate::ckks::encoding::Encoder;
use crate::ckks::server::FactorScratch;
use crate::ckks::server::factors::encode_factors;
use crate::ckks::{Error, Parameters};
use crate::ring::Basis;

impl BootstrapPlan {
    /// Fills `limbs`, [`BootstrapPlan::limbs`] of them, with the constants.
    ///
    /// # Errors
    /// [`Error::OtherChain`], [`Error::Length`], or out of limbs: it takes as many as there are primes.
    pub fn prepare<A: Accelerator>(
        &self,
        accelerator: &A,
        parameters: &Parameters,
        encoder: &Encoder<'_>,
        mut scratch: FactorScratch<'_, A::Word>,
        limbs: &mut [A::Limb],
    ) -> Result<(), Error> {
        let degree = parameters.degree();
        if accelerator.chain() != parameters.chain() {
            return Err(Error::OtherChain);
        }
        if limbs.len() != self.limbs() {
            return Err(Error::Length { have: limbs.len(), need: self.limbs() });
        }
        scratch.check(degree)?;
        for stage in self.all_stages() {
            let slot = |k: usize, j: usize| {
                let (giant, baby) = stage.turns.steps_of(k);
                stage.factor(giant, baby, j)
            };
            let of = (&stage.turns, self.basis(stage), stage.scale);
            let own = &mut limbs[self.place(stage)];
            encode_factors(accelerator, encoder, of, slot, &mut scratch, own)?;
        }
        let coefficients = scratch.coefficients;
        // i = X^{N/2}: every slot is at a power 5^j ≡ 1 (mod 4) of e^{iπ/N}.
        coefficients.fill(0);
        coefficients[degree / 2] = 1;
        let i = Polynomial::from_signed(accelerator, Basis::level(self.top()), coefficients)?;
        let i = i.into_evaluations(accelerator)?;
        Ok(accelerator.copy(&mut limbs[self.imaginary()..], i.limbs())?)
    }
}
