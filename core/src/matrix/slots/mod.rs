//! Matrices in slots, and their products: Jiang, Kim, Lauter, Song (CCS 2018, ePrint 2018/1041).
//!
//! For square matrices of dimension d, indices modulo d,
//!
//! ```text
//! A·B = Σ_k φ^k(σ(A)) ⊙ ψ^k(τ(B))      σ(A)[i,j] = A[i,i+j]      φ^k(A)[i,j] = A[i,j+k]
//!                                      τ(B)[i,j] = B[i+j,j]      ψ^k(B)[i,j] = B[i+k,j]
//! ```
//!
//! For callers whose data are in slots anyway; between bootstraps the small ring ([`super::SmallRing`]) is cheaper.
//!
//! - Lanes are interleaved ([`Packing`]), so that a turn of all slots moves every matrix cyclically on its own: rows
//!   wrap around without a mask, however many matrices there are.
//! - φ^k does not: x turned by k columns is right where no row ends, x turned by k − d where one does. The second is
//!   the first of x turned by one row back, so that both sides use the same keys.
//! - A shift by k = g·b + h is a giant turn followed by a baby turn, both hoisted: about 4·√d keys for 3·d turns.
//! - A left factor of l rows, l dividing d, takes l terms instead of d (§4.2 there).

mod permute;
mod product;
#[cfg(all(test, feature = "insecure-toy"))]
mod tests;

pub use product::{SkewedLeft, SkewedRight, SlotMatrices, Weights};

use super::Error;
use crate::ckks::{self, KeyId, KeyRequests, Parameters};

/// Most giant turns along one axis: those of the largest matrix, 256 × 256 in 2^16 slots.
const MAX_GIANTS: usize = 16;

/// Where matrices of d × d are in the slots of a ciphertext: entry (i, j) of lane z in slot lanes·(d·i + j) + z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Packing {
    dimension: usize,
    rows: usize,
    lanes: usize,
}

/// Which factor of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Factor {
    /// The first.
    Left,
    /// The second.
    Right,
}

/// Along what a matrix is shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    /// φ.
    Columns,
    /// ψ.
    Rows,
}

/// What an operation takes, known without running it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Cost {
    /// Rotations and relinearisations: products of raised digits with a key.
    pub key_switches: usize,
    /// Products of a ciphertext and a plaintext.
    pub plaintext_products: usize,
    /// Levels from the higher operand to the result.
    pub levels: usize,
    /// Different keys that are asked for.
    pub keys: usize,
}

impl Packing {
    /// Square matrices of `dimension` d, a power of two from 4 with d² at most N/2, in products whose left factor has
    /// `rows`, a power of two up to d. Where they are fewer than d, row i of the left factor and of the result
    /// holds row i mod `rows`.
    ///
    /// # Errors
    /// [`Error::Shape`] names the shape to pad the left factor to; [`Error::Room`] the slots that are missing.
    pub fn new(parameters: &Parameters, rows: usize, dimension: usize) -> Result<Self, Error> {
        let slots = parameters.slots();
        // Beyond this a square does not fit, and powers of two are not asked for.
        let largest = 1 << (slots.ilog2() / 2);
        if dimension > largest || rows > largest {
            let need = dimension.max(rows).saturating_mul(dimension.max(rows));
            return Err(Error::Room { have: slots, need });
        }
        let padded = dimension.max(rows).max(4).next_power_of_two();
        let need = (rows.max(1).next_power_of_two(), padded);
        if (rows, dimension) != need {
            return Err(Error::Shape { have: (rows, dimension), need });
        }
        Ok(Self { dimension, rows, lanes: slots / (dimension * dimension) })
    }

    /// The smallest packing for products of `rows` × `inner` by `inner` × `columns`; all else is to be zero, except
    /// that the left factor is repeated as [`Packing::new`] says.
    ///
    /// # Errors
    /// [`Error::Room`].
    pub fn holding(
        parameters: &Parameters,
        rows: usize,
        inner: usize,
        columns: usize,
    ) -> Result<Self, Error> {
        let padded = |x: usize| x.max(1).checked_next_power_of_two().unwrap_or(usize::MAX);
        Self::new(parameters, padded(rows), padded(rows.max(inner).max(columns).max(4)))
    }

    /// d.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Rows of a left factor.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Independent matrices to a ciphertext: N/2 / d².
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The slot of an entry; indices below lanes, d and d.
    pub fn slot(&self, lane: usize, row: usize, column: usize) -> usize {
        self.lanes * (self.dimension * row + column) + lane
    }

    /// (lane, row, column) of a slot.
    pub fn entry(&self, slot: usize) -> (usize, usize, usize) {
        let cell = slot / self.lanes;
        (slot % self.lanes, cell / self.dimension, cell % self.dimension)
    }

    /// Plaintexts that weights as `factor` consist of: d, and for each shift but the first one more where rows end.
    pub fn plaintexts_needed(&self, factor: Factor) -> usize {
        self.shifts(Axis::against(factor)).count()
    }

    /// Shifts by a baby turn, b: √d or the next power of two above it.
    fn babies(&self) -> usize {
        1 << self.dimension.ilog2().div_ceil(2)
    }

    fn giants(&self) -> usize {
        self.dimension / self.babies()
    }

    /// Slots from one place along an axis to the next.
    fn unit(&self, axis: Axis) -> i64 {
        match axis {
            Axis::Columns => self.lanes as i64,
            Axis::Rows => (self.lanes * self.dimension) as i64,
        }
    }

    /// The turn that makes up for the end of a row: one row back.
    fn wrap(&self) -> i64 {
        -self.unit(Axis::Rows)
    }

    /// Keys of all shifts along an axis.
    fn shift_keys(
        &self,
        parameters: &Parameters,
        axis: Axis,
        level: usize,
        keys: &mut KeyRequests,
    ) -> Result<(), Error> {
        let babies = self.babies();
        let steps = (1..babies).chain((1..self.giants()).map(|g| g * babies));
        let wrap = (axis == Axis::Columns).then(|| self.wrap());
        steps.map(|k| k as i64 * self.unit(axis)).chain(wrap).try_for_each(|steps| {
            keys.add(KeyId::rotation(parameters, steps), level)?;
            Ok(())
        })
    }

    /// Keys of a product of two encrypted matrices at `level`.
    ///
    /// # Errors
    /// [`ckks::Error::LevelsExhausted`] below level 3, [`ckks::Error::Full`].
    pub fn required_keys(
        &self,
        parameters: &Parameters,
        level: usize,
        keys: &mut KeyRequests,
    ) -> Result<(), Error> {
        if level < 3 {
            return Err(ckks::Error::LevelsExhausted { have: level, need: 3 }.into());
        }
        self.shift_keys(parameters, Axis::Columns, level, keys)?;
        self.shift_keys(parameters, Axis::Rows, level - 1, keys)?;
        Ok(keys.add(KeyId::Relinearization, level - 2)?)
    }

    /// Keys of a product with weights as `factor`, at `level`.
    ///
    /// # Errors
    /// [`ckks::Error::Full`].
    pub fn plain_keys(
        &self,
        parameters: &Parameters,
        factor: Factor,
        level: usize,
        keys: &mut KeyRequests,
    ) -> Result<(), Error> {
        self.shift_keys(parameters, Axis::against(factor), level, keys)
    }

    /// Of a product of two encrypted matrices.
    pub fn product_cost(&self) -> Cost {
        let (left, right) = (self.shift_cost(Axis::Columns), self.shift_cost(Axis::Rows));
        let rest = self.skewed_cost();
        Cost {
            key_switches: left.key_switches + right.key_switches + rest.key_switches,
            plaintext_products: left.plaintext_products + right.plaintext_products + rest.plaintext_products,
            levels: left.levels + rest.levels,
            keys: rest.keys,
        }
    }

    /// Of the skewing of one factor of an encrypted product.
    pub fn skew_cost(&self, factor: Factor) -> Cost {
        self.shift_cost(match factor {
            Factor::Left => Axis::Columns,
            Factor::Right => Axis::Rows,
        })
    }

    /// Of a product of two skewed matrices; the keys are those that skewing takes too.
    pub fn skewed_cost(&self) -> Cost {
        let babies = self.rows.min(self.babies());
        let blocks = self.rows / babies;
        // Of the left factor a block's start, its image one row back, and the baby turns of both; of the right one
        // the start and the baby turns; the relinearisation; the sum over the copies of a short left factor.
        let left = blocks - 1 + blocks + 2 * blocks * (babies - 1);
        let right = blocks - 1 + blocks * (babies - 1);
        let copies = (self.dimension / self.rows).ilog2() as usize;
        Cost {
            key_switches: left + right + 1 + copies,
            plaintext_products: 2 * self.rows - 1,
            levels: 2,
            keys: self.shift_cost(Axis::Columns).keys + self.shift_cost(Axis::Rows).keys + 1,
        }
    }

    /// Of a product with weights as `factor`.
    pub fn plain_cost(&self, factor: Factor) -> Cost {
        self.shift_cost(Axis::against(factor))
    }

    fn shift_cost(&self, axis: Axis) -> Cost {
        let (babies, giants) = (self.babies() - 1, self.giants() - 1);
        let (key_switches, keys) = match axis {
            Axis::Columns => (1 + 2 * babies + giants, 1 + babies + giants),
            Axis::Rows => (babies + giants, babies + giants),
        };
        Cost { key_switches, plaintext_products: self.shifts(axis).count(), levels: 1, keys }
    }
}

impl Axis {
    /// What the encrypted matrix is shifted along when weights are `factor`.
    fn against(factor: Factor) -> Self {
        match factor {
            Factor::Left => Self::Rows,
            Factor::Right => Self::Columns,
        }
    }
}
