//! What travels between the roles.

use super::{Error, Parameters};
use crate::accel::{Accelerator, Evaluations, Polynomial};
use crate::ring::Basis;

/// An encoded message at the scale of its level, evaluation form.
pub struct Plaintext<A: Accelerator> {
    pub(crate) polynomial: Polynomial<A, Evaluations>,
}

impl<A: Accelerator> Plaintext<A> {
    /// From an encoded polynomial over Q_level (or Q_level ∪ P for a
    /// double-hoisted transform) at the scale of `level`.
    pub fn from_polynomial(polynomial: Polynomial<A, Evaluations>) -> Self {
        Self { polynomial }
    }

    /// The polynomial.
    pub fn polynomial(&self) -> &Polynomial<A, Evaluations> {
        &self.polynomial
    }

    /// Its level.
    pub fn level(&self) -> usize {
        self.polynomial.basis().ordinary() - 1
    }
}

/// (c0, c1) with c0 + c1·s ≈ scale(level)·m. The scale is a function of the
/// level and never set by a caller.
pub struct Ciphertext<A: Accelerator> {
    pub(crate) parts: [Polynomial<A, Evaluations>; 2],
}

impl<A: Accelerator> Ciphertext<A> {
    /// From its two polynomials over the same Q_level.
    ///
    /// # Errors
    /// [`Error::Length`] when the bases are not one Q_level.
    pub fn from_parts(parts: [Polynomial<A, Evaluations>; 2]) -> Result<Self, Error> {
        let basis = parts[0].basis();
        if basis.is_empty() || basis != Basis::level(basis.len() - 1) || parts[1].basis() != basis {
            return Err(Error::Length { have: parts[1].basis().len(), need: basis.len() });
        }
        Ok(Self { parts })
    }

    /// An encryption of zero without any noise, for sums and as a buffer.
    ///
    /// # Errors
    /// [`Error::Accelerator`] when limbs run out, or the chain has no such level.
    pub fn zero(accelerator: &A, level: usize) -> Result<Self, Error> {
        let zero = || Polynomial::zero(accelerator, Basis::level(level));
        Ok(Self { parts: [zero()?, zero()?] })
    }

    /// The level: 0 to L.
    pub fn level(&self) -> usize {
        self.parts[0].basis().len() - 1
    }

    /// The limbs of both parts modulo Q_level, a level that it has.
    pub(crate) fn limbs_at(&self, level: usize) -> [&[A::Limb]; 2] {
        self.parts.each_ref().map(|part| &part.limbs()[..=level])
    }

    /// The scale of its message.
    pub fn scale(&self, parameters: &Parameters) -> f64 {
        parameters.scale(self.level())
    }

    /// c0 and c1.
    pub fn parts(&self) -> &[Polynomial<A, Evaluations>; 2] {
        &self.parts
    }

    /// A copy.
    ///
    /// # Errors
    /// [`Error::Accelerator`] when limbs run out.
    pub fn duplicate(&self, accelerator: &A) -> Result<Self, Error> {
        let [c0, c1] = &self.parts;
        Ok(Self { parts: [c0.duplicate(accelerator)?, c1.duplicate(accelerator)?] })
    }
}

/// A sum of products: scale(level)², degree one or two, neither
/// relinearised nor rescaled yet, so that sums pay for both only once.
pub struct Product<A: Accelerator> {
    pub(crate) parts: [Polynomial<A, Evaluations>; 2],
    pub(crate) square: Option<Polynomial<A, Evaluations>>,
}

impl<A: Accelerator> Product<A> {
    /// The level of the factors.
    pub fn level(&self) -> usize {
        self.parts[0].basis().len() - 1
    }

    /// Whether it must be relinearised.
    pub fn is_quadratic(&self) -> bool {
        self.square.is_some()
    }
}
