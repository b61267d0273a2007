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
