//! The client: the only room that can hold a secret.
//!
//! Everything here asks for a [`Trusted`](crate::accel::Trusted) accelerator.
//! Secret polynomials are cleared before their limbs go back to the pool, host
//! scratch is wiped after use, and nothing secret can be cloned or printed.
//!
//! Memory, so that it can be bought beforehand: a secret key holds one limb per
//! prime of the chain. [`SecretKey::encrypt_seeded`] takes level + 2 limbs more
//! and N host words, works in the message's own N coefficients, and leaves
//! level + 1 limbs to be sent. With N = 2^12 and three 30-bit primes in 32-bit
//! words that is 112 KiB of limbs, 96 KiB of tables, and 48 KiB of host memory.
//! The stack stays below 64 KiB.
//!
//! ```
//! use veilformer::accel::Portable;
//! use veilformer::ckks::client::SecretKey;
//! use veilformer::ckks::encoding::Encoder;
//! use veilformer::ckks::{Error, ParametersLiteral};
//! use veilformer::memory::{Arena, LimbPool};
//! use veilformer::ring::{RingTables, SecretSeed};
//!
//! fn round_trip(rng: &mut impl rand_core::CryptoRng) -> Result<f64, Error> {
//!     let parameters = ParametersLiteral::N13_3.check()?;
//!     let (n, level) = (parameters.degree(), parameters.max_level());
//!     let mut memory = vec![0u64; RingTables::<u64>::words_needed(parameters.chain()) + 16 * n];
//!     let mut arena = Arena::new(&mut memory);
//!     let tables = RingTables::new(parameters.chain(), &mut arena)?;
//!     let pool = LimbPool::<u64, 16>::new(&mut arena, n, 16)?;
//!     let accelerator = Portable::new(&tables, &pool)?;
//!     let (mut twiddles, mut scratch) = (vec![0.0; n], vec![0.0; n]);
//!     let encoder = Encoder::new(n, &mut Arena::new(&mut twiddles))?;
//!     let (mut message, mut words) = (vec![0i64; n], vec![0u64; 2 * n]);
//!
//!     let secret = SecretKey::generate(&accelerator, &parameters, SecretSeed::draw(rng), &mut message)?;
//!     encoder.encode_real(&[0.5, -0.25], parameters.scale(level), &mut scratch, &mut message)?;
//!     let small = secret.encrypt_seeded(level, &mut message, rng, &mut words)?;
//!     let ciphertext = small.expand(&accelerator, &mut words)?;
//!
//!     let mut values = [0.0; 2];
//!     secret.decrypt_coefficients(&ciphertext, &mut words, &mut scratch)?;
//!     encoder.decode_real(&mut scratch, ciphertext.scale(&parameters), &mut values)?;
//!     Ok((values[0] - 0.5).abs().max((values[1] + 0.25).abs()))
//! }
//! # use rand_core::SeedableRng;
//! assert!(round_trip(&mut chacha20::ChaCha20Rng::from_seed([1; 32]))? < 1e-9);
//! # Ok::<(), Error>(())
//! ```

mod encrypt;
mod guard;
mod release;
mod secret;
mod switching;

pub use encrypt::{PublicKey, SECRET_KEY_NOISE, public_key_noise};
pub use release::{MIN_RELEASE_BITS, ReleaseBudget, flood_deviation};
pub use secret::{KeyTag, SecretKey};

#[cfg(test)]
mod tests;
