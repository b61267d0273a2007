//! The plaintexts of a bootstrap: the factors of its linear stages, and i.

use super::BootstrapPlan;
use crate::accel::{Accelerator, Polynomial};
use crate::ckks::encoding::Encoder;
use crate::ckks::{Error, Parameters};
use crate::ring::Basis;
use core::slice;

/// Host memory for making the constants, each of N entries.
pub struct ConstantScratch<'s, W> {
    /// For the encoder.
    pub values: &'s mut [f64],
    /// Encoded coefficients.
    pub coefficients: &'s mut [i64],
    /// Residues of one limb, and of the limb they are gathered in.
    pub words: [&'s mut [W]; 2],
}

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
        scratch: ConstantScratch<'_, A::Word>,
        limbs: &mut [A::Limb],
    ) -> Result<(), Error> {
        let degree = parameters.degree();
        if accelerator.chain() != parameters.chain() {
            return Err(Error::OtherChain);
        }
        if limbs.len() != self.limbs() {
            return Err(Error::Length { have: limbs.len(), need: self.limbs() });
        }
        let ConstantScratch { values, coefficients, words: [residues, gathered] } = scratch;
        for have in [values.len(), coefficients.len(), residues.len(), gathered.len()] {
            if have != degree {
                return Err(Error::Length { have, need: degree });
            }
        }
        for stage in self.all_stages() {
            let (basis, per_prime) = (self.basis(stage), stage.limbs_per_prime());
            let (repeat, width) = (stage.repeat(), degree / stage.repeat());
            let own = &mut limbs[self.place(stage)];
            let pairs = stage.giants().flat_map(|g| stage.babies().map(move |b| (g, b)));
            for (k, (giant, baby)) in pairs.enumerate() {
                let slot = |j: usize| stage.factor(giant, baby, j & (stage.period() - 1));
                encoder.encode_with(slot, stage.scale, values, coefficients)?;
                let factor = Polynomial::from_signed(accelerator, basis, coefficients)?;
                let factor = factor.into_evaluations(accelerator)?;
                let place = (k % repeat) * width;
                for (i, limb) in factor.limbs().iter().enumerate() {
                    let target = &mut own[i * per_prime + k / repeat];
                    if repeat == 1 {
                        accelerator.copy(slice::from_mut(target), slice::from_ref(limb))?;
                        continue;
                    }
                    accelerator.read(limb, residues)?;
                    accelerator.read(target, gathered)?;
                    let runs = residues.chunks_exact(repeat);
                    for (word, run) in gathered[place..place + width].iter_mut().zip(runs) {
                        *word = run[0];
                    }
                    accelerator.write(target, gathered)?;
                }
            }
        }
        // i = X^{N/2}: every slot is at a power 5^j ≡ 1 (mod 4) of e^{iπ/N}.
        coefficients.fill(0);
        coefficients[degree / 2] = 1;
        let i = Polynomial::from_signed(accelerator, Basis::level(self.top()), coefficients)?;
        let i = i.into_evaluations(accelerator)?;
        Ok(accelerator.copy(&mut limbs[self.imaginary()..], i.limbs())?)
    }
}
