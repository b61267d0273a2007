//! The algebra on ciphertexts.

use crate::algebra::{Algebra, Halves, Matrix, Rings};
use crate::{Degrees, Error};
use std::rc::Rc;
use veilformer::accel::{Accelerator, Evaluations, Polynomial};
use veilformer::ckks::server::bootstrap::Bootstrap;
use veilformer::ckks::server::{Evaluator, Turns};
use veilformer::ckks::{Ciphertext, KeySource};
use veilformer::matrix::{
    EncryptedMatrix, EncryptedRow, EncryptedVector, Entries, PairEvaluator, PlainMatrix, RingSwitch, Side,
    SmallRing,
};
use veilformer::ring::Basis;
use veilformer::transformer::slots::EncryptedSlots;

/// Standard deviation of the error of a lowered slot that held 1: what a bootstrap and the functions leave.
const SLOT_ERROR: f64 = 1.0 / (1 << 19) as f64;
/// Standard deviation of what lowering and taking columns add to an entry that was scaled down in slots.
const COLUMN_NOISE: f64 = (1 << 17) as f64;
/// Ciphertexts of a plaintext product that are worked on at a time.
const CHUNK: usize = 8;

/// A piece of a matrix.
type Piece<A> = Ciphertext<A>;
/// A column by itself.
type Column<A> = EncryptedVector<[Ciphertext<A>; 1]>;

/// Computes with an accelerator for each ring and their keys.
pub struct Encrypted<'a, A: Accelerator<Word = u64>, K: KeySource<A> + ?Sized> {
    slots: EncryptedSlots<'a, A, K>,
    bootstrap: Bootstrap<'a, A, K>,
    ring: &'a SmallRing<'a, A, K>,
    pair: PairEvaluator<'a, 'a, A, K>,
    switch: RingSwitch<'a, A, K>,
    words: Vec<u64>,
    rings: Rings,
}

impl<'a, A: Accelerator<Word = u64>, K: KeySource<A> + ?Sized> Encrypted<'a, A, K> {
    /// Over the arithmetic of slots, a bootstrap with the same keys, and the small ring.
    ///
    /// # Errors
    /// When the small ring is not that of the big one's parameters; out of limbs.
    pub fn new(
        slots: EncryptedSlots<'a, A, K>,
        bootstrap: Bootstrap<'a, A, K>,
        ring: &'a SmallRing<'a, A, K>,
    ) -> Result<Self, Error> {
        let big = *slots.evaluator();
        let (parameters, small) = (big.parameters(), ring.evaluator().parameters());
        let switch = RingSwitch::new(big, ring.evaluator().accelerator())?;
        let level = bootstrap.plan().coefficient_level();
        let message_scale = bootstrap.plan().message_scale(parameters);
        let rings = Rings {
            degrees: Degrees { big: parameters.degree(), small: small.degree() },
            level,
            moduli: small.chain().of(Basis::level(level)).map(|q| q.value() as f64).collect(),
            message_scale,
            noise: message_scale * SLOT_ERROR,
        };
        let pair = PairEvaluator::new(ring, level, &mut vec![0; small.degree()])?;
        let words = vec![0; switch.words_needed()];
        Ok(Self { slots, bootstrap, ring, pair, switch, words, rings })
    }

    fn small(&self) -> Evaluator<'a, A, K> {
        *self.ring.evaluator()
    }

    /// The same modulo fewer primes: in the small ring a scale is not the level's but the matrix's.
    fn truncated(&self, x: &Piece<A>, level: usize) -> Result<Piece<A>, Error> {
        let accelerator = self.small().accelerator();
        let cut = |part: &Polynomial<A, Evaluations>| part.duplicate_to(accelerator, Basis::level(level));
        let [c0, c1] = x.parts();
        Ok(Ciphertext::from_parts([cut(c0)?, cut(c1)?])?)
    }

    fn known(&self, coefficients: &[i64], level: usize) -> Result<Polynomial<A, Evaluations>, Error> {
        let accelerator = self.small().accelerator();
        let polynomial = Polynomial::from_signed(accelerator, Basis::level(level), coefficients)?;
        Ok(polynomial.into_evaluations(accelerator)?)
    }

    /// The pieces, all of them at the matrix's level.
    fn gathered(&self, x: &Matrix<Piece<A>>, level: usize) -> Result<Vec<Piece<A>>, Error> {
        x.pieces.iter().map(|piece| self.truncated(piece, level)).collect()
    }
}

fn places<T>(count: usize) -> Vec<Option<T>> {
    (0..count).map(|_| None).collect()
}

fn shared<A: Accelerator>(pieces: Vec<Option<Piece<A>>>) -> Vec<Rc<Piece<A>>> {
    pieces.into_iter().flatten().map(Rc::new).collect()
}

impl<'a, A: Accelerator<Word = u64>, K: KeySource<A> + ?Sized> Algebra for Encrypted<'a, A, K> {
    type Vector = Ciphertext<A>;
    type Piece = Piece<A>;
    type Row = EncryptedRow<A>;
    type Column = Column<A>;
    type Slots = EncryptedSlots<'a, A, K>;

    fn rings(&self) -> &Rings {
        &self.rings
    }

    fn slots(&mut self) -> &mut Self::Slots {
        &mut self.slots
    }

    fn zero(&mut self) -> Result<Ciphertext<A>, Error> {
        let level = self.bootstrap.plan().output();
        Ok(Ciphertext::zero(self.slots.evaluator().accelerator(), level)?)
    }

    fn raise(
        &mut self,
        pieces: &[Option<Rc<Piece<A>>>],
        upper: bool,
    ) -> Result<Halves<Ciphertext<A>>, Error> {
        let bottom = |piece: &Option<Rc<Piece<A>>>| match piece {
            Some(piece) => self.truncated(piece, 0),
            None => Ok(Ciphertext::zero(self.small().accelerator(), 0)?),
        };
        let pieces = pieces.iter().map(bottom).collect::<Result<Vec<_>, Error>>()?;
        let whole = self.switch.to_big(&pieces, &mut self.words)?;
        drop(pieces);
        if upper {
            let [lower, upper] = self.bootstrap.refresh_coefficients(&whole)?;
            Ok((lower, Some(upper)))
        } else {
            Ok((self.bootstrap.refresh_lower_coefficients(&whole)?, None))
        }
    }

    fn pair(&mut self, x: &Ciphertext<A>, y: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        Ok(self.bootstrap.combine(x, y)?)
    }

    fn turn_blocks(
        &mut self,
        x: &[Ciphertext<A>],
        turns: &Turns,
        entry: &dyn Fn(usize, usize) -> f64,
    ) -> Result<Vec<Ciphertext<A>>, Error> {
        let evaluator = *self.slots.evaluator();
        let (accelerator, level) = (evaluator.accelerator(), x.first().map_or(0, Ciphertext::level));
        let limbs = 0..turns.limbs(evaluator.parameters(), level);
        let mut factors = limbs.map(|_| accelerator.allocate()).collect::<Result<Vec<_>, _>>()?;
        let degree = self.rings.degrees.big;
        let (mut residues, mut gathered) = (vec![0; degree], vec![0; degree]);
        self.slots.prepare_turns((turns, level), entry, [&mut residues, &mut gathered], &mut factors)?;
        x.iter().map(|x| Ok(evaluator.apply_turns(x, turns, &factors)?)).collect()
    }

    fn apart(&mut self, z: &Ciphertext<A>) -> Result<[Ciphertext<A>; 2], Error> {
        Ok(self.bootstrap.apart(z)?)
    }

    fn lower(&mut self, (lower, upper): &Halves<Ciphertext<A>>) -> Result<Vec<Piece<A>>, Error> {
        let coefficients = match upper {
            Some(upper) => self.bootstrap.slot_to_coeff(&self.bootstrap.pair(lower, upper)?)?,
            None => self.bootstrap.slot_to_coeff(lower)?,
        };
        self.pieces(&coefficients)
    }

    fn pieces(&mut self, x: &Ciphertext<A>) -> Result<Vec<Piece<A>>, Error> {
        let mut out = places(self.switch.factor());
        self.switch.to_small(x, &mut self.words, &mut out)?;
        Ok(out.into_iter().flatten().collect())
    }

    fn multiply_plain(
        &mut self,
        w: &PlainMatrix<'_>,
        x: &Matrix<Piece<A>>,
        scale: f64,
    ) -> Result<Matrix<Piece<A>>, Error> {
        let mut products = self.multiply_plain_each(w, std::slice::from_ref(x), scale)?;
        products.pop().ok_or(Error::Form { operation: "a plaintext product" })
    }

    fn multiply_plain_each(
        &mut self,
        w: &PlainMatrix<'_>,
        x: &[Matrix<Piece<A>>],
        scale: f64,
    ) -> Result<Vec<Matrix<Piece<A>>>, Error> {
        let (ring, accelerator) = (self.ring, self.small().accelerator());
        let mut products = Vec::with_capacity(x.len());
        for x in x {
            let pieces = self.gathered(x, x.level)?;
            let level = pieces.first().map_or(0, Ciphertext::level);
            let out = places(x.entries.layout.with_rows(w.shape().0)?.ciphertexts());
            products.push((EncryptedMatrix::new(x.entries, pieces)?, level, out, x.entries));
        }
        // Each by itself has too few ciphertexts for several threads.
        accelerator.for_each(&mut products, |_, (x, level, out, entries)| -> Result<(), Error> {
            let chunk = CHUNK.min(out.len());
            let limbs = SmallRing::<A, K>::scratch_limbs(x.entries(), *level, chunk);
            let mut scratch = (0..limbs).map(|_| accelerator.allocate()).collect::<Result<Vec<_>, _>>()?;
            *entries = ring.multiply_plain(w, x, scale, &mut scratch, out)?;
            Ok(())
        })?;
        let product = |(_, level, out, entries)| Matrix { entries, level: level - 1, pieces: shared(out) };
        Ok(products.into_iter().map(product).collect())
    }

    fn add(&mut self, x: &Matrix<Piece<A>>, y: &Matrix<Piece<A>>) -> Result<Matrix<Piece<A>>, Error> {
        let level = x.level.min(y.level);
        let mut sum = EncryptedMatrix::new(x.entries, self.gathered(x, level)?)?;
        let other = EncryptedMatrix::new(y.entries, self.gathered(y, level)?)?;
        self.ring.add(&mut sum, &other)?;
        let entries = *sum.entries();
        Ok(Matrix { entries, level, pieces: sum.into_ciphertexts().into_iter().map(Rc::new).collect() })
    }

    fn add_shifted(&mut self, x: &[(Rc<Piece<A>>, usize)]) -> Result<Piece<A>, Error> {
        let (ev, degree) = (self.small(), self.rings.degrees.small);
        let level = x.iter().map(|(piece, _)| piece.level()).min().unwrap_or(0);
        let mut sum = Ciphertext::zero(ev.accelerator(), level)?;
        for (piece, exponent) in x {
            let mut piece = self.truncated(piece, level)?;
            let exponent = exponent % (2 * degree);
            if exponent > 0 {
                let mut monomial = vec![0; degree];
                monomial[exponent % degree] = if exponent < degree { 1 } else { -1 };
                let monomial = self.known(&monomial, level)?;
                let [mut c0, mut c1] = {
                    let [c0, c1] = piece.parts();
                    [c0.duplicate(ev.accelerator())?, c1.duplicate(ev.accelerator())?]
                };
                c0.multiply_assign(ev.accelerator(), &monomial)?;
                c1.multiply_assign(ev.accelerator(), &monomial)?;
                piece = Ciphertext::from_parts([c0, c1])?;
            }
            ev.add_assign(&mut sum, &piece)?;
        }
        Ok(sum)
    }

    fn split(&mut self, x: &Matrix<Piece<A>>) -> Result<Vec<EncryptedRow<A>>, Error> {
        let layout = x.entries.layout;
        let mut rows = Vec::with_capacity(layout.rows());
        for piece in &x.pieces {
            let mut out = places(layout.rank().min(layout.rows() - rows.len()));
            self.pair.split(&self.truncated(piece, x.level)?, &x.entries, &mut out)?;
            rows.extend(out.into_iter().flatten());
        }
        Ok(rows)
    }

    fn columns(&mut self, rows: &[EncryptedRow<A>], side: Side) -> Result<Vec<Column<A>>, Error> {
        let columns = rows.first().map_or(0, |row| self.rings.degrees.small / row.entries().layout.rank());
        let mut out = places(columns);
        self.pair.columns(rows, side, &mut out)?;
        Ok(out.into_iter().flatten().collect())
    }

    fn exponents(
        &mut self,
        keys: &[Column<A>],
        queries: &Matrix<Piece<A>>,
        query_columns: &[Column<A>],
        bound: f64,
    ) -> Result<(Entries, Vec<Piece<A>>), Error> {
        let pieces = self.gathered(queries, queries.level)?;
        let queries = EncryptedMatrix::new(queries.entries, &pieces[..])?;
        let zero = || Ok(Ciphertext::zero(self.small().accelerator(), 0)?);
        let mut rows = keys.iter().map(|_| zero()).collect::<Result<Vec<_>, Error>>()?;
        let entries = self.pair.exponents(keys, &queries, query_columns, bound, &mut rows)?;
        Ok((entries, rows))
    }

    fn pick(&mut self, entries: &Entries, mut rows: Vec<Piece<A>>) -> Result<(Entries, Piece<A>), Error> {
        let packed = self.pair.pick(entries, &mut rows)?;
        let entries = *packed.entries();
        let [piece] = packed.into_ciphertexts();
        Ok((entries, piece))
    }

    fn scatter(
        &mut self,
        terms: &[(&Column<A>, &EncryptedRow<A>)],
        bound: f64,
    ) -> Result<Matrix<Piece<A>>, Error> {
        // Rows may have been kept for what takes more levels.
        let level = terms.iter().map(|(column, _)| column.ciphertexts()[0].level()).min().unwrap_or(0);
        let cut = |row: &EncryptedRow<A>| {
            let ciphertext = self.truncated(row.ciphertext(), level)?;
            Ok(EncryptedRow::from_row(EncryptedMatrix::new(*row.entries(), [ciphertext])?)?)
        };
        let above = terms.iter().filter(|(_, row)| row.ciphertext().level() > level);
        let above = above.map(|(_, row)| cut(row)).collect::<Result<Vec<_>, Error>>()?;
        let mut cut = above.iter();
        let terms: Vec<_> = terms
            .iter()
            .map(|&(column, row)| {
                let row = if row.ciphertext().level() > level { cut.next().unwrap_or(row) } else { row };
                (column, row)
            })
            .collect();
        let mut out = places(1);
        let entries = self.ring.scatter(&terms, bound, &mut out)?;
        Ok(Matrix { entries, level: level.saturating_sub(1), pieces: shared(out) })
    }

    fn first_rows(&mut self, x: &Matrix<Piece<A>>, count: usize) -> Result<Vec<EncryptedRow<A>>, Error> {
        let rows = Matrix {
            entries: Entries { layout: x.entries.layout.with_rows(count)?, ..x.entries },
            ..x.clone()
        };
        self.split(&rows)
    }

    fn at_scale(&mut self, column: Column<A>, scale: f64) -> Result<Column<A>, Error> {
        let (side, known) = (column.side(), column.entries());
        // The errors of slots were scaled with them; what lowering and taking columns add was not.
        let noise = (known.noise * (scale / known.scale).min(1.0)).hypot(COLUMN_NOISE);
        let entries = Entries { scale, noise, ..*known };
        let [ciphertext] = column.ciphertexts();
        let ciphertext = ciphertext.duplicate(self.small().accelerator())?;
        Ok(EncryptedVector::new(side, entries, [ciphertext])?)
    }

    fn turn(&mut self, column: &Column<A>) -> Result<Column<A>, Error> {
        let mut out = [None];
        let entries = self.ring.turn(column, &mut out)?;
        let [turned] = out;
        let turned = turned.ok_or(Error::Form { operation: "a column" })?;
        Ok(EncryptedVector::new(column.side().other(), entries, [turned])?)
    }

    fn gather(
        &mut self,
        columns: &[Rc<Column<A>>],
        x: &Matrix<Piece<A>>,
        bound: f64,
    ) -> Result<EncryptedRow<A>, Error> {
        let first = columns.first().ok_or(Error::Form { operation: "a contraction" })?;
        let entries = Entries { layout: x.entries.layout, ..*first.entries() };
        let of_column = |column: &Rc<Column<A>>| self.truncated(&column.ciphertexts()[0], x.level);
        let vector = columns.iter().map(of_column).collect::<Result<Vec<_>, Error>>()?;
        let vector = EncryptedVector::new(first.side(), entries, vector)?;
        let x = EncryptedMatrix::new(x.entries, self.gathered(x, x.level)?)?;
        Ok(self.ring.gather(&vector, &x, bound)?)
    }

    fn pack(&mut self, rows: &[EncryptedRow<A>]) -> Result<Matrix<Piece<A>>, Error> {
        let first = rows.first().ok_or(Error::Form { operation: "packing" })?;
        let entries = *first.entries();
        let (rank, level) = (entries.layout.rank(), first.ciphertext().level());
        let mut pieces = Vec::new();
        for rows in rows.chunks(rank) {
            let terms = rows
                .iter()
                .enumerate()
                .map(|(i, row)| Ok((Rc::new(self.truncated(row.ciphertext(), level)?), i)))
                .collect::<Result<Vec<_>, Error>>()?;
            pieces.push(Rc::new(self.add_shifted(&terms)?));
        }
        let noise = entries.noise * (rows.len().min(rank) as f64).sqrt();
        let layout = entries.layout.with_rows(rows.len())?;
        Ok(Matrix { entries: Entries { layout, noise, ..entries }, level, pieces })
    }

    fn subtract(&mut self, x: &Matrix<Piece<A>>, y: &Matrix<Piece<A>>) -> Result<Matrix<Piece<A>>, Error> {
        let ev = self.small();
        let mut pieces = self.gathered(y, y.level)?;
        pieces.iter_mut().try_for_each(|piece| ev.negate_assign(piece))?;
        let pieces = pieces.into_iter().map(Rc::new).collect();
        self.add(x, &Matrix { pieces, ..y.clone() })
    }

    fn lift(&mut self, x: &Matrix<Piece<A>>, factor: i32) -> Result<Matrix<Piece<A>>, Error> {
        let ev = self.small();
        let mut pieces = self.gathered(x, x.level)?;
        pieces.iter_mut().try_for_each(|piece| ev.multiply_integer_assign(piece, factor))?;
        let (scale, noise) = (x.entries.scale * f64::from(factor), x.entries.noise * f64::from(factor));
        let entries = Entries { scale, noise, ..x.entries };
        Ok(Matrix { entries, level: x.level, pieces: pieces.into_iter().map(Rc::new).collect() })
    }

    fn rescale(&mut self, x: &Matrix<Piece<A>>, scale: f64) -> Result<Matrix<Piece<A>>, Error> {
        let ev = self.small();
        let (form, parameters) = (Error::Form { operation: "a change of scale" }, ev.parameters());
        let modulus = *self.rings.moduli.get(x.level).ok_or(form)?;
        let integer = (scale * modulus / x.entries.scale).round().max(1.0);
        // The scheme thinks of its own scale: the constant is that integer in its terms.
        let value = integer / ev.factor_scale(x.level, x.level);
        let mut pieces = Vec::with_capacity(x.pieces.len());
        for piece in self.gathered(x, x.level)? {
            let mut product = ev.product(x.level)?;
            ev.multiply_constant_add(&mut product, &piece, value)?;
            pieces.push(Rc::new(ev.rescale(product)?));
        }
        let rounding = (parameters.degree() as f64 / 18.0).sqrt();
        let entries = Entries {
            scale: x.entries.scale * integer / modulus,
            noise: (x.entries.noise * integer / modulus).hypot(rounding),
            ..x.entries
        };
        Ok(Matrix { entries, level: x.level - 1, pieces })
    }

    fn row_products(
        &mut self,
        left: &[Column<A>],
        right: &Matrix<Piece<A>>,
        bound: f64,
    ) -> Result<(Entries, Vec<Piece<A>>), Error> {
        let pieces = self.gathered(right, right.level)?;
        let right = EncryptedMatrix::new(right.entries, &pieces[..])?;
        let zero = || Ok(Ciphertext::zero(self.small().accelerator(), 0)?);
        let mut rows = left.iter().map(|_| zero()).collect::<Result<Vec<_>, Error>>()?;
        let entries = self.pair.row_products(left, &right, bound, &mut rows)?;
        Ok((entries, rows))
    }

    fn transposed_rows(
        &mut self,
        blocks: &[Vec<Column<A>>],
        count: usize,
    ) -> Result<(Entries, Vec<Piece<A>>), Error> {
        let zero = || Ok(Ciphertext::zero(self.small().accelerator(), 0)?);
        let mut rows = (0..count).map(|_| zero()).collect::<Result<Vec<_>, Error>>()?;
        let blocks: Vec<&[Column<A>]> = blocks.iter().map(Vec::as_slice).collect();
        let entries = self.pair.transposed_rows(&blocks, 0, &mut rows)?;
        Ok((entries, rows))
    }

    fn outer(
        &mut self,
        x: &Matrix<Piece<A>>,
        row: &EncryptedRow<A>,
        bound: f64,
    ) -> Result<Matrix<Piece<A>>, Error> {
        let x = EncryptedMatrix::new(x.entries, self.gathered(x, x.level)?)?;
        let level = x.ciphertexts().first().map_or(0, Ciphertext::level);
        let mut out = places(x.ciphertexts().len());
        let entries = self.ring.outer(&x, row, bound, &mut out)?;
        Ok(Matrix { entries, level: level.saturating_sub(1), pieces: shared(out) })
    }

    fn total(&mut self, rows: &[EncryptedRow<A>]) -> Result<EncryptedRow<A>, Error> {
        let (ev, first) = (self.small(), rows.first().ok_or(Error::Form { operation: "a sum of rows" })?);
        let (mut sum, mut entries) = (first.ciphertext().duplicate(ev.accelerator())?, *first.entries());
        for row in &rows[1..] {
            ev.add_assign(&mut sum, row.ciphertext())?;
            entries = entries.plus(row.entries())?;
        }
        Ok(EncryptedRow::from_row(EncryptedMatrix::new(entries, [sum])?)?)
    }

    fn diagonal(&mut self, row: &EncryptedRow<A>, count: usize) -> Result<Vec<EncryptedRow<A>>, Error> {
        let rank = row.entries().layout.rank();
        let columns = self.columns(std::slice::from_ref(row), Side::Scatter)?;
        let mut rows = Vec::with_capacity(count);
        for (i, column) in columns.iter().enumerate().take(count) {
            let [ciphertext] = column.ciphertexts();
            let ciphertext = Rc::new(ciphertext.duplicate(self.small().accelerator())?);
            let shifted = self.add_shifted(&[(ciphertext, rank * i)])?;
            rows.push(EncryptedRow::from_row(EncryptedMatrix::new(*column.entries(), [shifted])?)?);
        }
        Ok(rows)
    }

    fn column_matrix(&mut self, column: &Column<A>) -> Result<Matrix<Piece<A>>, Error> {
        let [ciphertext] = column.ciphertexts();
        let level = ciphertext.level();
        let piece = Rc::new(ciphertext.duplicate(self.small().accelerator())?);
        Ok(Matrix { entries: *column.entries(), level, pieces: vec![piece] })
    }
}
