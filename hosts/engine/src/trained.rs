//! Encrypted weights: LoRA's factors and the head.
//!
//! A trained matrix is a list of vectors over features: the columns of W for x·W, the rows of LoRA's B. All vectors of all
//! trained matrices are the columns of one tensor, as many as fit in the place of a sentence: that is how the optimizer
//! sees them, entry by entry in slots. For products they are taken apart, once per step: every vector by itself in the
//! small ring, and LoRA's A spread over all tokens in slots, where x·A is computed beside the norm that made x.

use crate::algebra::{Algebra, Halves, Matrix};
use crate::executor::Engine;
use crate::linear::FACTOR_SCALE;
use crate::tensor::Slots;
use crate::{Error, Places, Tensor};
use std::collections::HashMap;
use std::rc::Rc;
use veilformer::matrix::{Entries, Side};
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Config, Parameter, Shape, Site, Trainable};

/// The scale of LoRA's B in products; that of x·A makes up for it.
pub(crate) const UP_SCALE: f64 = (1u64 << 34) as f64;

/// Levels of a spread vector above those that a lowered tensor takes.
pub(crate) const SPREAD_LEVELS: usize = 3;

/// The vectors of one trained matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The matrix.
    pub parameter: Parameter,
    /// The place of its first vector.
    pub first: usize,
    /// Vectors.
    pub count: usize,
    /// Entries of each.
    pub length: usize,
}

impl Span {
    /// Whether vectors are rows of the matrix, not columns.
    fn by_rows(&self) -> bool {
        matches!(self.parameter, Parameter::LoraUp(..))
    }

    /// (row, column) of the matrix that is entry `index` of vector `vector`.
    pub fn entry(&self, vector: usize, index: usize) -> (usize, usize) {
        if self.by_rows() { (vector, index) } else { (index, vector) }
    }
}

/// Where the vectors of all trained matrices lie.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedPlaces {
    places: Places,
    spans: Vec<Span>,
    columns: usize,
}

impl TrainedPlaces {
    /// Of a model whose tensors have such places as `tokens`.
    ///
    /// # Errors
    /// Those of [`Places::new`].
    pub fn new(config: &Config, tokens: &Places) -> Result<Self, Error> {
        let columns = tokens.layout().columns();
        let (mut spans, mut next, mut longest): (Vec<Span>, usize, usize) = (Vec::new(), 0, 1);
        for parameter in Trainable::Adapters.parameters(config) {
            let Shape { rows, columns: outputs } = parameter.shape(config);
            let by_rows = matches!(parameter, Parameter::LoraUp(..));
            let (count, length) = if by_rows { (rows, outputs) } else { (outputs, rows) };
            // Vectors in one matrix are as long as each other, and those of the head come in whole matrices.
            let thin = matches!(parameter, Parameter::LoraDown(..) | Parameter::LoraUp(..));
            if !thin || spans.last().is_some_and(|last| last.length != length) {
                next = next.next_multiple_of(columns);
            }
            spans.push(Span { parameter, first: next, count, length });
            next += count;
            longest = longest.max(length);
        }
        let places = Places::new(tokens.degrees(), next.div_ceil(columns).max(1), longest, columns)?;
        Ok(Self { places, spans, columns })
    }

    /// The places of the whole, a matrix for as many vectors as there are tokens.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The matrices.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// (ciphertext, upper vector, slot) of entry `index` of a matrix's vector.
    pub fn slot(&self, span: &Span, vector: usize, index: usize) -> (usize, bool, usize) {
        let (group, column) = self.at(span.first + vector);
        self.places.slot((group, index, column))
    }

    /// (matrix of the tensor, column) of a vector.
    pub(crate) fn at(&self, vector: usize) -> (usize, usize) {
        (vector / self.columns, vector % self.columns)
    }

    pub(crate) fn span(&self, parameter: Parameter) -> Option<&Span> {
        self.spans.iter().find(|span| span.parameter == parameter)
    }

    /// The parameter, row and column of what is in a slot.
    pub fn weight(&self, ciphertext: usize, upper: bool, slot: usize) -> Option<(Parameter, usize, usize)> {
        let (group, index, column) = self.places.at(ciphertext, upper, slot)?;
        let vector = group * self.columns + column;
        let span = self.spans.iter().find(|span| (span.first..span.first + span.count).contains(&vector))?;
        let (row, column) = span.entry(vector - span.first, index);
        (index < span.length).then_some((span.parameter, row, column))
    }
}

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
    /// LoRA's A, every entry in all tokens of all sentences: a vector for each ciphertext of one sentence.
    pub(crate) spread: HashMap<(Parameter, usize), Vec<G::Vector>>,
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// Where encrypted weights lie.
    ///
    /// # Errors
    /// Those of [`Places::new`].
    pub fn trained_places(&self) -> Result<TrainedPlaces, Error> {
        TrainedPlaces::new(self.config(), &self.input_places()?)
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
        let (mut vectors, mut spread) = (HashMap::new(), HashMap::new());
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
        self.trained = Some(Trained { places, weights, vectors, spread });
        Ok(())
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
