//! Encoding in 64-bit fixed point: no floating point anywhere, in place.
//!
//! Values are I4F60: slots of at most 4 in either part, so of magnitude at
//! most 4·√2 < 8 throughout, since every stage averages on the way to
//! coefficients and evaluates a part of the same polynomial on the way back.
//! Larger data is encoded as value/2^r at the scale 2^r times as large.
//!
//! Against [`super::Encoder`], tested up to N = 2^13: coefficients at scale
//! 2^45 differ by one at most, and in fewer than one of twenty; decoded slots
//! differ by less than 2^−48, most of which is the other's.

use super::embedding::{Embedding, Real};
use super::float::{at_most, length};
use crate::ckks::Error;
use crate::memory::{Arena, OutOfMemory};
use fixed::traits::ToFixed;
use fixed::types::{I4F60, U50F14};

/// A slot's real or imaginary part.
pub type SlotValue = I4F60;

/// A scale below 2^50, to 14 binary places. A power of two is exact, so a
/// device that encodes at the top level needs no floating point.
pub type Scale = U50F14;

/// Largest magnitude of a part of a slot.
const LIMIT: SlotValue = I4F60::const_from_int(4);

#[derive(Clone, Copy)]
pub(super) struct Fixed(I4F60);

impl Real for Fixed {
    type Word = i64;
    #[inline(always)]
    fn load(word: i64) -> Self {
        Self(I4F60::from_bits(word))
    }
    #[inline(always)]
    fn store(self) -> i64 {
        self.0.to_bits()
    }
    #[inline(always)]
    fn plus(self, y: Self) -> Self {
        Self(self.0.wrapping_add(y.0))
    }
    #[inline(always)]
    fn minus(self, y: Self) -> Self {
        Self(self.0.wrapping_sub(y.0))
    }
    #[inline(always)]
    fn times(self, y: Self) -> Self {
        // Rounded: what is cut off every time would add up in the slots.
        let product = self.0.to_bits() as i128 * y.0.to_bits() as i128;
        Self(I4F60::from_bits(((product + (1 << 59)) >> 60) as i64))
    }
    #[inline(always)]
    fn shrink(self) -> Self {
        Self(self.0 >> 1)
    }
    // Taylor series in Horner's form; at π/4 the first term left out is below 2^−68.
    fn octant(numerator: u32, log_order: u32) -> (Self, Self) {
        let half_turns = I4F60::from_bits((numerator as i64) << (61 - log_order));
        let x = I4F60::PI * half_turns;
        let square = x * x;
        let (mut cosine, mut sine) = (I4F60::ONE, I4F60::ONE);
        for k in (1..=9i64).rev() {
            cosine = I4F60::ONE - square * cosine / ((2 * k - 1) * 2 * k);
            sine = I4F60::ONE - square * sine / (2 * k * (2 * k + 1));
        }
        (Self(cosine), Self(sine * x))
    }
    #[inline(always)]
    fn negate(self) -> Self {
        Self(self.0.wrapping_neg())
    }
}

/// As [`super::Encoder`], in fixed point and without scratch.
pub struct FixedEncoder<'a> {
    embedding: Embedding<'a, Fixed>,
}

impl<'a> FixedEncoder<'a> {
    /// `i64`s taken from the arena: N.
    pub const fn words_needed(degree: usize) -> usize {
        degree
    }

    /// Computes the twiddles of `degree`.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small; `need` is `usize::MAX`
    /// unless `degree` is a power of two from 4 to 2^17.
    pub fn new(degree: usize, arena: &mut Arena<'a, i64>) -> Result<Self, OutOfMemory> {
        Ok(Self { embedding: Embedding::new(degree, arena)? })
    }

    /// N/2.
    pub fn slots(&self) -> usize {
        self.embedding.slots()
    }

    /// Coefficients of the polynomial whose slot j is `scale`·`slot`(j),
    /// rounded; `slot` gives real and imaginary part.
    ///
    /// # Errors
    /// [`Error::NotEncodable`] with the first slot that has a part above 4 in
    /// magnitude; [`Error::Length`] unless there are N coefficients.
    pub fn encode_with(
        &self,
        slot: impl Fn(usize) -> (SlotValue, SlotValue),
        scale: Scale,
        coefficients: &mut [i64],
    ) -> Result<(), Error> {
        let slots = self.slots();
        length(coefficients.len(), 2 * slots)?;
        let (re, im) = coefficients.split_at_mut(slots);
        for (j, (re, im)) in re.iter_mut().zip(im.iter_mut()).enumerate() {
            let (x, y) = slot(j);
            if x < -LIMIT || x > LIMIT || y < -LIMIT || y > LIMIT {
                return Err(Error::NotEncodable { index: j });
            }
            (*re, *im) = (x.to_bits(), y.to_bits());
        }
        self.embedding.interpolate(re, im);
        for value in coefficients {
            let product = *value as i128 * scale.to_bits() as i128;
            *value = ((product + (1 << 73)) >> 74) as i64;
        }
        Ok(())
    }

    /// Encodes real `values` of any fixed-point or integer type into the first
    /// slots; the others are zero.
    ///
    /// # Errors
    /// As [`FixedEncoder::encode_with`]; [`Error::Length`] for more values than slots.
    pub fn encode_real<T: ToFixed + Copy>(
        &self,
        values: &[T],
        scale: Scale,
        coefficients: &mut [i64],
    ) -> Result<(), Error> {
        at_most(values.len(), self.slots())?;
        let slot = |j| {
            let value =
                values.get(j).map(|v: &T| v.checked_to_fixed::<SlotValue>().unwrap_or(SlotValue::MAX));
            (value.unwrap_or(SlotValue::ZERO), SlotValue::ZERO)
        };
        self.encode_with(slot, scale, coefficients)
    }

    /// Slots of `coefficients`/`scale`: afterwards the first half holds the
    /// bits of all real parts, the second of all imaginary parts
    /// ([`SlotValue::from_bits`]). Slots above 4·√2 in magnitude come out wrong.
    ///
    /// # Errors
    /// [`Error::NotEncodable`] with the first coefficient that is 8·`scale` or
    /// more; [`Error::Length`] unless there are N.
    pub fn decode_in_place(&self, coefficients: &mut [i64], scale: Scale) -> Result<(), Error> {
        length(coefficients.len(), 2 * self.slots())?;
        let divisor = scale.to_bits().max(1) as i128;
        for (index, value) in coefficients.iter_mut().enumerate() {
            if (value.unsigned_abs() as u128) << 11 >= divisor as u128 {
                return Err(Error::NotEncodable { index });
            }
            *value = (((*value as i128) << 74) / divisor) as i64;
        }
        let (re, im) = coefficients.split_at_mut(self.slots());
        self.embedding.evaluate(re, im);
        Ok(())
    }

    /// The real parts of the first slots, as many as `values` holds. The
    /// coefficients are overwritten.
    ///
    /// # Errors
    /// As [`FixedEncoder::decode_in_place`]; [`Error::Length`] for more values than slots.
    pub fn decode_real(
        &self,
        coefficients: &mut [i64],
        scale: Scale,
        values: &mut [SlotValue],
    ) -> Result<(), Error> {
        at_most(values.len(), self.slots())?;
        self.decode_in_place(coefficients, scale)?;
        for (value, bits) in values.iter_mut().zip(coefficients) {
            *value = SlotValue::from_bits(*bits);
        }
        Ok(())
    }
}
