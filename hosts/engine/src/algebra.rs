//! What the executor computes with: packed matrices, slots, and the ways between them.

use crate::{Degrees, Error};
use std::rc::Rc;
use veilformer::ckks::server::Turns;
use veilformer::matrix::{Entries, PlainMatrix};
use veilformer::transformer::slots::SlotArithmetic;

/// Sizes of the two rings.
#[derive(Clone, Debug)]
pub struct Rings {
    /// Their degrees.
    pub degrees: Degrees,
    /// The level at which [`Algebra::lower`] leaves a matrix.
    pub level: usize,
    /// q_0 … q_level.
    pub moduli: Vec<f64>,
    /// The scale of a lowered slot that held 1, and what an entry's scale is divided by when it is raised.
    pub message_scale: f64,
    /// Standard deviation of the error of a lowered slot, times that scale.
    pub noise: f64,
}

/// A matrix of one sentence, in pieces.
pub struct Matrix<P> {
    /// Layout, scale, bound and noise.
    pub entries: Entries,
    /// Its level.
    pub level: usize,
    /// Its pieces.
    pub pieces: Vec<Rc<P>>,
}

impl<P> Matrix<P> {
    /// The same matrix modulo no more primes than `level` has, for what takes no more.
    #[must_use]
    pub fn at_most(&self, level: usize) -> Self {
        Self { level: self.level.min(level), ..self.clone() }
    }
}

// Pieces are shared, not copied.
impl<P> Clone for Matrix<P> {
    fn clone(&self) -> Self {
        Self { entries: self.entries, level: self.level, pieces: self.pieces.clone() }
    }
}

/// The values of a matrix of one sentence in slots: a lower vector, and an upper one where there is anything in it.
pub type Halves<V> = (V, Option<V>);

/// Carries out what the executor asks for.
pub trait Algebra {
    /// Slots of the big ring.
    type Vector;
    /// A ciphertext of the small ring.
    type Piece;
    /// One row of a matrix by itself.
    type Row;
    /// One column of a matrix by itself.
    type Column;
    /// Arithmetic on slots.
    type Slots: SlotArithmetic<Vector = Self::Vector>;

    /// The rings.
    fn rings(&self) -> &Rings;

    /// Arithmetic on slots.
    fn slots(&mut self) -> &mut Self::Slots;

    /// Slots that hold nothing, at the level of a fresh bootstrap.
    ///
    /// # Errors
    /// From the scheme.
    fn zero(&mut self) -> Result<Self::Vector, Error>;

    /// Bootstraps up to f pieces, `None` being zero: slots hold scale/[`Rings::message_scale`] times the entries, at most 1.
    ///
    /// # Errors
    /// From the scheme.
    fn raise(
        &mut self,
        pieces: &[Option<Rc<Self::Piece>>],
        upper: bool,
    ) -> Result<Halves<Self::Vector>, Error>;

    /// x + i·y at one level: two real vectors in one, for what does the same to both. [`Algebra::lower`] takes it for the
    /// halves that it was made of.
    ///
    /// # Errors
    /// From the scheme: other levels.
    fn pair(&mut self, x: &Self::Vector, y: &Self::Vector) -> Result<Self::Vector, Error>;

    /// In every vector of slots, all at one level, each block times the same matrix ([`Turns::prepare`]); one level below.
    ///
    /// # Errors
    /// From the scheme.
    fn turn_blocks(
        &mut self,
        x: &[Self::Vector],
        turns: &Turns,
        entry: &dyn Fn(usize, usize) -> f64,
    ) -> Result<Vec<Self::Vector>, Error>;

    /// Twice each of the real vectors that one was made of.
    ///
    /// # Errors
    /// From the scheme.
    fn apart(&mut self, z: &Self::Vector) -> Result<[Self::Vector; 2], Error>;

    /// Slots to f pieces at [`Rings::level`]: entries at [`Rings::message_scale`] times the slots.
    ///
    /// # Errors
    /// From the scheme.
    fn lower(&mut self, x: &Halves<Self::Vector>) -> Result<Vec<Self::Piece>, Error>;

    /// The pieces of coefficients that somebody else encrypted in the big ring, at [`Rings::level`].
    ///
    /// # Errors
    /// From the scheme.
    fn pieces(&mut self, x: &Self::Vector) -> Result<Vec<Self::Piece>, Error>;

    /// w·x, one level down and close to a scale.
    ///
    /// # Errors
    /// From the algebra.
    fn multiply_plain(
        &mut self,
        w: &PlainMatrix<'_>,
        x: &Matrix<Self::Piece>,
        scale: f64,
    ) -> Result<Matrix<Self::Piece>, Error>;

    /// w times each of several matrices of one layout.
    ///
    /// # Errors
    /// From the algebra.
    fn multiply_plain_each(
        &mut self,
        w: &PlainMatrix<'_>,
        x: &[Matrix<Self::Piece>],
        scale: f64,
    ) -> Result<Vec<Matrix<Self::Piece>>, Error> {
        x.iter().map(|x| self.multiply_plain(w, x, scale)).collect()
    }

    /// x + y, at the lower level of the two.
    ///
    /// # Errors
    /// From the algebra: other shapes or scales.
    fn add(&mut self, x: &Matrix<Self::Piece>, y: &Matrix<Self::Piece>)
    -> Result<Matrix<Self::Piece>, Error>;

    /// Σ x·X^exponent.
    ///
    /// # Errors
    /// From the scheme.
    fn add_shifted(&mut self, x: &[(Rc<Self::Piece>, usize)]) -> Result<Self::Piece, Error>;

    /// Every row of x by itself.
    ///
    /// # Errors
    /// From the algebra.
    fn split(&mut self, x: &Matrix<Self::Piece>) -> Result<Vec<Self::Row>, Error>;

    /// The columns of rows, at as many times their scale as there are columns: to contract rows, or to make them.
    ///
    /// # Errors
    /// From the algebra.
    fn columns(
        &mut self,
        rows: &[Self::Row],
        side: veilformer::matrix::Side,
    ) -> Result<Vec<Self::Column>, Error>;

    /// −½‖k_t − q_u‖² as row t: one row that waits to be packed for every key. `queries` holds the rows of the queries
    /// at places 0, 1, ….
    ///
    /// # Errors
    /// From the algebra.
    fn exponents(
        &mut self,
        keys: &[Self::Column],
        queries: &Matrix<Self::Piece>,
        query_columns: &[Self::Column],
        bound: f64,
    ) -> Result<(Entries, Vec<Self::Piece>), Error>;

    /// Packs rows that wait, at most as many as a piece has. `entries` is what is known of all of them.
    ///
    /// # Errors
    /// From the algebra.
    fn pick(&mut self, entries: &Entries, rows: Vec<Self::Piece>) -> Result<(Entries, Self::Piece), Error>;

    /// Σ column ⊗ row, within `bound`: the rows of the result are where those of the columns' matrix were.
    ///
    /// # Errors
    /// From the algebra.
    fn scatter(
        &mut self,
        terms: &[(&Self::Column, &Self::Row)],
        bound: f64,
    ) -> Result<Matrix<Self::Piece>, Error>;

    /// Rows 0 to `count` of x by themselves.
    ///
    /// # Errors
    /// From the algebra.
    fn first_rows(&mut self, x: &Matrix<Self::Piece>, count: usize) -> Result<Vec<Self::Row>, Error>;

    /// The same column, called one at another scale: its entries are others by a factor.
    ///
    /// # Errors
    /// From the algebra.
    fn at_scale(&mut self, column: Self::Column, scale: f64) -> Result<Self::Column, Error>;

    /// The same columns for the other side.
    ///
    /// # Errors
    /// From the algebra.
    fn turn(&mut self, column: &Self::Column) -> Result<Self::Column, Error>;

    /// Σ over the pieces of x, each contracted with its column: one row, within `bound`.
    ///
    /// # Errors
    /// From the algebra.
    fn gather(
        &mut self,
        columns: &[Rc<Self::Column>],
        x: &Matrix<Self::Piece>,
        bound: f64,
    ) -> Result<Self::Row, Error>;

    /// Rows by themselves, in one matrix.
    ///
    /// # Errors
    /// From the algebra.
    fn pack(&mut self, rows: &[Self::Row]) -> Result<Matrix<Self::Piece>, Error>;

    /// x − y, at the lower level of the two.
    ///
    /// # Errors
    /// As [`Algebra::add`].
    fn subtract(
        &mut self,
        x: &Matrix<Self::Piece>,
        y: &Matrix<Self::Piece>,
    ) -> Result<Matrix<Self::Piece>, Error>;

    /// The same entries at an integer multiple of their scale.
    ///
    /// # Errors
    /// From the scheme.
    fn lift(&mut self, x: &Matrix<Self::Piece>, factor: i32) -> Result<Matrix<Self::Piece>, Error>;

    /// The same entries one level down, close to a scale.
    ///
    /// # Errors
    /// From the scheme.
    fn rescale(&mut self, x: &Matrix<Self::Piece>, scale: f64) -> Result<Matrix<Self::Piece>, Error>;

    /// (column t)·right, contracted over rows: one row that waits to be packed for every column.
    ///
    /// # Errors
    /// From the algebra.
    fn row_products(
        &mut self,
        left: &[Self::Column],
        right: &Matrix<Self::Piece>,
        bound: f64,
    ) -> Result<(Entries, Vec<Self::Piece>), Error>;

    /// Every column as a row that waits to be packed: `blocks` are the columns of rows 0 to k, k to 2k, ….
    ///
    /// # Errors
    /// From the algebra.
    fn transposed_rows(
        &mut self,
        blocks: &[Vec<Self::Column>],
        count: usize,
    ) -> Result<(Entries, Vec<Self::Piece>), Error>;

    /// x·rowᵀ, contracted over columns: a matrix whose column 0 is the result; its others are of no use.
    ///
    /// # Errors
    /// From the algebra.
    fn outer(
        &mut self,
        x: &Matrix<Self::Piece>,
        row: &Self::Row,
        bound: f64,
    ) -> Result<Matrix<Self::Piece>, Error>;

    /// The sum of rows.
    ///
    /// # Errors
    /// From the algebra.
    fn total(&mut self, rows: &[Self::Row]) -> Result<Self::Row, Error>;

    /// The first `count` rows of the diagonal matrix of a row's entries, at as many times its scale as there are columns.
    ///
    /// # Errors
    /// From the algebra.
    fn diagonal(&mut self, row: &Self::Row, count: usize) -> Result<Vec<Self::Row>, Error>;

    /// A column that makes rows, as a matrix with nothing in its other columns.
    ///
    /// # Errors
    /// From the algebra.
    fn column_matrix(&mut self, column: &Self::Column) -> Result<Matrix<Self::Piece>, Error>;
}
