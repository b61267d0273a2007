//! Several bootstraps of one value: for wide ranges, and for more precision.
//!
//! What a bootstrap got wrong is known, encrypted: the input minus the output.
//! It is small, and bootstrapped again in its own range it corrects the first
//! result (Bae, Cheon, Cho, Kim, Kim, CCS 2022).

use super::Bootstrap;
use crate::accel::Accelerator;
use crate::ckks::{Ciphertext, Error, KeySource, ParameterField};

/// Widest range: slots below 2^20.
pub const MAX_RANGE_BITS: u32 = 20;

/// Bits that one bootstrap gets right of a value within ±1, to be on the safe side.
const SURE_BITS: u32 = 12;

/// The error of the first bootstrap is enlarged by this many bits for the second.
const GAIN_BITS: u32 = 10;

impl<A: Accelerator, K: KeySource<A> + ?Sized> Bootstrap<'_, A, K> {
    /// [`Bootstrap::refresh`] of slots within ±2^`range_bits` in both parts, to
    /// the same absolute error as that of slots within ±1: one bootstrap, and
    /// one more for every twelve bits of range. x is one level above the floor
    /// at least.
    ///
    /// # Errors
    /// [`Error::Parameter`] beyond [`MAX_RANGE_BITS`], [`Error::LevelsExhausted`].
    pub fn refresh_wide(&self, x: &Ciphertext<A>, range_bits: u32) -> Result<Ciphertext<A>, Error> {
        if range_bits > MAX_RANGE_BITS {
            let field = ParameterField::RangeBits;
            return Err(Error::Parameter { field, given: range_bits, min: 0, max: MAX_RANGE_BITS });
        }
        let (ev, mut bits) = (&self.evaluator, range_bits);
        let (x, floor) = self.above_floor(x)?;
        let mut rest = x.duplicate(ev.accelerator)?;
        let mut total = None;
        loop {
            let small = self.scaled(&rest, 1.0 / (1u32 << bits) as f64, floor)?;
            let mut part = self.refresh(&small)?;
            ev.multiply_integer_assign(&mut part, 1 << bits)?;
            let sum = match total.take() {
                None => part,
                Some(mut sum) => {
                    ev.add_assign(&mut sum, &part)?;
                    sum
                }
            };
            if bits == 0 {
                return Ok(sum);
            }
            rest = x.duplicate(ev.accelerator)?;
            ev.sub_assign(&mut rest, &ev.drop_to(&sum, x.level())?)?;
            total = Some(sum);
            bits = bits.saturating_sub(SURE_BITS);
        }
    }

    /// [`Bootstrap::refresh`] with an error smaller by up to ten bits, as far as
    /// the scale allows; two bootstraps and one level. x is at the floor at least.
    ///
    /// # Errors
    /// [`Error::LevelsExhausted`].
    pub fn refresh_precise(&self, x: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        let (ev, floor) = (&self.evaluator, self.plan.floor());
        let y = self.refresh(x)?;
        let mut rest = ev.drop_to(x, floor)?;
        ev.sub_assign(&mut rest, &ev.drop_to(&y, floor)?)?;
        ev.multiply_integer_assign(&mut rest, 1 << GAIN_BITS)?;
        let error = self.refresh(&rest)?;
        let mut sum = ev.product(y.level())?;
        ev.multiply_constant_add(&mut sum, &y, 1.0)?;
        ev.multiply_constant_add(&mut sum, &error, 1.0 / (1u32 << GAIN_BITS) as f64)?;
        ev.rescale(sum)
    }

    /// x where one constant can still be multiplied before SlotToCoeff.
    fn above_floor(&self, x: &Ciphertext<A>) -> Result<(Ciphertext<A>, usize), Error> {
        let floor = self.plan.floor();
        if x.level() <= floor {
            return Err(Error::LevelsExhausted { have: x.level(), need: floor + 1 });
        }
        Ok((self.evaluator.drop_to(x, floor + 1)?, floor))
    }

    fn scaled(&self, x: &Ciphertext<A>, factor: f64, level: usize) -> Result<Ciphertext<A>, Error> {
        let mut product = self.evaluator.product(level + 1)?;
        self.evaluator.multiply_constant_add(&mut product, x, factor)?;
        self.evaluator.rescale(product)
    }
}
