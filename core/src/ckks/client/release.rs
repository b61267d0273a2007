//! Showing a decryption to somebody else.
//!
//! A CKKS decryption contains the noise, and the noise tells about the key:
//! whoever sees enough of them recovers it (Li and Micciancio, EUROCRYPT 2021;
//! the notion is IND-CPA-D). [`SecretKey::decrypt`] is therefore for the
//! client's own eyes. Whatever leaves the client goes through
//! [`SecretKey::release`], which drowns the noise first: for τ releases and s
//! bits of security the deviation is √(12τ)·2^{s/2} times the noise (Li,
//! Micciancio, Schultz, Sorrell, CRYPTO 2022). It costs about
//! log2 √(12τ) + s/2 bits of precision.

use super::secret::SecretKey;
use crate::accel::Trusted;
use crate::ckks::{Ciphertext, Error, ParameterField};
use crate::ring::{Purpose, SecretSeed, StreamId, sampling};
use rand_core::CryptoRng;

/// Fewest bits s of a release.
pub const MIN_RELEASE_BITS: u32 = 30;

/// How many releases a key still has, and their strength. It is stored with
/// the secret key; counting down is not undone by an error later on.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReleaseBudget {
    allowed: u32,
    used: u32,
    bits: u32,
}

impl ReleaseBudget {
    /// For `allowed` releases at `bits` bits.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless `bits` is [`MIN_RELEASE_BITS`] to 80.
    pub fn new(allowed: u32, bits: u32) -> Result<Self, Error> {
        Self::resume(allowed, 0, bits)
    }

    /// As it was when `used` releases had been made.
    ///
    /// # Errors
    /// As [`ReleaseBudget::new`].
    pub fn resume(allowed: u32, used: u32, bits: u32) -> Result<Self, Error> {
        if (MIN_RELEASE_BITS..=80).contains(&bits) {
            return Ok(Self { allowed, used: used.min(allowed), bits });
        }
        let field = ParameterField::ReleaseBits;
        Err(Error::Parameter { field, given: bits, min: MIN_RELEASE_BITS, max: 80 })
    }

    /// τ.
    pub fn allowed(&self) -> u32 {
        self.allowed
    }

    /// Releases made.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// s.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    fn spend(&mut self) -> Result<(), Error> {
        if self.used >= self.allowed {
            return Err(Error::ReleasesExhausted { allowed: self.allowed });
        }
        self.used += 1;
        Ok(())
    }
}

/// σ = √(12τ)·2^{s/2}·noise.
pub fn flood_deviation(budget: &ReleaseBudget, noise: f64) -> f64 {
    libm::sqrt(12.0 * budget.allowed as f64) * libm::exp2(budget.bits as f64 / 2.0) * noise
}

impl<A: Trusted> SecretKey<'_, A> {
    /// As [`SecretKey::decrypt_coefficients`], flooded: safe to show.
    ///
    /// `noise` bounds the standard deviation of the ciphertext's noise, in
    /// units of its coefficients; a plan knows it. It must cover every release
    /// that the budget counts.
    ///
    /// # Errors
    /// [`Error::ReleasesExhausted`]; [`Error::NotEncodable`] unless `noise` is
    /// positive and the flood's σ below 2^58; as [`SecretKey::decrypt_coefficients`].
    pub fn release(
        &self,
        ciphertext: &Ciphertext<A>,
        noise: f64,
        budget: &mut ReleaseBudget,
        rng: &mut impl CryptoRng,
        words: &mut [A::Word],
        coefficients: &mut [f64],
    ) -> Result<(), Error> {
        self.check_length(coefficients.len())?;
        let sigma = flood_deviation(budget, noise);
        if !(noise > 0.0 && sigma < (1u64 << 58) as f64) {
            return Err(Error::NotEncodable { index: 0 });
        }
        budget.spend()?;
        // Flood the exact integers: everything after that is post-processing.
        let fresh = SecretSeed::draw(rng);
        let mut stream = fresh.stream(StreamId::new(Purpose::Flood));
        let count = coefficients.len();
        sampling::gaussian(&mut stream, sigma, count, |k, flood| coefficients[k] = flood as f64);
        self.decrypt_with(ciphertext, words, |k, x| {
            let flooded = x.saturating_add(coefficients[k] as i128);
            coefficients[k] = flooded as f64;
        })
    }
}
