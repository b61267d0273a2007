//! Where an entry lies, and what is known of a matrix besides its ciphertexts.

use super::Error;
use crate::accel::Accelerator;
use crate::ckks::{Ciphertext, Parameters};
use crate::ring::Basis;

/// A matrix in ciphertexts of the small ring: k rows in each, k·columns = N' after padding to a power of two.
/// Rows are features; columns are the tokens of one sequence after those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Layout {
    rows: usize,
    columns: usize,
    log_rank: u32,
}

/// Fewest columns after padding: kernels work on runs of as many words.
const MIN_COLUMNS: usize = 8;

impl Layout {
    /// `rows` by `columns` in a ring of degree N'.
    ///
    /// # Errors
    /// [`Error::Columns`] unless 1 to N' columns are asked for; [`Error::Shape`] without rows.
    pub fn new(degree: usize, rows: usize, columns: usize) -> Result<Self, Error> {
        if rows == 0 {
            return Err(Error::Shape { have: (rows, columns), need: (1, columns) });
        }
        if columns == 0 || columns > degree {
            return Err(Error::Columns { have: columns, max: degree });
        }
        let padded = columns.next_power_of_two().max(MIN_COLUMNS);
        Ok(Self { rows, columns, log_rank: (degree / padded).trailing_zeros() })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// k: rows of one ciphertext, and the rank of a row as a sample of a module.
    pub fn rank(&self) -> usize {
        1 << self.log_rank
    }

    /// log2 k.
    pub fn log_rank(&self) -> u32 {
        self.log_rank
    }

    /// How many ciphertexts.
    pub fn ciphertexts(&self) -> usize {
        self.rows.div_ceil(self.rank())
    }

    /// Which ciphertext holds an entry, and as which coefficient.
    pub fn position(&self, row: usize, column: usize) -> (usize, usize) {
        (row >> self.log_rank, row % self.rank() + (column << self.log_rank))
    }

    /// The same columns with other rows.
    ///
    /// # Errors
    /// [`Error::Shape`] without rows.
    pub fn with_rows(&self, rows: usize) -> Result<Self, Error> {
        let need = (1, self.columns);
        if rows == 0 {
            Err(Error::Shape { have: (0, self.columns), need })
        } else {
            Ok(Self { rows, ..*self })
        }
    }
}

/// What is known of an encrypted matrix without its ciphertexts.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Entries {
    /// Where they lie.
    pub layout: Layout,
    /// What an entry is multiplied by.
    pub scale: f64,
    /// Bound on the magnitude of an entry.
    pub bound: f64,
    /// Standard deviation of a coefficient's error, times the scale.
    pub noise: f64,
}

impl Entries {
    /// `Ok` when they fit Q_level.
    ///
    /// # Errors
    /// [`Error::Overflow`].
    pub fn check(&self, parameters: &Parameters, level: usize) -> Result<(), Error> {
        let q = parameters.chain().of(Basis::level(level));
        let max = q.map(|m| libm::log2(m.value() as f64)).sum::<f64>() - 1.0;
        let bits = libm::log2(self.bound * self.scale + 8.0 * self.noise);
        if bits < max {
            return Ok(());
        }
        Err(Error::Overflow { bits: libm::ceil(bits) as u32, max: libm::floor(max) as u32 })
    }

    /// −log2 of the error to be expected of an entry, against the largest one.
    pub fn bits(&self) -> f64 {
        libm::log2(self.bound * self.scale / self.noise)
    }
}

/// An encrypted matrix: its ciphertexts, at one level, in storage of the caller's.
#[derive(Clone, Debug)]
pub struct EncryptedMatrix<S> {
    entries: Entries,
    ciphertexts: S,
}

impl<S> EncryptedMatrix<S> {
    /// From its ciphertexts.
    ///
    /// # Errors
    /// [`Error::Room`] when there are not as many as the layout says.
    pub fn new<A: Accelerator>(entries: Entries, ciphertexts: S) -> Result<Self, Error>
    where
        S: AsRef<[Ciphertext<A>]>,
    {
        let (have, need) = (ciphertexts.as_ref().len(), entries.layout.ciphertexts());
        if have == need { Ok(Self { entries, ciphertexts }) } else { Err(Error::Room { have, need }) }
    }

    /// Layout, scale, bound and noise.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The ciphertexts.
    pub fn ciphertexts(&self) -> &S {
        &self.ciphertexts
    }

    /// The ciphertexts, given back.
    pub fn into_ciphertexts(self) -> S {
        self.ciphertexts
    }
}
