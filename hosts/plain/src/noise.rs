//! A model of the scheme's noise: what an encrypted run adds to the polynomial one.

use crate::random::Random;
use crate::scalar::Scalar;

/// Gaussian errors on the result of every operation that a ciphertext pays for (products, polynomials, sums of them;
/// not additions), so that the accuracy of an encrypted run can be predicted from its measured precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Standard deviation, relative to the largest entry of the result: 2⁻ᵖ for p bits of precision.
    pub relative: f64,
    /// Everything random follows from it.
    pub seed: u64,
}

/// The noise of one run.
#[derive(Debug, Clone)]
pub(crate) struct NoiseSource {
    relative: f64,
    random: Random,
}

impl NoiseSource {
    /// A stream of its own for every number.
    pub(crate) fn new(noise: Noise, stream: u64) -> Self {
        Self { relative: noise.relative, random: Random::new(noise.seed, stream) }
    }

    /// Adds the error of one operation.
    pub(crate) fn disturb<F: Scalar>(&mut self, values: &mut [F]) {
        let largest = values.iter().fold(0.0f64, |m, v| m.max(v.to_f64().abs()));
        for v in values {
            *v += F::from_f64(self.relative * largest * self.random.normal());
        }
    }
}
