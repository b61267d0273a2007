//! How well a computation did.

/// Bits of precision over a set of values: −log2 of the absolute errors.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PrecisionStats {
    /// Values compared.
    pub count: usize,
    /// Bits of the worst value; −∞ when one is not finite.
    pub min_bits: f64,
    /// Bits averaged over the values, each counted as at most 64.
    pub mean_bits: f64,
    /// Root of the mean square of the errors.
    pub rms_error: f64,
}

impl PrecisionStats {
    /// Compares pairs of (expected, obtained).
    pub fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        let (mut count, mut worst, mut bits, mut squares) = (0usize, 0.0f64, 0.0, 0.0);
        for (expected, obtained) in pairs {
            let error = (expected - obtained).abs();
            let error = if error.is_nan() { f64::INFINITY } else { error };
            count += 1;
            worst = worst.max(error);
            bits += (-libm::log2(error)).min(64.0);
            squares += error * error;
        }
        let n = count.max(1) as f64;
        Self {
            count,
            min_bits: (-libm::log2(worst)).min(64.0),
            mean_bits: bits / n,
            rms_error: libm::sqrt(squares / n),
        }
    }

    /// Compares two slices, as far as the shorter one goes.
    pub fn of_slices(expected: &[f64], obtained: &[f64]) -> Self {
        Self::of(expected.iter().copied().zip(obtained.iter().copied()))
    }
}

impl core::fmt::Display for PrecisionStats {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{:.1} bits on average, {:.1} at worst, RMS error {:.2e} over {} values",
            self.mean_bits, self.min_bits, self.rms_error, self.count
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_errors() {
        let stats = PrecisionStats::of_slices(&[1.0, 2.0], &[1.0 + 2f64.powi(-10), 2.0 - 2f64.powi(-20)]);
        assert_eq!((stats.count, stats.min_bits, stats.mean_bits), (2, 10.0, 15.0));
        let exact = PrecisionStats::of_slices(&[1.0], &[1.0]);
        assert_eq!((exact.min_bits, exact.rms_error), (64.0, 0.0));
        assert_eq!(PrecisionStats::of_slices(&[1.0], &[f64::NAN]).min_bits, f64::NEG_INFINITY);
    }
}
