//! Gradients of attention: products with scores and with the gradient by their exponents, and with their transposes.
//!
//! What is read more than once, rows and columns of a sentence's matrices, is taken apart once, sentence by sentence, and
//! dropped with it: those of a batch would take gigabytes.

use crate::algebra::{Algebra, Matrix};
use crate::attention::Terms;
use crate::executor::Engine;
use crate::linear::FACTOR_SCALE;
use crate::{Error, Places, Tensor};
use veilformer::matrix::Side;
use veilformer::transformer::Kernel;
use veilformer::transformer::slots::Model;

/// Rows or columns of every head.
type ByHead<T> = Vec<Vec<T>>;

/// What was made for a sentence, or for each.
const FORM: Error = Error::Form { operation: "gradients of attention" };

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// X·Yᵀ for every head, in the places of scores: row h·T + j holds what row j of Y makes with all rows of X. Entries are
    /// within `reach`, or whatever the factors' bounds allow.
    pub(crate) fn products_of_heads(
        &mut self,
        x: &Tensor<G>,
        y: &Tensor<G>,
        reach: Option<f64>,
    ) -> Result<Tensor<G>, Error> {
        let config = self.config();
        let (heads, features, length) = (config.heads, config.head_width(), config.length);
        let places = self.places(heads * length, false)?;
        let places = if x.first { places.with_used(self.sentences()) } else { places };
        let mut packed = Vec::with_capacity(y.packed.len());
        for (sentence, keys) in y.packed.iter().enumerate() {
            let form = Error::Form { operation: "products of heads" };
            let queries = x.packed.get(if x.first { 0 } else { sentence }).ok_or(form)?;
            let queries = Matrix { level: queries.level.min(keys.level), ..queries.clone() };
            let columns =
                self.head_columns(&Matrix { level: queries.level, ..keys.clone() }, Side::Gather)?;
            let (mut waiting, mut rows) = (None, Vec::with_capacity(heads * length));
            for (head, columns) in columns.iter().enumerate() {
                let of_head = self.head(&queries, head * features, features)?;
                let most = queries.entries.bound * keys.entries.bound * features as f64;
                let bound = reach.unwrap_or(most);
                let (entries, of_head) = self.algebra.row_products(&columns[..length], &of_head, bound)?;
                waiting = Some(entries);
                rows.extend(of_head);
            }
            let level = queries.level.saturating_sub(1);
            packed.push(self.pack_waiting(&places, &waiting.ok_or(form)?, rows, level)?);
        }
        Ok(Tensor::packed(places, packed, x.first))
    }

    /// dS ⊙ S, S masked: what is masked has no gradient.
    pub(crate) fn scores_backward(
        &mut self,
        scores: &Tensor<G>,
        d_scores: &Tensor<G>,
    ) -> Result<Tensor<G>, Error> {
        let masked =
            scores.masked.borrow().clone().ok_or(Error::Form { operation: "a kernel's gradient" })?;
        let d = self.slots_of(d_scores)?;
        let product = self.products(&d, &masked.0)?;
        let packed = self.lower(&scores.places, &product, 1.0 / product.factor)?;
        Ok(Tensor::packed(scores.places, packed, scores.first))
    }

    /// The rows of the transpose of a sentence's scores, head by head, at `scale` and one level below: as many as there
    /// are queries. Heads share the ciphertexts that they are packed into.
    fn transposed(
        &mut self,
        rows: &[Vec<G::Row>],
        level: usize,
        places: &Places,
        scale: f64,
    ) -> Result<ByHead<G::Row>, Error> {
        let queries = places.used();
        let (mut known, mut waiting) = (None, Vec::with_capacity(rows.len() * queries));
        for rows in rows {
            let blocks = rows.chunks(places.layout().rank());
            let blocks = blocks.map(|rows| self.algebra.columns(rows, Side::Gather));
            let blocks = blocks.collect::<Result<Vec<_>, Error>>()?;
            let (entries, turned) = self.algebra.transposed_rows(&blocks, queries)?;
            known = Some(entries);
            waiting.extend(turned);
        }
        let turned = self.places(rows.len() * queries, false)?;
        let packed = self.pack_waiting(&turned, &known.ok_or(FORM)?, waiting, level)?;
        let packed = self.algebra.rescale(&packed, scale)?;
        let mut turned = self.algebra.split(&packed)?.into_iter();
        Ok(rows.iter().map(|_| turned.by_ref().take(queries).collect()).collect())
    }

    /// The scores, masked where they were.
    fn scores_of(&self, scores: &Tensor<G>) -> Result<Vec<Matrix<G::Piece>>, Error> {
        match &*scores.masked.borrow() {
            Some(masked) => Ok(masked.1.clone()),
            None => Ok(scores.packed.clone()),
        }
    }

    /// The sum of the scores of all sentences, where every one has a column to itself: queries of first tokens.
    fn together(&mut self, scores: &[Matrix<G::Piece>]) -> Result<Matrix<G::Piece>, Error> {
        let mut sum = scores.first().ok_or(FORM)?.clone();
        for more in &scores[1..] {
            let bound = sum.entries.bound;
            sum = self.algebra.add(&sum, more)?;
            sum.entries.bound = bound;
        }
        Ok(sum)
    }

    /// Sᵀ·X for every head.
    pub(crate) fn values_transposed(
        &mut self,
        scores: &Tensor<G>,
        x: &Tensor<G>,
    ) -> Result<Tensor<G>, Error> {
        let packed = self.scores_of(scores)?;
        let apart = if x.first { vec![self.together(&packed)?] } else { packed.clone() };
        let mut mixed = Vec::with_capacity(packed.len());
        for (matrix, scores_of) in x.packed.iter().zip(&apart) {
            let matrix = matrix.at_most(scores_of.level.saturating_sub(1));
            let (rows, scale) = (self.rows_by_head(scores_of)?, self.turned_scale(&matrix)?);
            let rows = self.transposed(&rows, scores_of.level, &scores.places, scale)?;
            let columns = self.head_columns(&matrix, Side::Scatter)?;
            for sentence in 0..if x.first { packed.len() } else { 1 } {
                let own = if x.first { sentence..sentence + 1 } else { 0..rows[0].len() };
                let terms = Terms::of(&columns, &rows).into_iter().map(|terms| terms.only(own.clone()));
                let product = self.assemble(&terms.collect::<Vec<_>>(), matrix.entries.bound, false)?;
                mixed.push(Self::tempered(product));
            }
        }
        Ok(Tensor::packed(self.places(self.config().width, false)?, mixed, false))
    }

    /// The scale of transposed scores that brings a product with columns of x to [`FACTOR_SCALE`].
    fn turned_scale(&self, x: &Matrix<G::Piece>) -> Result<f64, Error> {
        let rings = self.algebra.rings();
        let columns = (rings.degrees.small / x.entries.layout.rank()) as f64;
        let modulus = rings.moduli.get(x.level).ok_or(Error::Form { operation: "a transpose" })?;
        Ok(FACTOR_SCALE * modulus / (columns * x.entries.scale))
    }

    /// The gradients by queries and keys, where wanted, from that by the exponents.
    pub(crate) fn exponent_gradients(
        &mut self,
        e: &Tensor<G>,
        [query, key]: [&Tensor<G>; 2],
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor<G>>; 2], Error> {
        let (gaussian, length) = (self.config().kernel == Kernel::Gaussian, self.config().length);
        let queries = e.places.used();
        let (mut by_query, mut by_key): (Vec<Matrix<G::Piece>>, Vec<_>) = (Vec::new(), Vec::new());
        let (mut query_columns, mut sums, mut turned) = (Vec::new(), Vec::new(), Vec::new());
        for (sentence, (exponents, keys)) in e.packed.iter().zip(&key.packed).enumerate() {
            let own = query.packed.get(if e.first { 0 } else { sentence }).ok_or(FORM)?;
            let level = own.level.min(keys.level).min(exponents.level.saturating_sub(1));
            let (own, keys) = (own.at_most(level), keys.at_most(level));
            let rows = self.rows_by_head(exponents)?;
            let key_columns = self.head_columns(&keys, Side::Scatter)?;
            if sentence == 0 || !e.first {
                query_columns = self.head_columns(&own, Side::Scatter)?;
            }
            if wanted[0] {
                let mixed = self.assemble(&Terms::of(&key_columns, &rows), keys.entries.bound, e.first)?;
                let mixed = Self::tempered(mixed);
                match by_query.pop() {
                    // Every sentence has a column to itself, so that no entry grows.
                    Some(sum) if e.first => {
                        let mut more = self.algebra.add(&sum, &mixed)?;
                        more.entries.bound = sum.entries.bound;
                        by_query.push(more);
                    }
                    other => by_query.extend(other.into_iter().chain([mixed])),
                }
                if gaussian {
                    self.add_sums(&mut sums, &rows)?;
                }
                // Of first tokens once all sentences are in.
                if gaussian && (!e.first || sentence + 1 == e.packed.len()) {
                    let mixed = by_query.pop().ok_or(FORM)?;
                    let held = self.weighed(&own, &query_columns, &sums, queries, e.first)?;
                    by_query.push(self.difference(&mixed, &held)?);
                    sums.clear();
                }
            }
            if wanted[1] {
                let scale = self.turned_scale(&own)?;
                let own_rows = if e.first { sentence..sentence + 1 } else { 0..queries };
                if !e.first {
                    turned = self.transposed(&rows, exponents.level, &e.places, scale)?;
                } else if sentence == 0 {
                    let all = self.together(&e.packed)?;
                    let rows = self.rows_by_head(&all)?;
                    turned = self.transposed(&rows, all.level, &e.places, scale)?;
                }
                let terms = Terms::of(&query_columns, &turned).into_iter();
                let terms: Vec<_> = terms.map(|terms| terms.only(own_rows.clone())).collect();
                let mixed = self.assemble(&terms, own.entries.bound, false)?;
                let mut mixed = Self::tempered(mixed);
                if gaussian {
                    let mut sums = Vec::with_capacity(turned.len());
                    for rows in &turned {
                        sums.push(vec![self.algebra.total(&rows[own_rows.clone()])?]);
                    }
                    let held = self.weighed(&keys, &key_columns, &sums, length, false)?;
                    mixed = self.difference(&mixed, &held)?;
                }
                by_key.push(mixed);
            }
        }
        Ok([
            wanted[0].then(|| Tensor::packed(query.places, by_query, e.first)),
            wanted[1].then(|| Tensor::packed(key.places, by_key, false)),
        ])
    }

    /// Adds the sum of every head's rows to what is to be summed up.
    fn add_sums(&mut self, sums: &mut ByHead<G::Row>, rows: &[Vec<G::Row>]) -> Result<(), Error> {
        sums.resize_with(rows.len(), Vec::new);
        for (sums, rows) in sums.iter_mut().zip(rows) {
            sums.push(self.algebra.total(rows)?);
        }
        Ok(())
    }

    fn difference(&mut self, x: &Matrix<G::Piece>, y: &Matrix<G::Piece>) -> Result<Matrix<G::Piece>, Error> {
        let [x, y] = self.aligned(x, y)?;
        self.algebra.subtract(&x, &y)
    }

    /// Row i of X times the sum of what query i takes of all keys.
    pub(crate) fn weighed_by_rows(&mut self, scores: &Tensor<G>, x: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let (packed, mut sums, mut mixed) = (self.scores_of(scores)?, Vec::new(), Vec::new());
        for (sentence, scores_of) in packed.iter().enumerate() {
            let matrix = x.packed.get(if scores.first { 0 } else { sentence }).ok_or(FORM)?;
            let rows = self.rows_by_head(&scores_of.at_most(matrix.level))?;
            self.add_sums(&mut sums, &rows)?;
            if !scores.first || sentence + 1 == packed.len() {
                let columns = self.head_columns(matrix, Side::Scatter)?;
                mixed.push(self.weighed(matrix, &columns, &sums, scores.places.used(), scores.first)?);
                sums.clear();
            }
        }
        Ok(Tensor::packed(x.places, mixed, scores.first))
    }

    /// Row j of X times the sum of what all queries take of key j.
    pub(crate) fn weighed_by_columns(
        &mut self,
        scores: &Tensor<G>,
        x: &Tensor<G>,
    ) -> Result<Tensor<G>, Error> {
        let mut mixed = Vec::with_capacity(x.packed.len());
        for (matrix, scores_of) in x.packed.iter().zip(self.scores_of(scores)?) {
            let (rows, scale) = (self.rows_by_head(&scores_of)?, self.turned_scale(matrix)?);
            let rows = self.transposed(&rows, scores_of.level, &scores.places, scale)?;
            let (columns, mut sums) = (self.head_columns(matrix, Side::Scatter)?, Vec::new());
            self.add_sums(&mut sums, &rows)?;
            mixed.push(self.weighed(matrix, &columns, &sums, self.config().length, false)?);
        }
        Ok(Tensor::packed(x.places, mixed, false))
    }

    /// X·diag(Σ rows) for every head, X by its columns.
    fn weighed(
        &mut self,
        x: &Matrix<G::Piece>,
        columns: &[Vec<G::Column>],
        sums: &[Vec<G::Row>],
        count: usize,
        first: bool,
    ) -> Result<Matrix<G::Piece>, Error> {
        let mut diagonals = Vec::with_capacity(columns.len());
        for rows in sums {
            let total = self.algebra.total(rows)?;
            diagonals.push(self.algebra.diagonal(&total, count)?);
        }
        let product = self.assemble(&Terms::of(columns, &diagonals), x.entries.bound, first)?;
        Ok(Self::tempered(product))
    }
}
