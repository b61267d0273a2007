//! The server: computes on ciphertexts with public keys only. No type here
//! can hold a secret.
//!
//! Levels go down by one with every rescaling; the scale follows the level.
//! Sums of products are kept as a [`super::Product`] (or, over Q ∪ P, as an
//! [`ExtendedProduct`]) and pay for relinearisation and rescaling once.

mod arithmetic;
pub mod bootstrap;
mod factors;
mod polynomial;
mod rotation;
#[cfg(all(test, feature = "insecure-toy"))]
mod tests;
mod transform;
mod turns;

pub use arithmetic::MAX_TERMS;
pub(crate) use bootstrap::BOOTSTRAP_DEPTH;
pub use factors::FactorScratch;
pub use polynomial::{MAX_DEGREE, chebyshev_depth};
pub use rotation::{Extended, ExtendedProduct, Hoisted};
pub use transform::{BabyGiant, DiagonalSource};
pub use turns::{MAX_TURN_BITS, Turns};

use super::{Ciphertext, Error, KeyId, KeySource, Parameters};
use crate::accel::Accelerator;
use crate::ring::{Basis, MAX_LIMBS, Modulus};

/// Runs the server's operations on an accelerator with a source of keys.
pub struct Evaluator<'a, A: Accelerator, K: KeySource<A> + ?Sized> {
    accelerator: &'a A,
    parameters: &'a Parameters,
    keys: &'a K,
}

// Only references: not derived, as accelerator and keys need not be Copy.
impl<A: Accelerator, K: KeySource<A> + ?Sized> Clone for Evaluator<'_, A, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> Copy for Evaluator<'_, A, K> {}

impl<'a, A: Accelerator, K: KeySource<A> + ?Sized> Evaluator<'a, A, K> {
    /// # Errors
    /// [`Error::OtherChain`] when the accelerator has other primes.
    pub fn new(accelerator: &'a A, parameters: &'a Parameters, keys: &'a K) -> Result<Self, Error> {
        if accelerator.chain() != parameters.chain() {
            return Err(Error::OtherChain);
        }
        Ok(Self { accelerator, parameters, keys })
    }

    /// The accelerator.
    pub fn accelerator(&self) -> &'a A {
        self.accelerator
    }

    /// The parameters.
    pub fn parameters(&self) -> &'a Parameters {
        self.parameters
    }

    /// round(value·scale) modulo every prime of `basis`; `Range` beyond 2^120.
    pub(crate) fn scalars(
        &self,
        basis: Basis,
        value: f64,
        scale: f64,
    ) -> Result<heapless::Vec<u64, MAX_LIMBS>, Error> {
        let scaled = libm::round(value * scale);
        if !scaled.is_finite() || scaled.abs() >= (1u128 << 120) as f64 {
            return Err(Error::NotEncodable { index: 0 });
        }
        let magnitude = scaled.abs() as u128;
        let residue = |m: &Modulus| {
            let r = (magnitude % m.value() as u128) as u64;
            if scaled < 0.0 { m.negate(r) } else { r }
        };
        Ok(self.parameters.chain().of(basis).map(residue).collect())
    }

    /// The key `id`, whatever the source holds at `level` or above.
    pub(crate) fn key(&self, id: KeyId, level: usize) -> Result<K::Held<'a>, Error> {
        let key = self.keys.key(id, level)?;
        if key.level() < level || key.id() != id {
            return Err(Error::MissingKey { id, level });
        }
        Ok(key)
    }

    /// That the key is there, without loading it.
    pub(crate) fn check_key(&self, id: KeyId, level: usize) -> Result<(), Error> {
        self.keys.check(id, level)
    }

    /// P modulo q_0 … q_level.
    fn special_product(&self, level: usize) -> heapless::Vec<u64, MAX_LIMBS> {
        let chain = self.parameters.chain();
        let special = Basis::new(0, 0, chain.special());
        chain.of(Basis::level(level)).map(|m| chain.product_mod(special, m)).collect()
    }
}

fn same_level<A: Accelerator>(x: &Ciphertext<A>, y: usize) -> Result<usize, Error> {
    if x.level() == y { Ok(y) } else { Err(Error::Level { have: y, need: x.level() }) }
}
