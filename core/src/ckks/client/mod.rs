//! The client: the only room that can hold a secret.
//!
//! Everything here asks for a [`Trusted`](crate::accel::Trusted) accelerator.
//! Secret polynomials are cleared before their limbs go back to the pool, host
//! scratch is wiped after use, and nothing secret can be cloned or printed.

mod encrypt;
mod guard;
mod release;
mod secret;
mod switching;

pub use encrypt::PublicKey;
pub use release::{MIN_RELEASE_BITS, ReleaseBudget, flood_deviation};
pub use secret::{KeyTag, SecretKey};

#[cfg(test)]
mod tests;
