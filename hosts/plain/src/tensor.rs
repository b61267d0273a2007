//! A dense matrix, row by row, and the three products the executor is made of.

use crate::scalar::Scalar;

/// A matrix. Attention scores of h heads are stacked: h·T rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<F> {
    rows: usize,
    columns: usize,
    data: Vec<F>,
}

impl<F: Scalar> Tensor<F> {
    /// All zero.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, data: vec![F::default(); rows * columns] }
    }

    /// Wraps entries given row by row; `None` where their number is not a multiple of the columns.
    pub fn from_rows(columns: usize, data: Vec<F>) -> Option<Self> {
        if columns == 0 || !data.len().is_multiple_of(columns) {
            return None;
        }
        Some(Self { rows: data.len() / columns, columns, data })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// (rows, columns).
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// The entries, row by row.
    pub fn data(&self) -> &[F] {
        &self.data
    }

    /// The entries, row by row.
    pub fn data_mut(&mut self) -> &mut [F] {
        &mut self.data
    }

    /// One row.
    pub fn row(&self, i: usize) -> &[F] {
        &self.data[i * self.columns..][..self.columns]
    }

    /// One row.
    pub fn row_mut(&mut self, i: usize) -> &mut [F] {
        &mut self.data[i * self.columns..][..self.columns]
    }

    /// Entry by entry with another matrix of the same shape.
    pub(crate) fn zip(&self, other: &Self, f: impl Fn(F, F) -> F) -> Self {
        let data = self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect();
        Self { data, ..*self }
    }

    /// Entry by entry.
    pub(crate) fn map(&self, f: impl FnMut(F) -> F) -> Self {
        Self { data: self.data.iter().copied().map(f).collect(), ..*self }
    }

    /// self · W, with W given row by row.
    pub(crate) fn times(&self, weight: &[F], columns: usize) -> Self {
        let mut out = Self::zeros(self.rows, columns);
        for i in 0..self.rows {
            let y = &mut out.data[i * columns..][..columns];
            for (&x, w) in self.row(i).iter().zip(weight.chunks_exact(columns)) {
                add_scaled(y, x, w);
            }
        }
        out
    }

    /// self · Wᵀ, with W (rows × self.columns) given row by row.
    pub(crate) fn times_transposed(&self, weight: &[F]) -> Self {
        let rows = weight.len() / self.columns.max(1);
        let mut out = Self::zeros(self.rows, rows);
        for i in 0..self.rows {
            for (y, w) in out.data[i * rows..][..rows].iter_mut().zip(weight.chunks_exact(self.columns)) {
                *y = dot(self.row(i), w);
            }
        }
        out
    }

    /// Adds selfᵀ · other to `sum`, a matrix of self.columns × other.columns.
    pub(crate) fn add_outer_into(&self, other: &Self, sum: &mut [F]) {
        for i in 0..self.rows {
            for (&x, g) in self.row(i).iter().zip(sum.chunks_exact_mut(other.columns)) {
                add_scaled(g, x, other.row(i));
            }
        }
    }
}

/// y += a·x.
pub(crate) fn add_scaled<F: Scalar>(y: &mut [F], a: F, x: &[F]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// Σ x·y, in eight lanes so that it vectorises (and always rounds the same way).
pub(crate) fn dot<F: Scalar>(x: &[F], y: &[F]) -> F {
    let mut lanes = [F::default(); 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let tail = xs.remainder().iter().zip(ys.remainder());
    let tail = tail.fold(F::default(), |sum, (&a, &b)| sum + a * b);
    for (a, b) in xs.zip(ys) {
        for l in 0..8 {
            lanes[l] += a[l] * b[l];
        }
    }
    lanes.iter().fold(tail, |sum, &l| sum + l)
}
