//! Between lanes and coefficients.

use super::{Error, Lanes};

impl Lanes {
    /// cos(π(2·lane + 1)·power/k): the real part of lane `lane` of Z^power.
    fn cosine(&self, lane: usize, power: usize) -> f64 {
        let k = 2 * self.count();
        let eighths = (2 * lane + 1) * power % (2 * k);
        libm::cos(core::f64::consts::PI * eighths as f64 / k as f64)
    }

    /// One row at a scale: values\[lane·d + t\] is the entry t of a lane; lanes
    /// that are left out are zero. `work` is scratch of N values, `coefficients`
    /// gets N.
    ///
    /// # Errors
    /// [`Error::Length`]; [`Error::NotEncodable`] with the index of a coefficient.
    pub fn encode(
        &self,
        values: &[f64],
        scale: f64,
        work: &mut [f64],
        coefficients: &mut [i64],
    ) -> Result<(), Error> {
        let given = values.len() / self.width;
        if given > self.count() || !values.len().is_multiple_of(self.width) {
            return Err(Error::Length { have: values.len(), need: self.width * self.count() });
        }
        for have in [work.len(), coefficients.len()] {
            super::check_rows(self.degree, have)?;
        }
        // The values at the k roots are real, so conjugate roots add up to cosines.
        let factor = scale / self.count() as f64;
        for (power, column) in work.chunks_exact_mut(self.width).enumerate() {
            column.fill(0.0);
            for (lane, values) in values.chunks_exact(self.width).enumerate() {
                let cosine = factor * self.cosine(lane, power);
                column.iter_mut().zip(values).for_each(|(sum, value)| *sum += cosine * value);
            }
        }
        for (index, (coefficient, value)) in coefficients.iter_mut().zip(work).enumerate() {
            if !value.is_finite() || value.abs() >= (1u64 << 61) as f64 {
                return Err(Error::NotEncodable { index });
            }
            *coefficient = libm::round(*value) as i64;
        }
        Ok(())
    }

    /// The real parts of the first lanes of N decrypted coefficients at a
    /// scale, as many as `values` has room for, in the order of [`Lanes::encode`].
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn decode(&self, coefficients: &[f64], scale: f64, values: &mut [f64]) -> Result<(), Error> {
        if values.len() > self.width * self.count() || !values.len().is_multiple_of(self.width) {
            return Err(Error::Length { have: values.len(), need: self.width * self.count() });
        }
        super::check_rows(self.degree, coefficients.len())?;
        for (lane, values) in values.chunks_exact_mut(self.width).enumerate() {
            values.fill(0.0);
            for (power, column) in coefficients.chunks_exact(self.width).enumerate() {
                let cosine = self.cosine(lane, power) / scale;
                values.iter_mut().zip(column).for_each(|(sum, value)| *sum += cosine * value);
            }
        }
        Ok(())
    }

    /// e_h(Z) at a scale, h = `lane`: one in this lane and zero in the others, so
    /// that a product with it takes the lane out of a row or puts it there.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are N coefficients and such a lane,
    /// [`Error::NotEncodable`].
    pub fn idempotent(&self, lane: usize, scale: f64, coefficients: &mut [i64]) -> Result<(), Error> {
        super::check_rows(self.degree, coefficients.len())?;
        if lane >= self.count() {
            return Err(Error::Length { have: lane, need: self.count() });
        }
        if !scale.is_finite() || scale.abs() >= (1u64 << 61) as f64 {
            return Err(Error::NotEncodable { index: 0 });
        }
        coefficients.fill(0);
        let factor = scale / self.count() as f64;
        for (power, column) in coefficients.chunks_exact_mut(self.width).enumerate() {
            column[0] = libm::round(factor * self.cosine(lane, power)) as i64;
        }
        Ok(())
    }
}
