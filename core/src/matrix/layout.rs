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
/// Most rows of a ciphertext: each takes a key of its own, and a matrix of few columns is small anyway.
const MAX_RANK: usize = 128;

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
        let padded = columns.next_power_of_two().max(MIN_COLUMNS).max(degree / MAX_RANK);
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

    /// The same rows, at the same rank, with fewer columns.
    ///
    /// # Errors
    /// [`Error::Columns`] for none or more than there are.
    pub fn with_columns(&self, columns: usize) -> Result<Self, Error> {
        let max = self.columns;
        if columns == 0 || columns > max {
            Err(Error::Columns { have: columns, max })
        } else {
            Ok(Self { columns, ..*self })
        }
    }

    /// Rows and columns at the same rank in a ring of degree N'.
    pub(super) fn with_shape(&self, degree: usize, rows: usize, columns: usize) -> Result<Self, Error> {
        let max = degree >> self.log_rank;
        if columns == 0 || columns > max {
            return Err(Error::Columns { have: columns, max });
        }
        Self { columns, ..*self }.with_rows(rows)
    }

    /// The same ciphertexts at half the rank: of the k rows of each, row i ends up beside row i + k/2, their columns in
    /// turns, because Σ_i X^i·x_i(Y) with Y = Z², Z = X^(k/2), has x_i(Z²) + Z·x_{i+k/2}(Z²) as row i. Two matrices
    /// come side by side when weights put the rows of one into the first halves and those of the other into the second:
    /// no key is needed, and later products treat them as one.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are whole ciphertexts of at least two rows.
    pub fn interleaved(&self) -> Result<Self, Error> {
        let (rank, columns) = (self.rank(), self.columns);
        if rank == 1 || !self.rows.is_multiple_of(rank) {
            let need = (self.rows.next_multiple_of(rank.max(2)), columns);
            return Err(Error::Shape { have: self.shape(), need });
        }
        Ok(Self { rows: self.rows / 2, columns: 2 * columns, log_rank: self.log_rank - 1 })
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

    /// Those of the rows of `self`, then those of `below`: its ciphertexts follow.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the columns agree and this has whole ciphertexts, a multiple of the rank in rows;
    /// [`Error::Scale`].
    pub fn above(&self, below: &Self) -> Result<Self, Error> {
        let (layout, rank) = (self.layout, self.layout.rank());
        let need = (layout.rows().next_multiple_of(rank), layout.columns());
        if layout.shape() != need {
            return Err(Error::Shape { have: layout.shape(), need });
        }
        let have = below.layout.shape();
        if have.1 != layout.columns() {
            return Err(Error::Shape { have, need: (have.0, layout.columns()) });
        }
        let scale = self.same_scale(below)?;
        let layout = layout.with_rows(layout.rows() + have.0)?;
        Ok(Self { layout, scale, bound: self.bound.max(below.bound), noise: self.noise.max(below.noise) })
    }

    /// Those of the same ciphertexts as [`Layout::interleaved`].
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn interleaved(&self) -> Result<Self, Error> {
        Ok(Self { layout: self.layout.interleaved()?, ..*self })
    }

    /// Those of a sum.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Scale`].
    pub fn plus(&self, other: &Self) -> Result<Self, Error> {
        if self.layout != other.layout {
            return Err(Error::Shape { have: other.layout.shape(), need: self.layout.shape() });
        }
        let scale = self.same_scale(other)?;
        // What an integer factor left of a difference counts as an error of the other.
        let misfit = other.bound * (other.scale - scale).abs();
        let noise = libm::hypot(libm::hypot(self.noise, other.noise), misfit);
        Ok(Self { layout: self.layout, scale, bound: self.bound + other.bound, noise })
    }

    /// The scale, when the other's is the same up to what an integer factor leaves.
    pub(super) fn same_scale(&self, other: &Self) -> Result<f64, Error> {
        if (other.scale / self.scale - 1.0).abs() < SCALE_TOLERANCE {
            return Ok(self.scale);
        }
        Err(Error::Scale { have: other.scale, need: self.scale })
    }

    /// −log2 of the error to be expected of an entry, against the largest one.
    pub fn bits(&self) -> f64 {
        libm::log2(self.bound * self.scale / self.noise)
    }
}

/// Scales this close may be added: what is left of the difference is an error as small.
const SCALE_TOLERANCE: f64 = 1.0 / (1 << 16) as f64;

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

    /// Rows `first` to `first + count`, for instance those of one head, without a copy.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `first` is a multiple of the rank and all of them exist: what is not aligned is
    /// selected by a [`super::PlainMatrix`], for nothing when there is a product anyway.
    pub fn rows<A: Accelerator>(
        &self,
        first: usize,
        count: usize,
    ) -> Result<EncryptedMatrix<&[Ciphertext<A>]>, Error>
    where
        S: AsRef<[Ciphertext<A>]>,
    {
        let (layout, rank) = (self.entries.layout, self.entries.layout.rank());
        if !first.is_multiple_of(rank) || first.saturating_add(count) > layout.rows() {
            let need = (layout.rows(), layout.columns());
            return Err(Error::Shape { have: (first.saturating_add(count), layout.columns()), need });
        }
        let entries = Entries { layout: layout.with_rows(count)?, ..self.entries };
        let from = first / rank;
        EncryptedMatrix::new(entries, &self.ciphertexts.as_ref()[from..from + entries.layout.ciphertexts()])
    }

    /// The ciphertexts.
    pub fn ciphertexts(&self) -> &S {
        &self.ciphertexts
    }

    /// Changes the ciphertexts in place, and then says what they hold.
    pub(super) fn update<A: Accelerator, E>(
        &mut self,
        entries: Entries,
        change: impl FnOnce(&mut [Ciphertext<A>]) -> Result<(), E>,
    ) -> Result<(), E>
    where
        S: AsMut<[Ciphertext<A>]>,
    {
        change(self.ciphertexts.as_mut())?;
        self.entries = entries;
        Ok(())
    }

    /// The ciphertexts, given back.
    pub fn into_ciphertexts(self) -> S {
        self.ciphertexts
    }
}
