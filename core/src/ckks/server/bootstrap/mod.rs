//! Bootstrapping: a ciphertext at the bottom becomes one with levels again.
//!
//! Slots go into coefficients first, where there is little modulus and
//! everything is cheap. Then the modulus is raised, which adds a multiple of
//! q_0 to every coefficient, the coefficients come into slots, and a polynomial
//! close to x mod q_0 takes the multiples away:
//!
//! ```text
//! slots, level ≥ 3 ──SlotToCoeff──► coefficients, level 0 ──ModRaise──► m + q_0·I, top level
//!   ──CoeffToSlot──► two real ciphertexts ──EvalMod──► level L ──► re + i·im, level L
//! ```
//!
//! - The modulus is raised under an ephemeral sparse secret, so that |I| ≤ 16,
//!   always; that secret is used modulo q_0 and one special prime only
//!   (Bossuat, Troncoso-Pastoriza, Hubaux, ACNS 2022).
//! - x mod 1 is sin(2πx)/2π near the integers; the sine is a Chebyshev series
//!   of a slower one, then twice the double angle (Han, Ki, CT-RSA 2020).
//! - The messages must be within ±1. The sine's error is (2π/2^ratio)²/24 at
//!   most, and after an arcsine (2π/2^ratio)⁴/200.

mod constants;
mod eval_mod;
mod fourier;
mod iterate;
mod plan;
mod raise;
#[cfg(all(test, feature = "insecure-toy"))]
mod tests;

pub use iterate::MAX_RANGE_BITS;
pub use plan::BootstrapPlan;

use super::{Evaluator, ExtendedProduct};
use crate::accel::Accelerator;
use crate::ckks::{Ciphertext, Error, KeyRequests, KeySource};
use crate::ring::Basis;
use fourier::{Direction, Stage};

/// K: the multiple of q_0 in a raised coefficient is at most this.
const MULTIPLES: u32 = 16;
/// What is subtracted from m/q_0 + I: a quarter turns the last cosine into a sine.
const SHIFT: f64 = 0.25;
/// Bound on |m/q_0 + I − SHIFT|, with room for m.
const RANGE: f64 = MULTIPLES as f64 + SHIFT + 1.0 / 64.0;
/// Degree of the Chebyshev series.
const SERIES_DEGREE: usize = 55;
/// Levels of the Chebyshev series.
const SERIES_DEPTH: usize = 6;
/// Applications of the double-angle formula.
const DOUBLE_ANGLES: usize = 2;
/// Levels of EvalMod up to the sine.
pub(crate) const BOOTSTRAP_DEPTH: u32 = (SERIES_DEPTH + DOUBLE_ANGLES) as u32;
/// Bootstraps with an evaluator's accelerator and keys.
pub struct Bootstrap<'a, A: Accelerator, K: KeySource<A> + ?Sized> {
    evaluator: Evaluator<'a, A, K>,
    plan: BootstrapPlan,
    constants: &'a [A::Limb],
}

impl<'a, A: Accelerator, K: KeySource<A> + ?Sized> Bootstrap<'a, A, K> {
    /// With the constants that [`BootstrapPlan::prepare`] made. Every key is
    /// looked up before any work.
    ///
    /// # Errors
    /// [`Error::MissingKey`] names the first one; [`Error::Length`] for other
    /// constants; those of [`BootstrapPlan::new`].
    pub fn new(evaluator: Evaluator<'a, A, K>, constants: &'a [A::Limb]) -> Result<Self, Error> {
        let plan = BootstrapPlan::new(evaluator.parameters)?;
        if constants.len() != plan.limbs() {
            return Err(Error::Length { have: constants.len(), need: plan.limbs() });
        }
        let mut keys = KeyRequests::new();
        plan.required_keys(evaluator.parameters, &mut keys)?;
        keys.iter().try_for_each(|request| evaluator.keys.check(request.id, request.level))?;
        Ok(Self { evaluator, plan, constants })
    }

    /// The evaluator.
    pub fn evaluator(&self) -> &Evaluator<'a, A, K> {
        &self.evaluator
    }

    /// The plan.
    pub fn plan(&self) -> &BootstrapPlan {
        &self.plan
    }

    /// The same slots, complex and within ±1 in both parts, at level L. The
    /// level of x is [`BootstrapPlan::floor`] at least.
    ///
    /// # Errors
    /// [`Error::LevelsExhausted`] below that level.
    pub fn refresh(&self, x: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        let [mut re, mut im] = self.refresh_parts(x)?;
        self.multiply_by_i_assign(&mut im)?;
        self.evaluator.add_assign(&mut re, &im)?;
        Ok(re)
    }

    /// As [`Bootstrap::refresh`], the real and the imaginary parts apart.
    ///
    /// # Errors
    /// As there.
    pub fn refresh_parts(&self, x: &Ciphertext<A>) -> Result<[Ciphertext<A>; 2], Error> {
        self.refresh_coefficients(&self.slot_to_coeff(x)?)
    }

    /// As [`Bootstrap::refresh`] for real slots: half of EvalMod is saved.
    ///
    /// # Errors
    /// As there.
    pub fn refresh_real(&self, x: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        self.refresh_lower_coefficients(&self.slot_to_coeff(x)?)
    }

    /// As [`Bootstrap::refresh_coefficients`] where coefficients N/2 and above are zero: half of EvalMod is saved.
    ///
    /// # Errors
    /// As there.
    pub fn refresh_lower_coefficients(&self, x: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        let ev = &self.evaluator;
        let mut sum = self.last_stage(self.raise(x)?)?;
        let copy = sum.duplicate(ev.accelerator)?;
        ev.automorphism_extended_add(&mut sum, copy, self.conjugation())?;
        self.eval_mod(ev.rescale_extended(sum)?)
    }

    /// Two real vectors, as the real and the imaginary part of one: the work of
    /// one bootstrap for both.
    ///
    /// # Errors
    /// As there.
    pub fn refresh_pair(&self, x: &Ciphertext<A>, y: &Ciphertext<A>) -> Result<[Ciphertext<A>; 2], Error> {
        self.refresh_parts(&self.pair(x, y)?)
    }

    /// x + i·y at [`BootstrapPlan::floor`]: two real vectors for one [`Bootstrap::slot_to_coeff`].
    ///
    /// # Errors
    /// [`Error::LevelsExhausted`] below that level.
    pub fn pair(&self, x: &Ciphertext<A>, y: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        let (ev, floor) = (&self.evaluator, self.plan.floor());
        if let Some(have) = [x.level(), y.level()].into_iter().find(|level| *level < floor) {
            return Err(Error::LevelsExhausted { have, need: floor });
        }
        self.combine(&ev.drop_to(x, floor)?, &ev.drop_to(y, floor)?)
    }

    /// x + i·y at the level of both, below [`BootstrapPlan::top`]: for what does the same to two real vectors.
    ///
    /// # Errors
    /// [`Error::Level`] when the levels differ.
    pub fn combine(&self, x: &Ciphertext<A>, y: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        let mut sum = y.duplicate(self.evaluator.accelerator)?;
        self.multiply_by_i_assign(&mut sum)?;
        self.evaluator.add_assign(&mut sum, x)?;
        Ok(sum)
    }

    /// Twice the real and twice the imaginary part.
    ///
    /// # Errors
    /// [`Error::MissingKey`].
    pub fn apart(&self, z: &Ciphertext<A>) -> Result<[Ciphertext<A>; 2], Error> {
        let (ev, mut re) = (&self.evaluator, self.evaluator.conjugate(z)?);
        // z̄ − z = −2i·Im z.
        let mut im = re.duplicate(ev.accelerator)?;
        ev.sub_assign(&mut im, z)?;
        self.multiply_by_i_assign(&mut im)?;
        ev.add_assign(&mut re, z)?;
        Ok([re, im])
    }

    /// From coefficients, as [`Bootstrap::slot_to_coeff`] leaves them: slot
    /// brv(k) of the results holds coefficients k and k + N/2.
    ///
    /// # Errors
    /// [`Error::Level`] above [`BootstrapPlan::coefficient_level`].
    pub fn refresh_coefficients(&self, x: &Ciphertext<A>) -> Result<[Ciphertext<A>; 2], Error> {
        let [re, im] = self.coeff_to_slot(self.raise(x)?)?;
        let re = self.eval_mod(re)?;
        Ok([re, self.eval_mod(im)?])
    }

    /// The slots as coefficients, at [`BootstrapPlan::coefficient_level`]:
    /// coefficient k is the real part of slot brv(k), coefficient k + N/2 its
    /// imaginary part, at the scale
    /// [`BootstrapPlan::message_scale`].
    ///
    /// # Errors
    /// [`Error::LevelsExhausted`] below [`BootstrapPlan::floor`].
    pub fn slot_to_coeff(&self, x: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        let floor = self.plan.floor();
        if x.level() < floor {
            return Err(Error::LevelsExhausted { have: x.level(), need: floor });
        }
        let dropped = self.evaluator.drop_to(x, floor)?;
        self.plan.stages(Direction::SlotToCoeff).try_fold(dropped, |x, stage| {
            let product = self.apply(x, stage)?;
            self.evaluator.rescale_extended(product)
        })
    }

    /// Raised coefficients over RANGE·q_0 in the slots, at the working scale:
    /// slot brv(k) has coefficient k in the first result and k + N/2 in the
    /// second. They are taken apart before the last rescaling, whose noise is
    /// then not doubled.
    ///
    /// # Errors
    /// [`Error::Level`] below the top.
    pub fn coeff_to_slot(&self, x: Ciphertext<A>) -> Result<[Ciphertext<A>; 2], Error> {
        let ev = &self.evaluator;
        let mut re = self.last_stage(x)?;
        let (mut im, copy) = (re.duplicate(ev.accelerator)?, re.duplicate(ev.accelerator)?);
        // z + z̄ = 2·Re z, and (z + z̄ − 2z)·i = 2·Im z.
        ev.automorphism_extended_add(&mut re, copy, self.conjugation())?;
        for (re, im) in re.parts.iter().zip(&mut im.parts) {
            let minus_two = ev.scalars(im.basis(), -2.0, 1.0)?;
            im.multiply_scalar_assign(ev.accelerator, &minus_two)?;
            im.add_assign(ev.accelerator, re)?;
        }
        let re = ev.rescale_extended(re)?;
        let mut im = ev.rescale_extended(im)?;
        self.multiply_by_i_assign(&mut im)?;
        Ok([re, im])
    }

    fn conjugation(&self) -> usize {
        2 * self.evaluator.parameters.degree() - 1
    }

    /// CoeffToSlot up to the rescaling of its last stage.
    fn last_stage(&self, x: Ciphertext<A>) -> Result<ExtendedProduct<A>, Error> {
        if x.level() != self.plan.top() {
            return Err(Error::Level { have: x.level(), need: self.plan.top() });
        }
        let (mut x, mut stages) = (x, self.plan.stages(Direction::CoeffToSlot).peekable());
        while let Some(stage) = stages.next() {
            let product = self.apply(x, stage)?;
            if stages.peek().is_none() {
                return Ok(product);
            }
            x = self.evaluator.rescale_extended(product)?;
        }
        Err(Error::LevelsExhausted { have: 0, need: 1 })
    }

    fn multiply_by_i_assign(&self, x: &mut Ciphertext<A>) -> Result<(), Error> {
        let (basis, first) = (Basis::level(x.level()), self.plan.imaginary());
        let i = &self.constants[first..first + basis.len()];
        for part in &mut x.parts {
            self.evaluator.accelerator.multiply_assign(basis, part.limbs_mut(), i)?;
        }
        Ok(())
    }

    /// One stage, to be rescaled.
    fn apply(&self, x: Ciphertext<A>, stage: &Stage) -> Result<ExtendedProduct<A>, Error> {
        self.evaluator.turn_and_sum(x, &stage.turns, &self.constants[self.plan.place(stage)])
    }
}
