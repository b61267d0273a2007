//! Gaussian attention: exponents and values in the small ring, the kernel in slots.

use crate::algebra::{Algebra, Matrix};
use crate::executor::Engine;
use crate::functions::compose;
use crate::tensor::{Mask, Masked, Slots};
use crate::{Error, Places, Tensor};
use std::rc::Rc;
use veilformer::matrix::{Entries, Side};
use veilformer::transformer::Site;
use veilformer::transformer::slots::{Model, SlotArithmetic};

/// The level at which keys meet queries: what comes out of that goes to a bootstrap, which needs none.
pub(crate) const SCORES_LEVEL: usize = 1;

/// The queries of a head: by themselves, and by columns.
type Queries<G> = (Matrix<<G as Algebra>::Piece>, Vec<<G as Algebra>::Column>);

/// The entries of a product of gradients are said to be this many times its noise at least.
const NOISE_SHARE: f64 = 256.0;

/// Columns and rows whose products are added up.
pub(crate) struct Terms<'t, G: Algebra> {
    pub(crate) columns: &'t [G::Column],
    pub(crate) rows: &'t [G::Row],
}

impl<'t, G: Algebra> Terms<'t, G> {
    /// Those of every head.
    pub(crate) fn of(columns: &'t [Vec<G::Column>], rows: &'t [Vec<G::Row>]) -> Vec<Self> {
        columns.iter().zip(rows).map(|(columns, rows)| Self { columns, rows }).collect()
    }
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// How far from zero the kernel's exponents reach.
    pub(crate) fn kernel_reach(&self, layer: usize) -> Result<f64, Error> {
        let interval = self.approximation(Site::Kernel(layer))?.interval();
        Ok(interval.low().abs().max(interval.high().abs()))
    }

    /// S_ij for every head: row h·T + j holds what all queries take from key j. The queries are all tokens of the keys'
    /// sentence, or the first tokens of all sentences, of which only one is the keys'.
    pub(crate) fn scores(
        &mut self,
        query: &Tensor<G>,
        key: &Tensor<G>,
        layer: usize,
    ) -> Result<Tensor<G>, Error> {
        let config = self.config();
        let bound = self.kernel_reach(layer)? / (2.0 * config.kernel_scale());
        let (heads, features, length) = (config.heads, config.head_width(), config.length);
        let places = self.places(heads * length, false)?;
        let places = if query.first { places.with_used(self.sentences()) } else { places };
        let mut queries = Vec::new();
        let mut packed = Vec::with_capacity(key.packed.len());
        for (sentence, keys) in key.packed.iter().enumerate() {
            let own = if query.first { 0 } else { sentence };
            let matrix = query.packed.get(own).ok_or(Error::Form { operation: "the scores" })?;
            if sentence == 0 || !query.first {
                queries.clear();
                queries = self.queries(&matrix.at_most(SCORES_LEVEL))?;
            }
            let keys = self.algebra.split(&keys.at_most(SCORES_LEVEL))?;
            let mut exponents = Vec::with_capacity(heads * length);
            let mut entries = None;
            for (keys, (of_head, query_columns)) in keys.chunks(features).zip(&queries) {
                let key_columns = self.algebra.columns(keys, Side::Gather)?;
                let query_columns = &query_columns[..places.used()];
                let (of_rows, rows) =
                    self.algebra.exponents(&key_columns[..length], of_head, query_columns, bound)?;
                entries = Some(of_rows);
                exponents.extend(rows);
            }
            let waiting = entries.ok_or(Error::Form { operation: "the scores" })?;
            let packed_rows = self.pack_waiting(&places, &waiting, exponents, SCORES_LEVEL - 1)?;
            // An exponent of the kernel is 2c times half a squared distance.
            let scale = packed_rows.entries.scale / (2.0 * config.kernel_scale());
            let entries = Entries { scale, ..packed_rows.entries };
            packed.push(Matrix { entries, ..packed_rows });
        }
        let exponents = self.raise(&places, &packed)?;
        drop(packed);
        let kernel = self.kernel(&exponents, layer)?;
        Ok(Tensor { slots: Some(Rc::new(kernel)).into(), ..Tensor::packed(places, Vec::new(), query.first) })
    }

    /// The queries of every head, by themselves and by columns.
    fn queries(&mut self, x: &Matrix<G::Piece>) -> Result<Vec<Queries<G>>, Error> {
        let features = self.config().head_width();
        let rows = self.algebra.split(x)?;
        let of_head = |(head, rows)| {
            Ok((self.head(x, head * features, features)?, self.algebra.columns(rows, Side::Gather)?))
        };
        rows.chunks(features).enumerate().map(of_head).collect()
    }

    /// The rows of a head, at places 0, 1, ….
    pub(crate) fn head(
        &mut self,
        x: &Matrix<G::Piece>,
        first: usize,
        features: usize,
    ) -> Result<Matrix<G::Piece>, Error> {
        let (rank, degree) = (x.entries.layout.rank(), self.algebra.rings().degrees.small);
        let form = Error::Form { operation: "a head" };
        let piece = x.pieces.get(first / rank).ok_or(form)?;
        let entries = Entries { layout: x.entries.layout.with_rows(features)?, ..x.entries };
        let shift = (2 * degree - first % rank) % (2 * degree);
        let piece = Rc::new(self.algebra.add_shifted(&[(piece.clone(), shift)])?);
        Ok(Matrix { entries, level: x.level, pieces: vec![piece] })
    }

    /// exp of the exponents: slots hold `factor` times them, and are turned to [−1, 1] for nothing.
    fn kernel(&mut self, exponents: &Slots<G::Vector>, layer: usize) -> Result<Slots<G::Vector>, Error> {
        let approximation = self.approximation(Site::Kernel(layer))?;
        let reach = 1.0 / exponents.factor;
        let coefficients = compose(&approximation, 0.5 * reach, -0.5 * reach);
        let kernel = self.each(exponents, |slots, _, _, x| {
            let mut unit = slots.duplicate(x)?;
            slots.add_assign(&mut unit, x)?;
            slots.add_known_assign(&mut unit, &|_| 1.0)?;
            let mut y = slots.chebyshev(&unit, &coefficients)?;
            for _ in 0..approximation.squarings() {
                y = slots.multiply(&y, &y)?;
            }
            Ok(y)
        })?;
        Ok(Slots { factor: 1.0, ..kernel })
    }

    /// S·V for every head, of keys that the mask lets count.
    pub(crate) fn values(&mut self, scores: &Tensor<G>, value: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let length = self.config().length;
        let packed = match &value.mask {
            Some(mask) => self.masked(scores, mask)?.1.clone(),
            None => scores.packed.clone(),
        };
        let mut mixed: Vec<Matrix<G::Piece>> = Vec::with_capacity(value.packed.len());
        for (values, scores_of) in value.packed.iter().zip(&packed) {
            let rows = self.rows_by_head(&scores_of.at_most(values.level))?;
            let bound = values.entries.bound * length as f64;
            let columns = self.head_columns(values, Side::Scatter)?;
            let own = self.assemble(&Terms::of(&columns, &rows), bound, scores.first)?;
            // Without a mask it is a gradient.
            let own = if value.mask.is_none() { Self::tempered(own) } else { own };
            match mixed.first_mut() {
                // Every sentence has a column to itself, so that no entry grows.
                Some(sum) if scores.first => {
                    let bound = sum.entries.bound;
                    *sum = self.algebra.add(sum, &own)?;
                    sum.entries.bound = bound;
                }
                _ => mixed.push(own),
            }
        }
        Ok(Tensor::packed(self.places(self.config().width, scores.first)?, mixed, scores.first))
    }

    /// Scores of keys that the mask lets count, and of queries of the keys' own sentence: in slots, and lowered.
    fn masked(&mut self, scores: &Tensor<G>, mask: &Mask<G::Vector>) -> Result<Rc<Masked<G>>, Error> {
        if let Some(masked) = &*scores.masked.borrow() {
            return Ok(masked.clone());
        }
        let form = Error::Form { operation: "a product with scores" };
        let (slots, places, first) = (self.slots_of(scores)?, scores.places, scores.first);
        let masked = self.each(&slots, |slots, ciphertext, upper, x| {
            let y = slots.multiply(x, mask.vectors.get(ciphertext).ok_or(form)?)?;
            if !first {
                return Ok(y);
            }
            let own = |slot: usize| {
                let at = places.at(ciphertext, upper, slot);
                f64::from(at.is_some_and(|(sentence, _, column)| sentence == column))
            };
            let level = slots.level(&y).saturating_sub(1);
            Ok(slots.multiply_known(&y, &own, level)?)
        })?;
        let packed = self.lower(&places, &masked, 1.0)?;
        let masked = Rc::new((masked, packed));
        *scores.masked.borrow_mut() = Some(masked.clone());
        Ok(masked)
    }

    /// The rows of a sentence's scores, head by head: one for every key.
    pub(crate) fn rows_by_head(&mut self, scores: &Matrix<G::Piece>) -> Result<Vec<Vec<G::Row>>, Error> {
        let (length, mut rows) = (self.config().length, self.algebra.split(scores)?.into_iter());
        Ok((0..self.config().heads).map(|_| rows.by_ref().take(length).collect()).collect())
    }

    /// The columns of every head of a matrix of features.
    pub(crate) fn head_columns(
        &mut self,
        x: &Matrix<G::Piece>,
        side: Side,
    ) -> Result<Vec<Vec<G::Column>>, Error> {
        let rows = self.algebra.split(x)?;
        rows.chunks(self.config().head_width()).map(|rows| self.algebra.columns(rows, side)).collect()
    }

    /// Σ column ⊗ row for every head, heads below each other: a matrix of all features, within `bound`. Of gradients that
    /// is an estimate: one level above the bottom there is room, and their own bounds are calibrated.
    pub(crate) fn assemble(
        &mut self,
        terms: &[Terms<'_, G>],
        bound: f64,
        first: bool,
    ) -> Result<Matrix<G::Piece>, Error> {
        let form = Error::Form { operation: "a product with scores" };
        let (features, width) = (self.config().head_width(), self.config().width);
        let places = self.places(width, first)?;
        let rank = places.layout().rank();
        let mut pieces: Vec<Vec<(Rc<G::Piece>, usize)>> =
            (0..places.layout().ciphertexts()).map(|_| Vec::new()).collect();
        let mut result = None;
        for (head, Terms { columns, rows }) in terms.iter().enumerate() {
            let pairs: Vec<_> = columns.iter().zip(*rows).collect();
            let product = self.algebra.scatter(&pairs, bound)?;
            let at = head * features;
            let piece = product.pieces.first().ok_or(form)?.clone();
            pieces[at / rank].push((piece, at % rank));
            result = Some(product);
        }
        let result = result.ok_or(form)?;
        let entries = Entries { layout: *places.layout(), ..result.entries };
        let pieces = pieces
            .into_iter()
            .map(|terms| Ok(Rc::new(self.algebra.add_shifted(&terms)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Matrix { entries, level: result.level, pieces })
    }

    /// A product of gradients with no more noise than it can have to be of use. Predictions multiply the largest entries
    /// with each other; gradients are far below theirs, and after three products a prediction would exceed them.
    pub(crate) fn tempered(matrix: Matrix<G::Piece>) -> Matrix<G::Piece> {
        let most = matrix.entries.bound * matrix.entries.scale / NOISE_SHARE;
        let entries = Entries { noise: matrix.entries.noise.min(most), ..matrix.entries };
        Matrix { entries, ..matrix }
    }

    /// Rows that wait, packed and all at one scale.
    pub(crate) fn pack_waiting(
        &mut self,
        places: &Places,
        waiting: &Entries,
        rows: Vec<G::Piece>,
        level: usize,
    ) -> Result<Matrix<G::Piece>, Error> {
        let rank = places.layout().rank();
        let (mut entries, mut pieces, mut rows) = (*waiting, Vec::new(), rows.into_iter().peekable());
        while rows.peek().is_some() {
            let (of_piece, piece) = self.algebra.pick(waiting, rows.by_ref().take(rank).collect())?;
            entries = of_piece;
            pieces.push(Rc::new(piece));
        }
        Ok(Matrix { entries: Entries { layout: *places.layout(), ..entries }, level, pieces })
    }
}
