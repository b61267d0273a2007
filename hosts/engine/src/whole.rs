//! Whole encrypted matrices: full fine-tuning, the baseline.
//!
//! A trained matrix W of the encoder is a list of its rows, as the other trained ones are lists of vectors, in blocks of no
//! more outputs than a piece has rows. What LoRA spares is done here with the same products of packed matrices:
//!
//! ```text
//! x·W   Σ_f (row f of W) ⊗ (row f of x)          vectors that make rows, once per step for all sentences
//! dy·Wᵀ  row f is (row f of W)·dy                 vectors that contract rows, packed again
//! dW    Σ_t (column t of dy) ⊗ (row t of xᵀ)      for every sentence, then summed
//! ```
//!
//! Gains and biases of the norms stay as they are. What a gain could learn, the rows of the matrix behind it can.

use crate::algebra::{Algebra, Matrix};
use crate::executor::Engine;
use crate::linear::FACTOR_SCALE;
use crate::spans::Span;
use crate::{Error, Tensor};
use std::ops::Range;
use std::rc::Rc;
use veilformer::matrix::{Entries, PlainMatrix, Side};
use veilformer::transformer::slots::Model;
use veilformer::transformer::{Config, Parameter, Shape, Site};

/// Room for what training adds to the largest result that the first weights can have.
const GROWTH: f64 = 1.25;

/// Vectors of every block of outputs.
pub(crate) type Blocks<G> = Vec<Vec<<G as Algebra>::Column>>;

/// What of a matrix is extracted, and how.
struct Wanted {
    side: Side,
    /// Nothing for that at which the weights were lowered.
    scale: Option<f64>,
    level: usize,
    /// Whether the mean over the outputs is taken out.
    centred: bool,
}

/// Whether it is a matrix of the encoder: trained as a whole or not at all.
pub(crate) fn is_whole(parameter: Parameter) -> bool {
    use Parameter::{Attention, Contract, Expand, Output};
    matches!(parameter, Attention(..) | Output(_) | Expand(_) | Contract(_))
}

/// The outputs that are multiplied together: all, or the halves of a gate.
fn parts(parameter: Parameter, config: &Config) -> Vec<Range<usize>> {
    let Shape { columns, .. } = parameter.shape(config);
    match parameter {
        Parameter::Expand(_) => vec![0..columns / 2, columns / 2..columns],
        _ => vec![0..columns; 1],
    }
}

/// The blocks of outputs of a matrix, each within one part and no more than a piece has rows.
pub(crate) fn blocks(parameter: Parameter, config: &Config, rank: usize) -> Vec<Range<usize>> {
    let block = |part: &Range<usize>, first| first..part.end.min(first + rank);
    let of_part = |part: Range<usize>| part.clone().step_by(rank).map(move |first| block(&part, first));
    parts(parameter, config).into_iter().flat_map(of_part).collect()
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// Whether a weight is encrypted as a whole.
    pub(crate) fn is_whole(&self, weight: Parameter) -> bool {
        is_whole(weight) && self.is_trained(weight)
    }

    /// The scale at which a whole matrix is lowered. Where a product must leave two levels, it is that of the product;
    /// elsewhere another one is chosen at the price of a level.
    pub(crate) fn whole_scale(&self, weight: Parameter) -> Result<f64, Error> {
        let rings = self.algebra.rings();
        let top = rings.moduli[rings.level];
        Ok(match weight {
            Parameter::Attention(projection, layer) => {
                let x = Tensor::packed(self.places(self.config().width, false)?, Vec::new(), false);
                self.projection_scale(&x, projection, layer)? * top * self.stream() / rings.message_scale
            }
            Parameter::Output(layer) => match self.model.gradient_bound(Site::Kernel(layer)) {
                Some(bound) => {
                    // In all layers but the last, gradients have been through columns.
                    let replicas = match self.config().is_last(layer) {
                        true => 1.0,
                        false => {
                            let places = self.places(self.config().width, false)?;
                            (rings.degrees.small / places.layout().rank()) as f64
                        }
                    };
                    let dy = replicas * rings.message_scale / self.gradient_stream()?;
                    self.mixed_gradient_scale(bound) * top / dy
                }
                None => FACTOR_SCALE,
            },
            _ => FACTOR_SCALE,
        })
    }

    /// The spans of one part of a matrix.
    fn spans(&self, weight: Parameter, part: &Range<usize>) -> Result<Vec<Span>, Error> {
        let trained = self.trained().ok_or(Error::MissingWeights(weight))?;
        let of_part = |span: &&Span| span.parameter == weight && part.contains(&span.offset);
        Ok(trained.places.spans().iter().filter(of_part).copied().collect())
    }

    /// The rows of a part of a matrix as vectors, block by block.
    fn vectors(
        &mut self,
        weight: Parameter,
        part: &Range<usize>,
        wanted: &Wanted,
    ) -> Result<Blocks<G>, Error> {
        let missing = Error::MissingWeights(weight);
        let spans = self.spans(weight, part)?;
        let count = spans.first().ok_or(missing)?.count;
        let layout = *self.trained().ok_or(missing)?.places.places().layout();
        let columns = layout.columns();
        let replicas = (self.algebra.rings().degrees.small / layout.rank()) as f64;
        let mut blocks: Blocks<G> = spans.iter().map(|_| Vec::with_capacity(count)).collect();
        for group in 0..count.div_ceil(columns) {
            let whole = &self.trained().ok_or(missing)?.whole;
            let matrices = spans.iter().map(|span| whole.get(&(span.first / columns + group)));
            let matrices = matrices.collect::<Option<Vec<_>>>().ok_or(missing)?;
            let entries = Entries { layout: layout.with_rows(part.len())?, ..matrices[0].entries };
            let pieces = matrices.iter().map(|matrix| matrix.pieces[0].clone()).collect();
            let mut matrix = Matrix { entries, level: matrices[0].level, pieces };
            if let Some(scale) = wanted.scale {
                let scale = scale / replicas;
                matrix = if wanted.centred {
                    self.without_mean(&matrix, scale)?
                } else {
                    self.algebra.rescale(&matrix, scale)?
                };
            }
            let rows = self.algebra.split(&matrix.at_most(wanted.level))?;
            for (rows, block) in rows.chunks(layout.rank()).zip(&mut blocks) {
                let left = count - block.len();
                block.extend(self.algebra.columns(rows, wanted.side)?.into_iter().take(left.min(columns)));
            }
        }
        Ok(blocks)
    }

    /// Every column minus its mean.
    fn without_mean(&mut self, x: &Matrix<G::Piece>, scale: f64) -> Result<Matrix<G::Piece>, Error> {
        let layout = x.entries.layout;
        let share = 1.0 / layout.rows() as f64;
        let mut words = vec![0; PlainMatrix::words_needed(&layout, &layout)];
        let entry = |o: usize, i: usize| f64::from(u8::from(o == i)) - share;
        let w = PlainMatrix::quantize(&layout, &layout, &mut words, entry)?.with_bound(1.0);
        self.algebra.multiply_plain(&w, x, scale)
    }

    /// The largest entry that x·W can have for the weights that training began with, x being normalised.
    fn first_reach(&self, weight: Parameter, part: &Range<usize>, bound: f64) -> f64 {
        let Shape { rows, .. } = weight.shape(self.config());
        let square = |output| (0..rows).map(|f| self.model.weight(weight, f, output).powi(2)).sum::<f64>();
        GROWTH * bound * part.clone().map(square).fold(0.0, f64::max).sqrt()
    }

    /// x·W.
    pub(crate) fn multiply_whole(&mut self, x: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "an encrypted linear map" };
        let of_x = x.packed.first().ok_or(form)?;
        let (entries, message) = (of_x.entries, self.algebra.rings().message_scale);
        let goes_on = matches!(weight, Parameter::Attention(..));
        // What goes to a bootstrap, or joins a stream that does, needs no level behind the product.
        let level = if goes_on { of_x.level } else { of_x.level.min(1) };
        let modulus = self.algebra.rings().moduli[level];
        let parts = parts(weight, self.config());
        let (mut bounds, mut vectors) = (Vec::new(), Vec::new());
        for (i, part) in parts.iter().enumerate() {
            let bound = match weight {
                Parameter::Output(_) | Parameter::Contract(_) => self.stream(),
                Parameter::Expand(layer) if i == 1 => {
                    0.5 * self.approximation(Site::Gate(layer))?.interval().width()
                }
                _ => self.first_reach(weight, part, entries.bound),
            };
            let scale = (!goes_on).then_some(message / bound * modulus / entries.scale);
            let centred = matches!(weight, Parameter::Output(_) | Parameter::Contract(_));
            vectors.push(self.once(weight, part, &Wanted { side: Side::Scatter, scale, level, centred })?);
            bounds.push(bound);
        }
        let places = x.places.with_rows(parts[0].len())?;
        let mut results: Vec<Vec<Matrix<G::Piece>>> = parts.iter().map(|_| Vec::new()).collect();
        for matrix in &x.packed {
            let rows = self.algebra.split(&matrix.at_most(level))?;
            for ((blocks, bound), results) in vectors.iter().zip(&bounds).zip(&mut results) {
                let (mut pieces, mut known) = (Vec::new(), None);
                for block in blocks.iter() {
                    let terms: Vec<_> = block.iter().zip(&rows).collect();
                    let product = self.algebra.scatter(&terms, *bound)?;
                    pieces.extend(product.pieces.iter().cloned());
                    known = Some(product);
                }
                let known = known.ok_or(form)?;
                let entries = Entries { layout: *places.layout(), ..known.entries };
                results.push(Matrix { entries, level: known.level, pieces });
            }
        }
        let mut results = results.into_iter();
        let packed = results.next().ok_or(form)?;
        let gated = results.next().unwrap_or_default();
        Ok(Tensor { gated, ..Tensor::packed(places, packed, x.first) })
    }

    /// Vectors that are taken out once per step.
    fn once(
        &mut self,
        weight: Parameter,
        part: &Range<usize>,
        wanted: &Wanted,
    ) -> Result<Rc<Blocks<G>>, Error> {
        let key = (weight, part.start);
        if let Some(vectors) = self.trained().and_then(|trained| trained.rows.get(&key)) {
            return Ok(vectors.clone());
        }
        let vectors = Rc::new(self.vectors(weight, part, wanted)?);
        if let Some(trained) = &mut self.trained {
            trained.rows.insert(key, vectors.clone());
        }
        Ok(vectors)
    }

    /// dy·Wᵀ.
    pub(crate) fn multiply_whole_transposed(
        &mut self,
        dy: &Tensor<G>,
        weight: Parameter,
    ) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "a transposed encrypted linear map" };
        let (wanted, bound) = self.transposed_scale(dy, weight)?;
        let Shape { rows: count, .. } = weight.shape(self.config());
        let places = dy.places.with_rows(count)?;
        let below = self.algebra.rings().level - 1;
        let mut halves = Vec::new();
        for (part, packed) in parts(weight, self.config()).iter().zip([&dy.packed, &dy.gated]) {
            let first = packed.first().ok_or(form)?;
            // Values and their gradients are still to be multiplied.
            let goes_on = matches!(weight, Parameter::Output(_));
            let level = if goes_on { first.level } else { first.level.min(below) };
            let scale = wanted * self.algebra.rings().moduli[level] / first.entries.scale;
            let scale = (!goes_on).then_some(scale);
            let wanted = Wanted { side: Side::Gather, scale, level, centred: false };
            halves.push((level, packed, self.vectors(weight, part, &wanted)?));
        }
        let mut results = Vec::with_capacity(dy.packed.len());
        for sentence in 0..dy.packed.len() {
            let mut terms: Vec<Vec<(Rc<G::Piece>, usize)>> = (0..count).map(|_| Vec::new()).collect();
            let mut known = None;
            for (level, packed, blocks) in &halves {
                let matrix = packed.get(sentence).ok_or(form)?;
                for (block, columns) in blocks.iter().enumerate() {
                    let right = piece_of(matrix, block)?.at_most(*level);
                    let (entries, rows) = self.algebra.row_products(columns, &right, bound)?;
                    terms.iter_mut().zip(rows).for_each(|(terms, row)| terms.push((Rc::new(row), 0)));
                    known = Some((entries, level - 1));
                }
            }
            let (waiting, level) = known.ok_or(form)?;
            let rows = terms.iter().map(|terms| self.algebra.add_shifted(terms));
            let rows = rows.collect::<Result<Vec<_>, Error>>()?;
            results.push(Self::tempered(self.pack_waiting(&places, &waiting, rows, level)?));
        }
        Ok(Tensor::packed(places, results, dy.first))
    }

    /// Adds xᵀ·dy to the gradient of a whole matrix: in the places of its vectors, block by block.
    pub(crate) fn add_whole_gradient(
        &mut self,
        x: &Tensor<G>,
        dy: &Tensor<G>,
        weight: Parameter,
    ) -> Result<(), Error> {
        let form = Error::Form { operation: "the gradient of an encrypted matrix" };
        let room = self.gradient_room()?;
        let rings = self.algebra.rings();
        let (moduli, message) = (rings.moduli.clone(), rings.message_scale);
        let replicas = (rings.degrees.small / x.places.layout().rank()) as f64;
        let (wanted, used) = (message / room, x.places.used());
        for (part, packed) in parts(weight, self.config()).iter().zip([&dy.packed, &dy.gated]) {
            let spans = self.spans(weight, part)?;
            let mut sums: Vec<Vec<Matrix<G::Piece>>> = spans.iter().map(|_| Vec::new()).collect();
            for (x, dy) in x.packed.iter().zip(packed) {
                let level = x.level.min(dy.level);
                let (mut x, mut dy) = (x.clone(), dy.clone());
                if level == 1 {
                    // No level is left behind the product: one of them is brought to the scale that makes it right.
                    let product = wanted * moduli[1] / (replicas * replicas);
                    if x.level > 1 {
                        x = self.algebra.rescale(&x, product / dy.entries.scale)?;
                    } else if dy.level > 1 {
                        dy = self.algebra.rescale(&dy, product / x.entries.scale)?;
                    }
                }
                let turned = self.turned_blocks(&x.at_most(level), used)?;
                let rows = self.algebra.split(&dy.at_most(level))?;
                let rank = dy.entries.layout.rank();
                for (rows, sums) in rows.chunks(rank).zip(&mut sums) {
                    let columns = self.algebra.columns(rows, Side::Scatter)?;
                    for (block, rows) in turned.iter().enumerate() {
                        let terms: Vec<_> = columns.iter().zip(rows).collect();
                        let product = Self::tempered(self.algebra.scatter(&terms, room)?);
                        match sums.get_mut(block) {
                            Some(sum) => *sum = self.algebra.add(sum, &product)?,
                            None => sums.push(product),
                        }
                    }
                }
            }
            for (span, sums) in spans.iter().zip(sums) {
                let columns = self.trained().ok_or(form)?.places.columns();
                for (block, mut matrix) in sums.into_iter().enumerate() {
                    if matrix.level > 0 {
                        matrix = self.algebra.rescale(&matrix, wanted)?;
                    }
                    let rank = matrix.entries.layout.rank();
                    let first = span.first + block * columns.min(rank);
                    let shift = rank * (first % columns);
                    let piece = self.algebra.add_shifted(&[(matrix.pieces[0].clone(), shift)])?;
                    let matrix = Matrix { pieces: vec![Rc::new(piece)], ..matrix };
                    self.gradients.add(weight, first / columns, matrix);
                }
            }
        }
        Ok(())
    }

    /// The first rows of the transpose, a list for every block of as many features as a transpose has columns.
    fn turned_blocks(&mut self, x: &Matrix<G::Piece>, tokens: usize) -> Result<Vec<Vec<G::Row>>, Error> {
        let rank = x.entries.layout.rank();
        let columns = self.algebra.rings().degrees.small / rank;
        let rows = self.algebra.split(x)?;
        let mut blocks = Vec::new();
        for block in rows.chunks(columns.min(rank)) {
            let turned = self.algebra.columns(block, Side::Gather)?;
            let (waiting, turned) = self.algebra.transposed_rows(&[turned], tokens)?;
            let mut of_block = Vec::with_capacity(tokens);
            let mut turned = turned.into_iter().peekable();
            while turned.peek().is_some() {
                let (entries, piece) = self.algebra.pick(&waiting, turned.by_ref().take(rank).collect())?;
                let packed = Matrix { entries, level: x.level, pieces: vec![Rc::new(piece)] };
                of_block.extend(self.algebra.split(&packed)?);
            }
            blocks.push(of_block);
        }
        Ok(blocks)
    }
}

/// One piece of a matrix, as a matrix of its rows.
fn piece_of<P>(x: &Matrix<P>, piece: usize) -> Result<Matrix<P>, Error> {
    let form = Error::Form { operation: "an encrypted linear map" };
    let (layout, rank) = (x.entries.layout, x.entries.layout.rank());
    let layout = layout.with_rows(layout.rows().saturating_sub(piece * rank).min(rank))?;
    let pieces = vec![x.pieces.get(piece).ok_or(form)?.clone()];
    Ok(Matrix { entries: Entries { layout, ..x.entries }, level: x.level, pieces })
}
