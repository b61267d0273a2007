//! Owners that leave nothing secret behind.

use crate::accel::{Evaluations, Limbs, Polynomial, Trusted};
use crate::ckks::Error;
use crate::ring::Basis;
use zeroize::Zeroize;

/// A polynomial whose limbs are cleared before they go back to the pool.
pub(super) struct Guarded<'a, A: Trusted> {
    accelerator: &'a A,
    polynomial: Polynomial<A, Evaluations>,
}

impl<'a, A: Trusted> Guarded<'a, A> {
    pub(super) fn allocate(accelerator: &'a A, basis: Basis) -> Result<Self, Error> {
        Ok(Self { accelerator, polynomial: Polynomial::allocate(accelerator, basis)? })
    }

    /// Small signed coefficients, transformed.
    pub(super) fn from_signed(accelerator: &'a A, basis: Basis, source: &[i64]) -> Result<Self, Error> {
        let mut this = Self::allocate(accelerator, basis)?;
        accelerator.write_signed(basis, this.limbs_mut(), source)?;
        accelerator.ntt_forward(basis, this.limbs_mut())?;
        Ok(this)
    }

    pub(super) fn limbs(&self) -> &[A::Limb] {
        self.polynomial.limbs()
    }

    pub(super) fn limbs_mut(&mut self) -> &mut [A::Limb] {
        self.polynomial.limbs_mut()
    }

    pub(super) fn basis(&self) -> Basis {
        self.polynomial.basis()
    }

    /// The polynomial, now that it is masked and may be seen.
    pub(super) fn declassify(mut self) -> Result<Polynomial<A, Evaluations>, Error> {
        let nothing = Polynomial::from_limbs(Basis::new(0, 0, 0), Limbs::<A>::new())?;
        Ok(core::mem::replace(&mut self.polynomial, nothing))
    }
}

impl<A: Trusted> Drop for Guarded<'_, A> {
    fn drop(&mut self) {
        // A failing device is none of ours: a trusted accelerator is this process's memory.
        let _ = self.accelerator.clear(self.polynomial.limbs_mut());
    }
}

/// N words of the caller's scratch, wiped after use.
pub(super) struct Scratch<'s>(&'s mut [i64]);

impl<'s> Scratch<'s> {
    pub(super) fn new(signed: &'s mut [i64], degree: usize) -> Result<Self, Error> {
        let have = signed.len();
        signed.get_mut(..degree).map(Self).ok_or(Error::Length { have, need: degree })
    }

    pub(super) fn get(&mut self) -> &mut [i64] {
        self.0
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
