//! Gaussian attention: exponents and values in the small ring, the kernel in slots.

use crate::algebra::{Algebra, Matrix};
use crate::executor::Engine;
use crate::functions::compose;
use crate::tensor::Slots;
use crate::{Error, Tensor};
use std::rc::Rc;
use veilformer::matrix::{Entries, Side};
use veilformer::transformer::Site;
use veilformer::transformer::slots::{Model, SlotArithmetic};

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// How far below zero the kernel's exponents reach.
    pub(crate) fn kernel_reach(&self, layer: usize) -> Result<f64, Error> {
        Ok(-self.approximation(Site::Kernel(layer))?.interval().low())
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
        let rank = places.layout().rank();
        let mut queries: Option<Vec<G::Row>> = None;
        let mut packed = Vec::with_capacity(key.packed.len());
        for (sentence, keys) in key.packed.iter().enumerate() {
            let own = if query.first { 0 } else { sentence };
            let matrix = query.packed.get(own).ok_or(Error::Form { operation: "the scores" })?;
            if queries.is_none() || !query.first {
                queries = Some(self.algebra.split(matrix)?);
            }
            let keys = self.algebra.split(keys)?;
            let mut exponents = Vec::with_capacity(heads * length);
            let mut entries = None;
            for (head, keys) in keys.chunks(features).enumerate() {
                let first = head * features;
                let rows = queries.as_ref().map_or(&[][..], |rows| &rows[first..first + features]);
                let query_columns = self.algebra.columns(rows, Side::Gather)?;
                let key_columns = self.algebra.columns(keys, Side::Gather)?;
                let of_head = self.head(matrix, first, features)?;
                let (of_rows, rows) =
                    self.algebra.exponents(&key_columns[..length], &of_head, &query_columns, bound)?;
                entries = Some(of_rows);
                exponents.extend(rows);
            }
            let waiting = entries.ok_or(Error::Form { operation: "the scores" })?;
            let (mut entries, mut pieces) = (waiting, Vec::new());
            let mut exponents = exponents.into_iter().peekable();
            while exponents.peek().is_some() {
                let (of_piece, piece) =
                    self.algebra.pick(&waiting, exponents.by_ref().take(rank).collect())?;
                entries = of_piece;
                pieces.push(Rc::new(piece));
            }
            // An exponent of the kernel is 2c times half a squared distance.
            let scale = entries.scale / (2.0 * config.kernel_scale());
            let entries = Entries { layout: *places.layout(), scale, ..entries };
            packed.push(Matrix { entries, level: matrix.level.saturating_sub(1), pieces });
        }
        let exponents = self.raise(&places, &packed)?;
        drop(packed);
        let kernel = self.kernel(&exponents, layer)?;
        Ok(Tensor { slots: Some(Rc::new(kernel)).into(), ..Tensor::packed(places, Vec::new(), query.first) })
    }

    /// The rows of a head, at places 0, 1, ….
    fn head(
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
        let form = Error::Form { operation: "a product with scores" };
        let (config, first) = (self.config(), scores.first);
        let (heads, features, length) = (config.heads, config.head_width(), config.length);
        let (slots, scores_places) = (self.slots_of(scores)?, scores.places);
        let mask = value.mask.clone().ok_or(form)?;
        let masked = self.each(&slots, |slots, ciphertext, upper, x| {
            let y = slots.multiply(x, mask.vectors.get(ciphertext).ok_or(form)?)?;
            if !first {
                return Ok(y);
            }
            // Of the first tokens of all sentences only the keys' own asks.
            let own = |slot: usize| {
                let at = scores_places.at(ciphertext, upper, slot);
                f64::from(at.is_some_and(|(sentence, _, column)| sentence == column))
            };
            let level = slots.level(&y).saturating_sub(1);
            Ok(slots.multiply_known(&y, &own, level)?)
        })?;
        let packed = self.lower(&scores_places, &masked, 1.0)?;
        drop(masked);
        let places = self.places(config.width, first)?;
        let rank = places.layout().rank();
        let bound = value.packed.first().map_or(1.0, |matrix| matrix.entries.bound) * length as f64;
        // Terms of one head of one result: those of its sentence, or of all.
        let groups: Vec<Vec<usize>> = if first {
            vec![(0..value.packed.len()).collect()]
        } else {
            (0..value.packed.len()).map(|sentence| vec![sentence]).collect()
        };
        let mut mixed = Vec::with_capacity(groups.len());
        for group in groups {
            let mut columns: Vec<Vec<G::Column>> = (0..heads).map(|_| Vec::new()).collect();
            let mut rows: Vec<Vec<G::Row>> = (0..heads).map(|_| Vec::new()).collect();
            for &sentence in &group {
                let level = value.packed[sentence].level;
                let values = self.algebra.split(&value.packed[sentence])?;
                for (head, values) in values.chunks(features).enumerate() {
                    let of_head = self.algebra.columns(values, Side::Scatter)?;
                    columns[head].extend(of_head.into_iter().take(length));
                }
                let scores = Matrix { level, ..packed[sentence].clone() };
                let mut split = self.algebra.split(&scores)?.into_iter();
                rows.iter_mut().for_each(|rows| rows.extend(split.by_ref().take(length)));
            }
            let mut pieces: Vec<Vec<(Rc<G::Piece>, usize)>> =
                (0..places.layout().ciphertexts()).map(|_| Vec::new()).collect();
            let mut result = None;
            for (head, (columns, rows)) in columns.iter().zip(&rows).enumerate() {
                let terms: Vec<_> = columns.iter().zip(rows).collect();
                let product = self.algebra.scatter(&terms, bound)?;
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
            mixed.push(Matrix { entries, level: result.level, pieces });
        }
        Ok(Tensor::packed(places, mixed, first))
    }
}
