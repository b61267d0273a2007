//! A polynomial over a basis, its form known to the type system.

use super::{Accelerator, Error, check};
use crate::ring::{Basis, MAX_LIMBS};
use core::marker::PhantomData;

/// Limbs of one polynomial.
pub type Limbs<A> = heapless::Vec<<A as Accelerator>::Limb, MAX_LIMBS>;

/// Allocates `count` limbs with unspecified content.
pub(crate) fn allocate_limbs<A: Accelerator>(accelerator: &A, count: usize) -> Result<Limbs<A>, Error> {
    let mut limbs = Limbs::<A>::new();
    for _ in 0..count {
        limbs.push(accelerator.allocate()?).map_err(|_| Error::Shape { have: MAX_LIMBS, need: count })?;
    }
    Ok(limbs)
}

/// Coefficients, in natural order.
pub enum Coefficients {}
/// Evaluations at odd powers of ψ, in bit-reversed order.
pub enum Evaluations {}

/// The two forms; sealed.
pub trait Form: sealed::Sealed + Send + Sync {}
impl Form for Coefficients {}
impl Form for Evaluations {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Coefficients {}
    impl Sealed for super::Evaluations {}
}

/// A polynomial in an accelerator's memory. Mixing forms does not compile;
/// mixing bases is an error.
pub struct Polynomial<A: Accelerator, F: Form> {
    basis: Basis,
    limbs: Limbs<A>,
    form: PhantomData<F>,
}

impl<A: Accelerator, F: Form> Polynomial<A, F> {
    /// With unspecified content.
    pub fn allocate(accelerator: &A, basis: Basis) -> Result<Self, Error> {
        if !basis.fits(accelerator.chain()) {
            return Err(Error::Shape { have: accelerator.chain().moduli().len(), need: basis.len() });
        }
        Ok(Self { basis, limbs: allocate_limbs(accelerator, basis.len())?, form: PhantomData })
    }

    /// All zero.
    pub fn zero(accelerator: &A, basis: Basis) -> Result<Self, Error> {
        let mut polynomial = Self::allocate(accelerator, basis)?;
        accelerator.clear(&mut polynomial.limbs)?;
        Ok(polynomial)
    }

    /// From limbs already filled in.
    pub fn from_limbs(basis: Basis, limbs: Limbs<A>) -> Result<Self, Error> {
        check(basis.len(), limbs.len())?;
        Ok(Self { basis, limbs, form: PhantomData })
    }

    /// A copy.
    pub fn duplicate(&self, accelerator: &A) -> Result<Self, Error> {
        self.duplicate_to(accelerator, self.basis)
    }

    /// A copy of the limbs that `basis` names; it must be a part of this basis.
    pub fn duplicate_to(&self, accelerator: &A, basis: Basis) -> Result<Self, Error> {
        let mut copy = Self::allocate(accelerator, basis)?;
        let misfit = Error::Shape { have: self.basis.len(), need: basis.len() };
        let (ordinary, special) = self.limbs.split_at(self.basis.ordinary());
        let special = special.get(..basis.special()).ok_or(misfit)?;
        let (of_ordinary, of_special) = copy.limbs.split_at_mut(basis.ordinary());
        if !of_ordinary.is_empty() {
            let first = basis.start().checked_sub(self.basis.start()).ok_or(misfit)?;
            let run = ordinary.get(first..first + basis.ordinary()).ok_or(misfit)?;
            accelerator.copy(of_ordinary, run)?;
        }
        if !of_special.is_empty() {
            accelerator.copy(of_special, special)?;
        }
        Ok(copy)
    }

    /// Which primes.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    /// The limbs, in basis order.
    pub fn limbs(&self) -> &[A::Limb] {
        &self.limbs
    }

    /// The limbs, in basis order.
    pub fn limbs_mut(&mut self) -> &mut [A::Limb] {
        &mut self.limbs
    }

    /// Gives back every limb beyond `basis`, which must be a prefix of this one.
    pub fn truncate(&mut self, basis: Basis) -> Result<(), Error> {
        if basis.len() > self.basis.len() || basis.start() != self.basis.start() {
            return Err(Error::Shape { have: self.basis.len(), need: basis.len() });
        }
        self.limbs.truncate(basis.len());
        self.basis = basis;
        Ok(())
    }

    /// self += other.
    pub fn add_assign(&mut self, accelerator: &A, other: &Self) -> Result<(), Error> {
        self.same_basis(other)?;
        accelerator.add_assign(self.basis, &mut self.limbs, &other.limbs)
    }

    /// self −= other.
    pub fn sub_assign(&mut self, accelerator: &A, other: &Self) -> Result<(), Error> {
        self.same_basis(other)?;
        accelerator.sub_assign(self.basis, &mut self.limbs, &other.limbs)
    }

    /// self = −self.
    pub fn negate_assign(&mut self, accelerator: &A) -> Result<(), Error> {
        accelerator.negate_assign(self.basis, &mut self.limbs)
    }

    /// self = s·self, one canonical scalar per limb.
    pub fn multiply_scalar_assign(&mut self, accelerator: &A, s: &[u64]) -> Result<(), Error> {
        accelerator.multiply_scalar_assign(self.basis, &mut self.limbs, s)
    }

    /// self += s·other, one canonical scalar per limb.
    pub fn multiply_scalar_add(&mut self, accelerator: &A, other: &Self, s: &[u64]) -> Result<(), Error> {
        self.same_basis(other)?;
        accelerator.multiply_scalar_add(self.basis, &mut self.limbs, &other.limbs, s)
    }

    fn same_basis<G: Form>(&self, other: &Polynomial<A, G>) -> Result<(), Error> {
        if self.basis == other.basis {
            Ok(())
        } else {
            Err(Error::Shape { have: other.basis.len(), need: self.basis.len() })
        }
    }
}

impl<A: Accelerator> Polynomial<A, Coefficients> {
    /// From N signed integers below 2^62 in magnitude.
    pub fn from_signed(accelerator: &A, basis: Basis, source: &[i64]) -> Result<Self, Error> {
        let mut polynomial = Self::allocate(accelerator, basis)?;
        accelerator.write_signed(basis, &mut polynomial.limbs, source)?;
        Ok(polynomial)
    }

    /// To evaluation form.
    pub fn into_evaluations(mut self, accelerator: &A) -> Result<Polynomial<A, Evaluations>, Error> {
        accelerator.ntt_forward(self.basis, &mut self.limbs)?;
        Ok(Polynomial { basis: self.basis, limbs: self.limbs, form: PhantomData })
    }
}

impl<A: Accelerator> Polynomial<A, Evaluations> {
    /// To coefficient form.
    pub fn into_coefficients(mut self, accelerator: &A) -> Result<Polynomial<A, Coefficients>, Error> {
        accelerator.ntt_inverse(self.basis, &mut self.limbs)?;
        Ok(Polynomial { basis: self.basis, limbs: self.limbs, form: PhantomData })
    }

    /// self = self ⊙ other.
    pub fn multiply_assign(&mut self, accelerator: &A, other: &Self) -> Result<(), Error> {
        self.same_basis(other)?;
        accelerator.multiply_assign(self.basis, &mut self.limbs, &other.limbs)
    }

    /// self += x ⊙ y.
    pub fn multiply_add(&mut self, accelerator: &A, x: &Self, y: &Self) -> Result<(), Error> {
        self.same_basis(x)?;
        self.same_basis(y)?;
        accelerator.multiply_add(self.basis, &mut self.limbs, &x.limbs, &y.limbs)
    }

    /// X → X^galois.
    pub fn automorphism(&self, accelerator: &A, galois: usize) -> Result<Self, Error> {
        let mut image = Self::allocate(accelerator, self.basis)?;
        accelerator.automorphism(self.basis, &mut image.limbs, &self.limbs, galois)?;
        Ok(image)
    }
}
