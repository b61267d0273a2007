//! Encrypted weights: LoRA's factors and the head, or every matrix.
//!
//! A trained matrix is a list of vectors over features: the columns of W for x·W, the rows of LoRA's B. All vectors of all
//! trained matrices are the columns of one tensor, as many as fit in the place of a sentence: that is how the optimizer
//! sees them, entry by entry in slots. For products they are taken apart, once per step: every vector by itself in the
//! small ring, and LoRA's A spread over all tokens in slots, where x·A is computed beside the norm that made x.

use crate::algebra::{Algebra, Halves, Matrix};
use crate::executor::Engine;
use crate::linear::FACTOR_SCALE;
use crate::spans::{Span, TrainedPlaces};
use crate::tensor::{Slots, half_of};
use crate::whole::{Blocks, is_whole};
use crate::{Error, Places, Tensor};
use std::collections::HashMap;
use std::rc::Rc;
use veilformer::matrix::{Entries, Side};
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Parameter, Projection, Shape, Site};

/// The scale of LoRA's B in products; that of x·A makes up for it.
pub(crate) const UP_SCALE: f64 = (1u64 << 34) as f64;

/// Levels of a spread vector above those that a lowered tensor takes.
pub(crate) const SPREAD_LEVELS: usize = 3;

/// One vector by itself, for both kinds of products, piece by piece.
pub(crate) struct Sides<C> {
    pub(crate) gather: Vec<Rc<C>>,
    pub(crate) scatter: Vec<Rc<C>>,
}

/// Encrypted weights, ready for a step.
pub struct Trained<G: Algebra> {
    pub(crate) places: TrainedPlaces,
    /// θ, as it is.
    pub(crate) weights: Rc<Slots<G::Vector>>,
    pub(crate) vectors: HashMap<(Parameter, usize), Sides<G::Column>>,
    /// The matrices of the tensor that hold rows of whole matrices.
    pub(crate) whole: HashMap<usize, Matrix<G::Piece>>,
    /// Rows of whole matrices, by their first output, once they were needed.
    pub(crate) rows: HashMap<(Parameter, usize), Rc<Blocks<G>>>,
    /// LoRA's A, every entry in all tokens of all sentences: a vector for each ciphertext of one sentence.
    pub(crate) spread: HashMap<(Parameter, usize), Vec<G::Vector>>,
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// Where encrypted weights lie.
    ///
    /// # Errors
    /// Those of [`Places::new`].
    pub fn trained_places(&self) -> Result<TrainedPlaces, Error> {
        TrainedPlaces::of(self.config(), self.set, &self.input_places()?)
    }

    /// Takes encrypted weights in: lower and upper slots of every ciphertext of [`Engine::trained_places`], within ±1.
    ///
    /// # Errors
    /// From the scheme.
    pub fn set_trained(&mut self, weights: Vec<Halves<G::Vector>>) -> Result<(), Error> {
        self.take_in(Rc::new(Slots { factor: 1.0, halves: weights }))
    }

    /// Takes weights apart for the products of a step.
    pub(crate) fn take_in(&mut self, weights: Rc<Slots<G::Vector>>) -> Result<(), Error> {
        let places = self.trained_places()?;
        let (mut vectors, mut spread, mut whole) = (HashMap::new(), HashMap::new(), HashMap::new());
        for span in places.spans() {
            if matches!(span.parameter, Parameter::LoraDown(..)) {
                for vector in 0..span.count {
                    let copies = self.spread(&places, &weights, span.first + vector)?;
                    spread.insert((span.parameter, vector), copies);
                }
            }
        }
        let packed = self.lower_vectors(&places, &weights)?;
        for (group, matrix) in packed.iter().enumerate() {
            let first = group * places.columns();
            let holds = |span: &&Span| (span.first..span.first + span.count).contains(&first);
            if let Some(span) = places.spans().iter().find(holds).filter(|span| is_whole(span.parameter)) {
                whole.insert(group, self.of_span(matrix, span)?);
                continue;
            }
            let rows = self.algebra.split(matrix)?;
            let rank = matrix.entries.layout.rank();
            let mut columns: Vec<Vec<Option<G::Column>>> = Vec::new();
            for rows in rows.chunks(rank) {
                let of_piece = self.algebra.columns(rows, Side::Gather)?;
                columns.push(of_piece.into_iter().map(Some).collect());
            }
            for span in places.spans() {
                for vector in 0..span.count {
                    let (of_group, column) = places.at(span.first + vector);
                    if of_group != group {
                        continue;
                    }
                    let scale = self.vector_scale(span.parameter)?;
                    let pieces = columns.iter_mut().take(span.length.div_ceil(rank));
                    let gather = pieces
                        .filter_map(|piece| piece[column].take())
                        .map(|column| Ok(Rc::new(self.algebra.at_scale(column, scale)?)))
                        .collect::<Result<Vec<_>, Error>>()?;
                    let scatter = gather
                        .iter()
                        .map(|column| Ok(Rc::new(self.algebra.turn(column)?)))
                        .collect::<Result<Vec<_>, Error>>()?;
                    vectors.insert((span.parameter, vector), Sides { gather, scatter });
                }
            }
        }
        self.trained = Some(Trained { places, weights, vectors, whole, rows: HashMap::new(), spread });
        Ok(())
    }

    /// A matrix of lowered vectors at the scale that they were brought to.
    fn of_span(&self, matrix: &Matrix<G::Piece>, span: &Span) -> Result<Matrix<G::Piece>, Error> {
        let known = &matrix.entries;
        let replicas = (self.algebra.rings().degrees.small / known.layout.rank()) as f64;
        let scale = self.vector_scale(span.parameter)? / replicas;
        let noise = known.noise * (scale / known.scale).min(1.0);
        let entries = Entries { layout: known.layout.with_rows(span.length)?, scale, noise, ..*known };
        Ok(Matrix { entries, level: matrix.level, pieces: matrix.pieces[..1].to_vec() })
    }

    /// The scale that a parameter's vectors are wanted at.
    fn vector_scale(&self, parameter: Parameter) -> Result<f64, Error> {
        let rings = self.algebra.rings();
        let (config, top) = (self.config(), rings.level);
        let stream = rings.message_scale / self.stream();
        let tanh = rings.message_scale / (0.5 * self.approximation(Site::Tanh)?.interval().width());
        Ok(match parameter {
            Parameter::HeadUp if config.head_rank == 0 => tanh * rings.moduli[top] / stream,
            Parameter::HeadUp => tanh * rings.moduli[top - 1] / FACTOR_SCALE,
            parameter if is_whole(parameter) => self.whole_scale(parameter)?,
            Parameter::HeadDown => FACTOR_SCALE * rings.moduli[top] / stream,
            Parameter::Classifier => self.logit_scale()? * rings.moduli[top] / rings.message_scale,
            _ => UP_SCALE,
        })
    }

    /// The scale of logits that trained weights give: within the loss' interval they reach to half the bound of a bootstrap.
    fn logit_scale(&self) -> Result<f64, Error> {
        let reach = self.model.approximation(Site::LossExp).map_or(8.0, |a| a.interval().high());
        Ok(self.algebra.rings().message_scale / (2.0 * reach))
    }

    /// All vectors, packed, each at T-th of the scale it is wanted at, which taking columns restores.
    fn lower_vectors(
        &mut self,
        places: &TrainedPlaces,
        weights: &Slots<G::Vector>,
    ) -> Result<Vec<Matrix<G::Piece>>, Error> {
        let rings = self.algebra.rings();
        let columns = (rings.degrees.small / places.places().layout().rank()) as f64;
        let scale = rings.message_scale * columns;
        let mut factors = HashMap::new();
        for span in places.spans() {
            factors.insert(span.parameter, self.vector_scale(span.parameter)? / scale);
        }
        let scaled = self.each(weights, |slots, ciphertext, upper, x| {
            let factor = |slot: usize| match places.weight(ciphertext, upper, slot) {
                Some((parameter, ..)) => factors[&parameter],
                None => 0.0,
            };
            let level = slots.floor().max(1).min(slots.level(x).saturating_sub(1));
            Ok(slots.multiply_known(x, &factor, level)?)
        })?;
        self.lower(places.places(), &scaled, 1.0)
    }

    /// One vector of the weights in the columns of all tokens of all sentences.
    fn spread(
        &mut self,
        places: &TrainedPlaces,
        weights: &Slots<G::Vector>,
        vector: usize,
    ) -> Result<Vec<G::Vector>, Error> {
        let (group, column) = places.at(vector);
        let whole = *places.places();
        let turns = whole.spread_turns();
        let (first, upper, _) = whole.slot((group, 0, column));
        let mut copies = Vec::new();
        for ciphertext in first..first + whole.ciphertexts_of_one() {
            let form = Error::Form { operation: "a trained weight" };
            let (lower_half, upper_half) = weights.halves.get(ciphertext).ok_or(form)?;
            let half = if upper { upper_half.as_ref().ok_or(form)? } else { lower_half };
            let only = |slot: usize| {
                let at = whole.at(ciphertext, upper, slot);
                f64::from(at.is_some_and(|at| at.0 == group && at.2 == column))
            };
            let (_, _, from) = whole.slot((group, 0, column));
            let slots = self.algebra.slots();
            // The product with x, and the place of its row, follow.
            let level = (slots.floor() + SPREAD_LEVELS).min(slots.level(half).saturating_sub(1));
            let mut copy = slots.multiply_known(half, &only, level)?;
            for &turn in &turns {
                // Towards the places where this bit is set, or away from them.
                let steps = if from & turn == 0 { -(turn as i64) } else { turn as i64 };
                let turned = slots.rotate(&copy, steps)?;
                slots.add_assign(&mut copy, &turned)?;
            }
            copies.push(copy);
        }
        Ok(copies)
    }

    pub(crate) fn trained(&self) -> Option<&Trained<G>> {
        self.trained.as_ref()
    }

    /// Whether a weight is encrypted.
    pub(crate) fn is_trained(&self, weight: Parameter) -> bool {
        self.trained().is_some_and(|trained| trained.places.span(weight).is_some())
    }

    /// x·W for an encrypted W.
    pub(crate) fn multiply_trained(&mut self, x: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        match weight {
            Parameter::LoraDown(projection, layer) => self.lora_down(x, projection, layer),
            Parameter::LoraUp(..) => self.lora_up(x, weight),
            _ if is_whole(weight) => self.multiply_whole(x, weight),
            _ => self.contract(x, weight),
        }
    }

    pub(crate) fn sides(&self, weight: Parameter, vector: usize) -> Result<&Sides<G::Column>, Error> {
        let vectors = self.trained().map(|trained| &trained.vectors);
        vectors.and_then(|vectors| vectors.get(&(weight, vector))).ok_or(Error::MissingWeights(weight))
    }

    /// A row for every column of W.
    fn contract(&mut self, x: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        let shape = weight.shape(self.config());
        let bound = match weight {
            Parameter::HeadUp => 0.5 * self.approximation(Site::Tanh)?.interval().width(),
            Parameter::Classifier => self.algebra.rings().message_scale / self.logit_scale()?,
            _ => self.stream(),
        };
        let mut packed = Vec::with_capacity(x.packed.len());
        for matrix in &x.packed {
            let mut rows = Vec::with_capacity(shape.columns);
            for column in 0..shape.columns {
                let columns = self.sides(weight, column)?.gather.clone();
                rows.push(self.algebra.gather(&columns, matrix, bound)?);
            }
            packed.push(self.algebra.pack(&rows)?);
        }
        Ok(Tensor::packed(x.places.with_rows(shape.columns)?, packed, x.first))
    }

    /// x·A, from the slots of x: a row for every column of A, at the scale at which B brings it to that of x·W. Those of
    /// all projections of x are lowered together, below each other, when the first is asked for.
    fn lora_down(&mut self, x: &Tensor<G>, projection: Projection, layer: usize) -> Result<Tensor<G>, Error> {
        let rank = Parameter::LoraDown(projection, layer).shape(self.config()).columns;
        let places = x.places.with_rows(rank)?;
        if let Some(packed) = x.adapters.borrow_mut().remove(&projection) {
            return Ok(Tensor::packed(places, packed, x.first));
        }
        let wanted = self.adapters_of(x, projection, layer);
        let (slots, of_piece) = (self.slots_of(x)?, x.places.layout().rank());
        let wanted = if wanted.len() * rank <= of_piece { wanted } else { vec![projection] };
        let mut scales = Vec::with_capacity(wanted.len());
        for &projection in &wanted {
            let rings = self.algebra.rings();
            let top = rings.moduli[rings.level];
            scales.push(self.projection_scale(x, projection, layer)? * top / UP_SCALE);
        }
        let message = self.algebra.rings().message_scale * slots.factor;
        let constants: Vec<f64> = scales.iter().map(|scale| scale / message).collect();
        let together = x.places.ciphertexts_of_one();
        let mut pieces = Vec::new();
        for (group, of_one) in slots.halves.chunks(together).enumerate() {
            let of_one = self.dropped(of_one)?;
            let mut rows = Vec::with_capacity(wanted.len() * rank);
            for (&projection, &constant) in wanted.iter().zip(&constants) {
                for row in 0..rank {
                    let weight = (Parameter::LoraDown(projection, layer), row);
                    rows.push(self.contracted(&x.places, &of_one, weight, group * together, constant)?);
                }
            }
            let below_each_other = self.below_each_other(&x.places, rows)?;
            pieces.push(self.algebra.lower(&(below_each_other, None))?.into_iter().map(Rc::new).collect());
        }
        for ((i, &projection), &scale) in wanted.iter().enumerate().zip(&scales) {
            let packed = self.first_pieces(&x.places, &pieces, i * rank, rank, scale)?;
            x.adapters.borrow_mut().insert(projection, packed);
        }
        let packed = x.adapters.borrow_mut().remove(&projection);
        Ok(Tensor::packed(places, packed.ok_or(Error::Form { operation: "LoRA" })?, x.first))
    }

    /// The projections that read the same tensor: in the last layer queries are those of first tokens.
    fn adapters_of(&self, x: &Tensor<G>, projection: Projection, layer: usize) -> Vec<Projection> {
        let queries_apart = self.config().is_last(layer);
        let reads = |other: &Projection| {
            let query = *other == Projection::Query;
            self.is_trained(Parameter::LoraDown(*other, layer)) && (!queries_apart || query == x.first)
        };
        let all = [Projection::Query, Projection::Key, Projection::Value].into_iter().filter(reads);
        let all: Vec<_> = all.collect();
        if all.contains(&projection) { all } else { vec![projection] }
    }

    /// The vectors of one sentence's ciphertexts, no higher than what they are multiplied by.
    fn dropped(&mut self, halves: &[Halves<G::Vector>]) -> Result<Vec<Halves<G::Vector>>, Error> {
        let arithmetic = self.algebra.slots();
        let level = arithmetic.floor() + SPREAD_LEVELS;
        let mut drop = |x: &G::Vector| -> Result<G::Vector, Error> {
            let above = arithmetic.level(x) > level;
            Ok(if above { arithmetic.scale(x, 1.0, level)? } else { arithmetic.duplicate(x)? })
        };
        let mut dropped = Vec::with_capacity(halves.len());
        for (lower, upper) in halves {
            dropped.push((drop(lower)?, upper.as_ref().map(&mut drop).transpose()?));
        }
        Ok(dropped)
    }

    /// constant·(a column of A) times x, where row 0 of every sentence is: lower and upper half as one vector.
    fn contracted(
        &mut self,
        places: &Places,
        halves: &[Halves<G::Vector>],
        weight: (Parameter, usize),
        ciphertext: usize,
        constant: f64,
    ) -> Result<G::Vector, Error> {
        let mut both = Vec::with_capacity(2);
        for upper in [false, true] {
            let spread = self.trained.as_ref().and_then(|trained| trained.spread.get(&weight));
            let spread = spread.ok_or(Error::MissingWeights(weight.0))?;
            let parts = halves.iter().filter_map(|halves| half_of(halves, upper));
            let pairs: Vec<_> = parts.zip(spread).collect();
            if !pairs.is_empty() {
                both.push(self.algebra.slots().products(&pairs)?);
            }
        }
        let mut product = match &both[..] {
            [lower, upper] => self.algebra.pair(lower, upper)?,
            _ => both.pop().ok_or(Error::Form { operation: "LoRA" })?,
        };
        let (arithmetic, turns, of_piece) =
            (self.algebra.slots(), places.rows_in_slots(), places.layout().rank());
        for &turn in turns.cyclic.iter().chain(&turns.bounded) {
            let turned = arithmetic.rotate(&product, turn as i64)?;
            arithmetic.add_assign(&mut product, &turned)?;
        }
        // Wherever the upper half has an entry, the lower one has.
        let first = |slot: usize| match places.at(ciphertext, false, slot) {
            Some((_, at, _)) if at % of_piece == 0 && at < of_piece => constant,
            _ => 0.0,
        };
        let level = arithmetic.level(&product).saturating_sub(1);
        Ok(arithmetic.multiply_known(&product, &first, level)?)
    }

    /// Vectors with something in row 0 only: that of vector i goes to row i.
    fn below_each_other(&mut self, places: &Places, mut rows: Vec<G::Vector>) -> Result<G::Vector, Error> {
        let origin = places.slot((0, 0, 0)).2;
        let mut stride = 1;
        while rows.len() > 1 {
            let turn = places.slot((0, stride, 0)).2 ^ origin;
            let (mut pairs, mut merged) = (rows.into_iter(), Vec::new());
            while let Some(mut row) = pairs.next() {
                if let Some(other) = pairs.next() {
                    let arithmetic = self.algebra.slots();
                    let turned = arithmetic.rotate(&other, -(turn as i64))?;
                    arithmetic.add_assign(&mut row, &turned)?;
                }
                merged.push(row);
            }
            (rows, stride) = (merged, 2 * stride);
        }
        rows.pop().ok_or(Error::Form { operation: "LoRA" })
    }

    /// Rows `from` to `from + count` of the first piece of every sentence, as rows 0 to `count`; what is in the others is
    /// of no use.
    fn first_pieces(
        &mut self,
        places: &Places,
        pieces: &[Vec<Rc<G::Piece>>],
        from: usize,
        count: usize,
        scale: f64,
    ) -> Result<Vec<Matrix<G::Piece>>, Error> {
        let rings = self.algebra.rings();
        let (level, noise, turn) = (rings.level, rings.noise, 2 * rings.degrees.small);
        let layout = places.layout().with_rows(count)?;
        let entries = Entries { layout, scale, bound: self.stream(), noise };
        let together = places.ciphertexts_of_one();
        let mut packed = Vec::with_capacity(places.sentences());
        for sentence in 0..places.sentences() {
            let (ciphertext, at) = places.of_piece(sentence, 0);
            let piece = pieces.get(ciphertext / together).and_then(|pieces| pieces.get(at));
            let piece = piece.ok_or(Error::Form { operation: "LoRA" })?.clone();
            let piece =
                if from == 0 { piece } else { Rc::new(self.algebra.add_shifted(&[(piece, turn - from)])?) };
            packed.push(Matrix { entries, level, pieces: vec![piece] });
        }
        Ok(packed)
    }

    /// (x·A)·B.
    fn lora_up(&mut self, down: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        let Shape { rows: rank, columns: width } = weight.shape(self.config());
        let places = down.places.with_rows(width)?;
        let bound = self.stream();
        let mut packed = Vec::with_capacity(down.packed.len());
        for matrix in &down.packed {
            let rows = self.algebra.first_rows(matrix, rank)?;
            packed.push(self.combine_vectors(weight, rank, &rows, &places, bound)?);
        }
        Ok(Tensor::packed(places, packed, down.first))
    }

    /// Σ vector ⊗ row over the first vectors of a trained matrix.
    pub(crate) fn combine_vectors(
        &mut self,
        weight: Parameter,
        count: usize,
        rows: &[G::Row],
        places: &Places,
        bound: f64,
    ) -> Result<Matrix<G::Piece>, Error> {
        let mut pieces = Vec::new();
        let mut known = None;
        for piece in 0..places.layout().ciphertexts() {
            let columns = (0..count)
                .map(|vector| Ok(self.sides(weight, vector)?.scatter[piece].clone()))
                .collect::<Result<Vec<_>, Error>>()?;
            let terms: Vec<_> = columns.iter().map(|column| &**column).zip(rows).collect();
            let product = self.algebra.scatter(&terms, bound)?;
            pieces.extend(product.pieces.iter().cloned());
            known = Some(product);
        }
        let known = known.ok_or(Error::Form { operation: "encrypted weights" })?;
        let entries = Entries { layout: *places.layout(), ..known.entries };
        Ok(Matrix { entries, level: known.level, pieces })
    }
}
