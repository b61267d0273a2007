//! Plaintext matrices, as small integers.

use super::{Error, Layout};

/// A matrix of weights in fixed point, 15 bits and a sign, padded to the layouts of what it maps and what it gives.
#[derive(Clone, Copy, Debug)]
pub struct PlainMatrix<'w> {
    shape: (usize, usize),
    weights: &'w [i16],
    scale: f64,
    /// The largest Euclidean norm of a row, and its largest sum of magnitudes.
    norm: f64,
    bound: f64,
}

impl<'w> PlainMatrix<'w> {
    /// Words that the weights of a product take: both sides padded to whole ciphertexts.
    #[must_use]
    pub fn words_needed(output: &Layout, input: &Layout) -> usize {
        output.rank() * output.ciphertexts() * input.rank() * input.ciphertexts()
    }

    /// The matrix with entry(o, i) in row o < `output` rows, column i < `input` rows. Whatever permutes, transposes,
    /// splits or scales rows goes into `entry` and costs nothing later.
    ///
    /// # Errors
    /// [`Error::Room`] when `words` is shorter than [`PlainMatrix::words_needed`]; [`Error::Shape`] when the layouts
    /// have different columns; [`Error::Weights`].
    pub fn quantize(
        output: &Layout,
        input: &Layout,
        words: &'w mut [i16],
        entry: impl Fn(usize, usize) -> f64,
    ) -> Result<Self, Error> {
        if output.rank() != input.rank() || output.columns() != input.columns() {
            let need = (output.rows(), input.columns());
            return Err(Error::Shape { have: output.shape(), need });
        }
        let (have, need) = (words.len(), Self::words_needed(output, input));
        let words = words.get_mut(..need).ok_or(Error::Room { have, need })?;
        let (mut largest, mut norm, mut bound) = (0.0f64, 0.0f64, 0.0f64);
        for row in 0..output.rows() {
            let (mut squares, mut magnitudes) = (0.0, 0.0);
            for column in 0..input.rows() {
                let value = entry(row, column);
                if !value.is_finite() {
                    return Err(Error::Weights);
                }
                largest = largest.max(value.abs());
                squares += value * value;
                magnitudes += value.abs();
            }
            (norm, bound) = (norm.max(libm::sqrt(squares)), bound.max(magnitudes));
        }
        if largest == 0.0 {
            return Err(Error::Weights);
        }
        // A power of two: scales stay close to those of the levels.
        let scale = libm::exp2(libm::floor(libm::log2(i16::MAX as f64 / largest)));
        words.fill(0);
        let stride = input.rank() * input.ciphertexts();
        for (row, words) in words.chunks_exact_mut(stride).enumerate().take(output.rows()) {
            for (column, word) in words.iter_mut().enumerate().take(input.rows()) {
                *word = libm::round(entry(row, column) * scale) as i16;
            }
        }
        Ok(Self { shape: (output.rows(), input.rows()), weights: words, scale, norm, bound })
    }

    /// With a bound on the entries of a product that is better than the bound on the operand's times the largest
    /// sum of magnitudes in a row: `bound` times the operand's.
    #[must_use]
    pub fn with_bound(self, bound: f64) -> Self {
        Self { bound, ..self }
    }

    /// Rows and columns, without padding.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// The padded weights, row-major.
    pub(super) fn weights(&self) -> &'w [i16] {
        self.weights
    }

    /// What an entry was multiplied by, a power of two.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The largest Euclidean norm of a row.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// Largest entry of a product over largest entry of the operand.
    pub fn bound(&self) -> f64 {
        self.bound
    }
}
