//! An algebra under observation: for progress bars, for figures of what a job spends its time on, and to end it early.

use crate::Error;
use crate::algebra::{Algebra, Halves, Matrix, Rings};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use veilformer::ckks;
use veilformer::ckks::server::{BabyGiant, Turns};
use veilformer::matrix::{Entries, PlainMatrix, Side};
use veilformer::transformer::slots::SlotArithmetic;

/// What is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A bootstrap of both halves of the coefficients, with the switch out of the small ring.
    Bootstrap,
    /// A bootstrap of the lower half of the coefficients.
    HalfBootstrap,
    /// Slots to pieces.
    Lower,
    /// A client's ciphertext to pieces.
    Input,
    /// A product with plaintext weights.
    PlainProduct,
    /// A sum of matrices, or of shifted pieces or rows; a column at another scale.
    Sum,
    /// A matrix taken apart into rows.
    Split,
    /// Columns that contract rows.
    GatherColumns,
    /// Columns that make rows.
    ScatterColumns,
    /// Exponents of the Gaussian kernel.
    Exponents,
    /// Rows packed into a piece.
    Pick,
    /// A sum of columns times rows.
    Scatter,
    /// A column turned for its other side.
    Turn,
    /// Columns contracted with a matrix.
    Gather,
    /// Rows that wait to be packed: columns times a matrix, or turned into rows.
    Rows,
    /// A matrix contracted with a row.
    Outer,
    /// A matrix one level down at another scale.
    Rescale,
    /// A product of slots, or a sum of such.
    SlotProduct,
    /// A product of slots with something known, encoded for it.
    SlotFactor,
    /// A sum of slots.
    SlotSum,
    /// A rotation of slots.
    Rotation,
    /// A polynomial of slots.
    Polynomial,
    /// A linear transform of slots.
    Transform,
}

/// When an observer hears of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It begins.
    Begin,
    /// It has ended, well or not. Operations do not nest.
    End,
}

/// Passes everything on and tells `observer` of it, which may look at any clock it likes.
pub struct Watched<G, F> {
    // Shared, because asking for a level takes the arithmetic by reference.
    inner: RefCell<G>,
    rings: Rings,
    observer: F,
    stop: Option<&'static AtomicBool>,
}

impl<G: Algebra, F: FnMut(Operation, Moment)> Watched<G, F> {
    /// Watches `inner`.
    pub fn new(inner: G, observer: F) -> Self {
        let rings = inner.rings().clone();
        Self { inner: RefCell::new(inner), rings, observer, stop: None }
    }

    /// Ends with [`Error::Stopped`] soon after the flag is raised.
    #[must_use]
    pub fn until(self, stop: &'static AtomicBool) -> Self {
        Self { stop: Some(stop), ..self }
    }

    fn step<R>(
        &mut self,
        operation: Operation,
        f: impl FnOnce(&mut G) -> Result<R, Error>,
    ) -> Result<R, Error> {
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Error::Stopped);
        }
        self.observed(operation, f)
    }

    // Slots know the scheme's errors alone, and what is done in them is soon followed by something else.
    fn in_slots<R>(&mut self, operation: Operation, f: impl FnOnce(&mut G::Slots) -> R) -> R {
        self.observed(operation, |inner| f(inner.slots()))
    }

    fn observed<R>(&mut self, operation: Operation, f: impl FnOnce(&mut G) -> R) -> R {
        (self.observer)(operation, Moment::Begin);
        let result = f(self.inner.get_mut());
        (self.observer)(operation, Moment::End);
        result
    }
}

impl<G: Algebra, F: FnMut(Operation, Moment)> Algebra for Watched<G, F> {
    type Vector = G::Vector;
    type Piece = G::Piece;
    type Row = G::Row;
    type Column = G::Column;
    type Slots = Self;

    fn rings(&self) -> &Rings {
        &self.rings
    }

    fn slots(&mut self) -> &mut Self {
        self
    }

    fn zero(&mut self) -> Result<G::Vector, Error> {
        self.step(Operation::SlotSum, Algebra::zero)
    }

    fn raise(&mut self, pieces: &[Option<Rc<G::Piece>>], upper: bool) -> Result<Halves<G::Vector>, Error> {
        let operation = if upper { Operation::Bootstrap } else { Operation::HalfBootstrap };
        self.step(operation, |inner| inner.raise(pieces, upper))
    }

    fn pair(&mut self, x: &G::Vector, y: &G::Vector) -> Result<G::Vector, Error> {
        self.step(Operation::SlotSum, |inner| inner.pair(x, y))
    }

    fn turn_blocks(
        &mut self,
        x: &[G::Vector],
        turns: &Turns,
        entry: &dyn Fn(usize, usize) -> f64,
    ) -> Result<Vec<G::Vector>, Error> {
        self.step(Operation::Transform, |inner| inner.turn_blocks(x, turns, entry))
    }

    fn apart(&mut self, z: &G::Vector) -> Result<[G::Vector; 2], Error> {
        self.step(Operation::Rotation, |inner| inner.apart(z))
    }

    fn lower(&mut self, x: &Halves<G::Vector>) -> Result<Vec<G::Piece>, Error> {
        self.step(Operation::Lower, |inner| inner.lower(x))
    }

    fn pieces(&mut self, x: &G::Vector) -> Result<Vec<G::Piece>, Error> {
        self.step(Operation::Input, |inner| inner.pieces(x))
    }

    fn multiply_plain(
        &mut self,
        w: &PlainMatrix<'_>,
        x: &Matrix<G::Piece>,
        scale: f64,
    ) -> Result<Matrix<G::Piece>, Error> {
        self.step(Operation::PlainProduct, |inner| inner.multiply_plain(w, x, scale))
    }

    fn multiply_plain_each(
        &mut self,
        w: &PlainMatrix<'_>,
        x: &[Matrix<G::Piece>],
        scale: f64,
    ) -> Result<Vec<Matrix<G::Piece>>, Error> {
        self.step(Operation::PlainProduct, |inner| inner.multiply_plain_each(w, x, scale))
    }

    fn add(&mut self, x: &Matrix<G::Piece>, y: &Matrix<G::Piece>) -> Result<Matrix<G::Piece>, Error> {
        self.step(Operation::Sum, |inner| inner.add(x, y))
    }

    fn add_shifted(&mut self, x: &[(Rc<G::Piece>, usize)]) -> Result<G::Piece, Error> {
        self.step(Operation::Sum, |inner| inner.add_shifted(x))
    }

    fn split(&mut self, x: &Matrix<G::Piece>) -> Result<Vec<G::Row>, Error> {
        self.step(Operation::Split, |inner| inner.split(x))
    }

    fn columns(&mut self, rows: &[G::Row], side: Side) -> Result<Vec<G::Column>, Error> {
        let operation = match side {
            Side::Gather => Operation::GatherColumns,
            Side::Scatter => Operation::ScatterColumns,
        };
        self.step(operation, |inner| inner.columns(rows, side))
    }

    fn exponents(
        &mut self,
        keys: &[G::Column],
        queries: &Matrix<G::Piece>,
        query_columns: &[G::Column],
        bound: f64,
    ) -> Result<(Entries, Vec<G::Piece>), Error> {
        self.step(Operation::Exponents, |inner| inner.exponents(keys, queries, query_columns, bound))
    }

    fn pick(&mut self, entries: &Entries, rows: Vec<G::Piece>) -> Result<(Entries, G::Piece), Error> {
        self.step(Operation::Pick, |inner| inner.pick(entries, rows))
    }

    fn scatter(&mut self, terms: &[(&G::Column, &G::Row)], bound: f64) -> Result<Matrix<G::Piece>, Error> {
        self.step(Operation::Scatter, |inner| inner.scatter(terms, bound))
    }

    fn first_rows(&mut self, x: &Matrix<G::Piece>, count: usize) -> Result<Vec<G::Row>, Error> {
        self.step(Operation::Split, |inner| inner.first_rows(x, count))
    }

    fn at_scale(&mut self, column: G::Column, scale: f64) -> Result<G::Column, Error> {
        self.step(Operation::Sum, |inner| inner.at_scale(column, scale))
    }

    fn turn(&mut self, column: &G::Column) -> Result<G::Column, Error> {
        self.step(Operation::Turn, |inner| inner.turn(column))
    }

    fn gather(
        &mut self,
        columns: &[Rc<G::Column>],
        x: &Matrix<G::Piece>,
        bound: f64,
    ) -> Result<G::Row, Error> {
        self.step(Operation::Gather, |inner| inner.gather(columns, x, bound))
    }

    fn subtract(&mut self, x: &Matrix<G::Piece>, y: &Matrix<G::Piece>) -> Result<Matrix<G::Piece>, Error> {
        self.step(Operation::Sum, |inner| inner.subtract(x, y))
    }

    fn lift(&mut self, x: &Matrix<G::Piece>, factor: i32) -> Result<Matrix<G::Piece>, Error> {
        self.step(Operation::Sum, |inner| inner.lift(x, factor))
    }

    fn rescale(&mut self, x: &Matrix<G::Piece>, scale: f64) -> Result<Matrix<G::Piece>, Error> {
        self.step(Operation::Rescale, |inner| inner.rescale(x, scale))
    }

    fn row_products(
        &mut self,
        left: &[G::Column],
        right: &Matrix<G::Piece>,
        bound: f64,
    ) -> Result<(Entries, Vec<G::Piece>), Error> {
        self.step(Operation::Rows, |inner| inner.row_products(left, right, bound))
    }

    fn transposed_rows(
        &mut self,
        blocks: &[Vec<G::Column>],
        count: usize,
    ) -> Result<(Entries, Vec<G::Piece>), Error> {
        self.step(Operation::Rows, |inner| inner.transposed_rows(blocks, count))
    }

    fn outer(&mut self, x: &Matrix<G::Piece>, row: &G::Row, bound: f64) -> Result<Matrix<G::Piece>, Error> {
        self.step(Operation::Outer, |inner| inner.outer(x, row, bound))
    }

    fn total(&mut self, rows: &[G::Row]) -> Result<G::Row, Error> {
        self.step(Operation::Sum, |inner| inner.total(rows))
    }

    fn diagonal(&mut self, row: &G::Row, count: usize) -> Result<Vec<G::Row>, Error> {
        self.step(Operation::ScatterColumns, |inner| inner.diagonal(row, count))
    }

    fn column_matrix(&mut self, column: &G::Column) -> Result<Matrix<G::Piece>, Error> {
        self.step(Operation::Sum, |inner| inner.column_matrix(column))
    }

    fn pack(&mut self, rows: &[G::Row]) -> Result<Matrix<G::Piece>, Error> {
        self.step(Operation::Sum, |inner| inner.pack(rows))
    }
}

impl<G: Algebra, F: FnMut(Operation, Moment)> SlotArithmetic for Watched<G, F> {
    type Vector = G::Vector;
    type Known = <G::Slots as SlotArithmetic>::Known;

    fn slots(&self) -> usize {
        self.rings.degrees.slots()
    }

    fn level(&self, x: &G::Vector) -> usize {
        self.inner.borrow_mut().slots().level(x)
    }

    fn duplicate(&mut self, x: &G::Vector) -> Result<G::Vector, ckks::Error> {
        self.in_slots(Operation::SlotSum, |slots| slots.duplicate(x))
    }

    fn add_assign(&mut self, x: &mut G::Vector, y: &G::Vector) -> Result<(), ckks::Error> {
        self.in_slots(Operation::SlotSum, |slots| slots.add_assign(x, y))
    }

    fn subtract_assign(&mut self, x: &mut G::Vector, y: &G::Vector) -> Result<(), ckks::Error> {
        self.in_slots(Operation::SlotSum, |slots| slots.subtract_assign(x, y))
    }

    fn negate_assign(&mut self, x: &mut G::Vector) -> Result<(), ckks::Error> {
        self.in_slots(Operation::SlotSum, |slots| slots.negate_assign(x))
    }

    fn add_known_assign(
        &mut self,
        x: &mut G::Vector,
        known: &dyn Fn(usize) -> f64,
    ) -> Result<(), ckks::Error> {
        self.in_slots(Operation::SlotSum, |slots| slots.add_known_assign(x, known))
    }

    fn products(&mut self, pairs: &[(&G::Vector, &G::Vector)]) -> Result<G::Vector, ckks::Error> {
        self.in_slots(Operation::SlotProduct, |slots| slots.products(pairs))
    }

    fn prepare(&mut self, known: &dyn Fn(usize) -> f64, level: usize) -> Result<Self::Known, ckks::Error> {
        self.in_slots(Operation::SlotFactor, |slots| slots.prepare(known, level))
    }

    fn weigh(&mut self, pairs: &[(&G::Vector, &Self::Known)]) -> Result<G::Vector, ckks::Error> {
        self.in_slots(Operation::SlotFactor, |slots| slots.weigh(pairs))
    }

    fn multiply_known(
        &mut self,
        x: &G::Vector,
        known: &dyn Fn(usize) -> f64,
        level: usize,
    ) -> Result<G::Vector, ckks::Error> {
        self.in_slots(Operation::SlotFactor, |slots| slots.multiply_known(x, known, level))
    }

    fn scale(&mut self, x: &G::Vector, factor: f64, level: usize) -> Result<G::Vector, ckks::Error> {
        self.in_slots(Operation::SlotFactor, |slots| slots.scale(x, factor, level))
    }

    fn rotate(&mut self, x: &G::Vector, steps: i64) -> Result<G::Vector, ckks::Error> {
        self.in_slots(Operation::Rotation, |slots| slots.rotate(x, steps))
    }

    fn chebyshev(&mut self, x: &G::Vector, coefficients: &[f64]) -> Result<G::Vector, ckks::Error> {
        self.in_slots(Operation::Polynomial, |slots| slots.chebyshev(x, coefficients))
    }

    fn transform(
        &mut self,
        x: &G::Vector,
        rotations: BabyGiant<'_>,
        diagonal: &(dyn Fn(usize, usize, &mut [f64]) -> bool + Sync),
    ) -> Result<G::Vector, ckks::Error> {
        self.in_slots(Operation::Transform, |slots| slots.transform(x, rotations, diagonal))
    }

    fn floor(&self) -> usize {
        self.inner.borrow_mut().slots().floor()
    }

    fn refresh(&mut self, x: &G::Vector) -> Result<G::Vector, ckks::Error> {
        self.in_slots(Operation::HalfBootstrap, |slots| slots.refresh(x))
    }

    fn refresh_pair(&mut self, x: &G::Vector, y: &G::Vector) -> Result<(G::Vector, G::Vector), ckks::Error> {
        self.in_slots(Operation::Bootstrap, |slots| slots.refresh_pair(x, y))
    }
}
