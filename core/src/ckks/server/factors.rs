//! Encoding the factors of a linear transform.

use super::Turns;
use crate::accel::{Accelerator, Evaluations, Polynomial};
use crate::ckks::Error;
use crate::ckks::encoding::{Complex, Encoder};
use crate::ring::Basis;
use core::slice;

/// Fewest words that a partial transform leaves in a block.
const MIN_BLOCK: usize = 8;

/// Host memory for making factors, each of N entries.
pub struct FactorScratch<'s, W> {
    /// For the encoder.
    pub values: &'s mut [f64],
    /// Encoded coefficients.
    pub coefficients: &'s mut [i64],
    /// Residues of one limb, and of the limb they are gathered in.
    pub words: [&'s mut [W]; 2],
}

impl<W> FactorScratch<'_, W> {
    pub(super) fn check(&self, degree: usize) -> Result<(), Error> {
        let [residues, gathered] = &self.words;
        for have in [self.values.len(), self.coefficients.len(), residues.len(), gathered.len()] {
            if have != degree {
                return Err(Error::Length { have, need: degree });
            }
        }
        Ok(())
    }
}

/// Fills `limbs` with the factors of a transform over `basis`, as [`crate::accel::Factors`] wants them: slot j of factor k
/// is `slot`(k, j), j below the period.
///
/// Factors of a period are polynomials in X^r, r being how often their words repeat. Σ_t X^t·f_t(X^r), r of them in one,
/// is transformed until its blocks have r words: word t of block j is then the evaluation of f_t that the whole transform
/// of f_t(X^r) would have r times in that block.
pub(super) fn encode_factors<A: Accelerator>(
    accelerator: &A,
    encoder: &Encoder<'_>,
    (turns, basis, scale): (&Turns, Basis, f64),
    slot: impl Fn(usize, usize) -> Complex,
    scratch: &mut FactorScratch<'_, A::Word>,
    limbs: &mut [A::Limb],
) -> Result<(), Error> {
    let degree = accelerator.chain().degree();
    scratch.check(degree)?;
    let (repeat, per_prime) = (turns.repeat(), turns.limbs_per_prime());
    let (have, need) = (limbs.len(), per_prime * basis.len());
    if have != need {
        return Err(Error::Length { have, need });
    }
    let width = degree / repeat;
    let narrow = encoder.narrow(turns.period())?;
    let together = if repeat < MIN_BLOCK { 1 } else { repeat };
    for first in (0..turns.factors()).step_by(together) {
        let count = together.min(turns.factors() - first);
        scratch.coefficients.fill(0);
        for t in 0..count {
            let values = &mut scratch.values[..width];
            narrow.encode_to(
                |j| slot(first + t, j),
                scale,
                values,
                |k, c| {
                    scratch.coefficients[repeat * k + t] = c;
                },
            )?;
        }
        let mut factor = Polynomial::from_signed(accelerator, basis, scratch.coefficients)?;
        let [residues, gathered] = &mut scratch.words;
        if together == 1 {
            let factor: Polynomial<A, Evaluations> = factor.into_evaluations(accelerator)?;
            let place = first % repeat * width;
            for (i, limb) in factor.limbs().iter().enumerate() {
                let target = &mut limbs[i * per_prime + first / repeat];
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
            continue;
        }
        accelerator.ntt_partial(basis, factor.limbs_mut(), repeat)?;
        for (i, limb) in factor.limbs().iter().enumerate() {
            accelerator.read(limb, residues)?;
            transpose(residues, gathered, repeat);
            accelerator.write(&mut limbs[i * per_prime + first / repeat], gathered)?;
        }
    }
    Ok(())
}

/// From runs of `repeat` words to `repeat` runs, some runs at a time: those stay in the cache.
fn transpose<W: Copy>(from: &[W], to: &mut [W], repeat: usize) {
    const RUNS: usize = 64;
    let width = from.len() / repeat;
    for start in (0..width).step_by(RUNS) {
        let end = width.min(start + RUNS);
        for t in 0..repeat {
            let runs = from[start * repeat..end * repeat].chunks_exact(repeat);
            for (word, run) in to[t * width + start..t * width + end].iter_mut().zip(runs) {
                *word = run[t];
            }
        }
    }
}
