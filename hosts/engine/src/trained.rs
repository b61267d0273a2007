//! Encrypted weights: LoRA's factors and the head, or every matrix.
//!
//! A trained matrix is a list of vectors over features: the columns of W for x·W, the rows of LoRA's B. All vectors of all
//! trained matrices are the columns of one tensor, as many as fit in the place of a sentence: that is how the optimizer
//! sees them, entry by entry in slots. For products they are taken apart, once per step: every vector by itself in the
//! small ring, and LoRA's A spread over all tokens in slots, where x·A is computed beside the norm that made x.

use crate::algebra::{Algebra, Halves, Matrix};
use crate::executor::Engine;
use crate::spans::{Span, TrainedPlaces};
use crate::tensor::Slots;
use crate::whole::{Blocks, is_whole};
use crate::{Error, Places, Tensor};
use std::collections::HashMap;
use std::rc::Rc;
use veilformer::matrix::{Entries, Side};
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Loss, Parameter, Site};

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
        let top = rings.level;
        let stream = rings.message_scale / self.stream();
        let tanh = rings.message_scale / (0.5 * self.approximation(Site::Tanh)?.interval().width());
        Ok(match parameter {
            Parameter::HeadUp => tanh * rings.moduli[top] / stream,
            parameter if is_whole(parameter) => self.whole_scale(parameter)?,
            // What it gives has the scale and the bound of what it takes.
            Parameter::HeadDown => rings.moduli[top],
            Parameter::Classifier => self.logit_scale()? * rings.moduli[top] / rings.message_scale,
            _ => UP_SCALE,
        })
    }

    /// The scale of logits that trained weights give: within the loss' interval, or as far as targets, they reach to half the
    /// bound of a bootstrap.
    fn logit_scale(&self) -> Result<f64, Error> {
        let targets = Loss::SquaredError.largest_target();
        let reach = self.model.approximation(Site::LossExp).map_or(targets, |a| a.interval().high());
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
            Parameter::HeadDown => {
                let y = self.contract(x, weight)?;
                self.at_top(&y, self.stream())
            }
            _ => self.contract(x, weight),
        }
    }

    /// The same at the top again, within `bound`: between the head's two matrices, each of which takes all levels there are.
    pub(crate) fn at_top(&mut self, x: &Tensor<G>, bound: f64) -> Result<Tensor<G>, Error> {
        let slots = self.raise(&x.places, &x.packed)?;
        let packed = self.lower(&x.places, &slots, bound)?;
        Ok(Tensor::packed(x.places, packed, x.first))
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
