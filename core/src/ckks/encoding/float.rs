//! Encoding in double precision.

use super::embedding::{Embedding, Real};
use crate::ckks::Error;
use crate::memory::{Arena, OutOfMemory};

impl Real for f64 {
    type Word = f64;
    #[inline(always)]
    fn load(word: f64) -> f64 {
        word
    }
    #[inline(always)]
    fn store(self) -> f64 {
        self
    }
    #[inline(always)]
    fn plus(self, y: f64) -> f64 {
        self + y
    }
    #[inline(always)]
    fn minus(self, y: f64) -> f64 {
        self - y
    }
    #[inline(always)]
    fn times(self, y: f64) -> f64 {
        self * y
    }
    #[inline(always)]
    fn shrink(self) -> f64 {
        self
    }
    fn octant(numerator: u32, log_order: u32) -> (f64, f64) {
        let angle = core::f64::consts::TAU * (numerator as f64 / (1u64 << log_order) as f64);
        (libm::cos(angle), libm::sin(angle))
    }
    #[inline(always)]
    fn negate(self) -> f64 {
        -self
    }
}

/// A complex number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Complex {
    /// Real part.
    pub re: f64,
    /// Imaginary part.
    pub im: f64,
}

impl Complex {
    /// re + i·im.
    pub const fn new(re: f64, im: f64) -> Self {
        Self { re, im }
    }
}

/// Slots to integer coefficients and back.
///
/// Ranges: coefficients below 2^62 in magnitude. The error of a transform is
/// about 2^−52·log2 N of the largest slot.
pub struct Encoder<'a> {
    embedding: Embedding<'a, f64>,
}

impl<'a> Encoder<'a> {
    /// `f64`s taken from the arena, and also the length of the scratch of
    /// [`Encoder::encode`]: N.
    pub const fn words_needed(degree: usize) -> usize {
        degree
    }

    /// Computes the twiddles of `degree`.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small; `need` is `usize::MAX`
    /// unless `degree` is a power of two from 4 to 2^17.
    pub fn new(degree: usize, arena: &mut Arena<'a, f64>) -> Result<Self, OutOfMemory> {
        Ok(Self { embedding: Embedding::new(degree, arena)? })
    }

    /// N/2.
    pub fn slots(&self) -> usize {
        self.embedding.slots()
    }

    /// Coefficients of the polynomial whose slot j is `scale`·`slot`(j), rounded.
    /// `scratch` and `coefficients` have N entries.
    ///
    /// # Errors
    /// [`Error::NotEncodable`] with the first slot that is not finite, or else
    /// the first coefficient of 2^62 or more; [`Error::Length`].
    pub fn encode_with(
        &self,
        slot: impl Fn(usize) -> Complex,
        scale: f64,
        scratch: &mut [f64],
        coefficients: &mut [i64],
    ) -> Result<(), Error> {
        length(coefficients.len(), 2 * self.slots())?;
        self.encode_to(slot, scale, scratch, |k, coefficient| coefficients[k] = coefficient)
    }

    /// The same for a caller that puts the coefficients somewhere itself.
    pub(crate) fn encode_to(
        &self,
        slot: impl Fn(usize) -> Complex,
        scale: f64,
        scratch: &mut [f64],
        mut sink: impl FnMut(usize, i64),
    ) -> Result<(), Error> {
        const BOUND: f64 = (1u64 << 62) as f64;
        let slots = self.slots();
        length(scratch.len(), 2 * slots)?;
        let (re, im) = scratch.split_at_mut(slots);
        for (j, (re, im)) in re.iter_mut().zip(im.iter_mut()).enumerate() {
            let value = slot(j);
            if !(value.re.is_finite() && value.im.is_finite()) {
                return Err(Error::NotEncodable { index: j });
            }
            (*re, *im) = (value.re, value.im);
        }
        self.embedding.interpolate(re, im);
        let factor = scale / slots as f64;
        let mut fits = true;
        for (k, value) in scratch.iter().enumerate() {
            let scaled = value * factor;
            fits &= scaled.abs() < BOUND;
            sink(k, (scaled + 0.5f64.copysign(scaled)) as i64);
        }
        if fits {
            return Ok(());
        }
        let index = scratch.iter().position(|v| (v * factor).abs() >= BOUND || v.is_nan()).unwrap_or(0);
        Err(Error::NotEncodable { index })
    }

    /// For polynomials in X^r with r = N/2/`slots`: one in a ring of degree N/r, whose slots they repeat.
    ///
    /// # Errors
    /// [`Error::Length`] unless `slots` is a power of two from 1 to N/2.
    pub(crate) fn narrow(&self, slots: usize) -> Result<Encoder<'_>, Error> {
        at_most(slots, self.slots())?;
        if !slots.is_power_of_two() {
            return Err(Error::Length { have: slots, need: slots.next_power_of_two() });
        }
        Ok(Encoder { embedding: self.embedding.narrow(slots) })
    }

    /// Encodes `values` into the first slots; the others are zero.
    ///
    /// # Errors
    /// As [`Encoder::encode_with`]; [`Error::Length`] for more values than slots.
    pub fn encode(
        &self,
        values: &[Complex],
        scale: f64,
        scratch: &mut [f64],
        coefficients: &mut [i64],
    ) -> Result<(), Error> {
        at_most(values.len(), self.slots())?;
        self.encode_with(|j| values.get(j).copied().unwrap_or_default(), scale, scratch, coefficients)
    }

    /// Encodes real `values` into the first slots; the others are zero.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_real(
        &self,
        values: &[f64],
        scale: f64,
        scratch: &mut [f64],
        coefficients: &mut [i64],
    ) -> Result<(), Error> {
        at_most(values.len(), self.slots())?;
        let slot = |j| Complex::new(values.get(j).copied().unwrap_or(0.0), 0.0);
        self.encode_with(slot, scale, scratch, coefficients)
    }

    /// Encodes `values`, a power of two of them, over and over: only every
    /// (slots/len)-th coefficient differs from zero.
    ///
    /// # Errors
    /// As [`Encoder::encode`]; [`Error::Length`] unless the length is a power of two.
    pub fn encode_periodic(
        &self,
        values: &[Complex],
        scale: f64,
        scratch: &mut [f64],
        coefficients: &mut [i64],
    ) -> Result<(), Error> {
        let degree = 2 * self.slots();
        length(scratch.len(), degree)?;
        length(coefficients.len(), degree)?;
        let narrow = self.narrow(values.len())?;
        coefficients.fill(0);
        let (width, repeat) = (2 * values.len(), self.slots() / values.len());
        narrow.encode_to(|j| values[j], scale, &mut scratch[..width], |k, c| coefficients[repeat * k] = c)
    }

    /// Slots of `coefficients`/`scale`. The coefficients are overwritten;
    /// afterwards the first half holds all real parts, the second all
    /// imaginary parts.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are N coefficients.
    pub fn decode_in_place(&self, coefficients: &mut [f64], scale: f64) -> Result<(), Error> {
        length(coefficients.len(), 2 * self.slots())?;
        let factor = 1.0 / scale;
        for value in &mut *coefficients {
            *value *= factor;
        }
        let (re, im) = coefficients.split_at_mut(self.slots());
        self.embedding.evaluate(re, im);
        Ok(())
    }

    /// The first slots of `coefficients`/`scale`, as many as `values` holds.
    /// The coefficients are overwritten.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are N coefficients and at most N/2 values.
    pub fn decode(&self, coefficients: &mut [f64], scale: f64, values: &mut [Complex]) -> Result<(), Error> {
        at_most(values.len(), self.slots())?;
        self.decode_in_place(coefficients, scale)?;
        let (re, im) = coefficients.split_at(self.slots());
        for ((value, &re), &im) in values.iter_mut().zip(re).zip(im) {
            *value = Complex { re, im };
        }
        Ok(())
    }

    /// The real parts of the first slots, as many as `values` holds. The
    /// coefficients are overwritten.
    ///
    /// # Errors
    /// As [`Encoder::decode`].
    pub fn decode_real(&self, coefficients: &mut [f64], scale: f64, values: &mut [f64]) -> Result<(), Error> {
        at_most(values.len(), self.slots())?;
        self.decode_in_place(coefficients, scale)?;
        values.copy_from_slice(&coefficients[..values.len()]);
        Ok(())
    }
}

pub(super) fn length(have: usize, need: usize) -> Result<(), Error> {
    if have == need { Ok(()) } else { Err(Error::Length { have, need }) }
}

pub(super) fn at_most(have: usize, need: usize) -> Result<(), Error> {
    if have <= need { Ok(()) } else { Err(Error::Length { have, need }) }
}
