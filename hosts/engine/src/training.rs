//! The backward pass: what the program asks for beyond the forward one.

use crate::algebra::{Algebra, Matrix};
use crate::executor::Engine;
use crate::tensor::{RowsOf, Slots};
use crate::{Error, Tensor};
use std::cell::RefCell;
use std::rc::Rc;
use veilformer::matrix::{Entries, PlainMatrix, Side};
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Config, Kernel, Norm, Parameter, Shape, Site, Trainable, TrainingExecutor};

/// Scales further apart than this are brought together by an integer.
const SAME: f64 = 1.25;
/// Gradients whose scales differ by less than this part are added as if they did not.
const MISFIT: f64 = 1.0 / (1 << 10) as f64;

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// x and y at one scale: the smaller is lifted by the integer that lies between them.
    pub(crate) fn aligned(
        &mut self,
        x: &Matrix<G::Piece>,
        y: &Matrix<G::Piece>,
    ) -> Result<[Matrix<G::Piece>; 2], Error> {
        let ratio = x.entries.scale / y.entries.scale;
        let [x, mut y] = if ratio > SAME {
            [x.clone(), self.algebra.lift(y, ratio.round() as i32)?]
        } else if ratio < 1.0 / SAME {
            [self.algebra.lift(x, (1.0 / ratio).round() as i32)?, y.clone()]
        } else {
            [x.clone(), y.clone()]
        };
        // What integer factors left between them is an error of the second.
        let misfit = y.entries.scale - x.entries.scale;
        if misfit.abs() < MISFIT * x.entries.scale {
            let noise = y.entries.noise.hypot(y.entries.bound * misfit);
            y.entries = Entries { scale: x.entries.scale, noise, ..y.entries };
        }
        Ok([x, y])
    }

    /// x + y or x − y of matrices of which one may have an integer multiple of the other's scale.
    pub(crate) fn combine(
        &mut self,
        x: &Tensor<G>,
        y: &Tensor<G>,
        subtract: bool,
    ) -> Result<Tensor<G>, Error> {
        if x.places != y.places {
            return Err(Error::Form { operation: "a sum" });
        }
        let mut packed = Vec::with_capacity(x.packed.len());
        for (x, y) in x.packed.iter().zip(&y.packed) {
            let [x, y] = self.aligned(x, y)?;
            packed.push(if subtract { self.algebra.subtract(&x, &y)? } else { self.algebra.add(&x, &y)? });
        }
        Ok(Tensor::packed(x.places, packed, x.first))
    }

    /// The rows of every sentence.
    pub(crate) fn rows_of(&mut self, x: &Tensor<G>, level: usize) -> Result<RowsOf<G>, Error> {
        if let Some(rows) = &*x.rows.borrow() {
            return Ok(rows.clone());
        }
        if let Some(waiting) = &x.waiting {
            if waiting.rows.borrow().is_none() {
                self.raise_waiting()?;
            }
            return waiting.rows.borrow().clone().ok_or(Error::Form { operation: "LoRA's gradient" });
        }
        let rows = x.packed.iter().map(|matrix| {
            let level = level.min(matrix.level);
            self.algebra.split(&Matrix { level, ..matrix.clone() })
        });
        Ok(Rc::new(rows.collect::<Result<_, Error>>()?))
    }

    /// dy·Wᵀ for encrypted weights whose vectors are columns of W: Σ_j w_j ⊗ (row j of dy).
    fn expand_trained(&mut self, dy: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        let Shape { rows: width, columns: count } = weight.shape(self.config());
        let places = dy.places.with_rows(width)?;
        let top = self.algebra.rings().level;
        let rows = self.rows_of(dy, top)?;
        // What LoRA adds to the projections' gradient is called as large as that may be.
        let own = match weight {
            Parameter::LoraDown(_, layer) => self.model.gradient_bound(Site::FirstNorm(layer)),
            _ => None,
        };
        let bound = own.map_or_else(|| self.gradient_stream(), Ok)?;
        let mut packed = Vec::with_capacity(rows.len());
        for rows in rows.iter() {
            packed.push(Self::tempered(self.combine_vectors(weight, count, rows, &places, bound)?));
        }
        let dx = Tensor::packed(places, packed, dy.first);
        if weight == Parameter::HeadUp && self.config().head_rank > 0 {
            return self.at_top(&dx, self.gradient_bound(Site::FinalNorm)?);
        }
        Ok(dx)
    }

    /// Every row minus the mean over the rows: of logits, which are few.
    fn centred(&mut self, x: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "centring" };
        let entries = x.packed.first().ok_or(form)?.entries;
        let rows = entries.layout.rows();
        let reach = 0.5 * self.approximation(Site::LossExp)?.interval().width();
        let scale = self.algebra.rings().message_scale / reach;
        let mut words = vec![0; PlainMatrix::words_needed(&entries.layout, &entries.layout)];
        let entry = |o: usize, i: usize| f64::from(u8::from(o == i)) - 1.0 / rows as f64;
        let w = PlainMatrix::quantize(&entries.layout, &entries.layout, &mut words, entry)?;
        let w = w.with_bound(reach / entries.bound);
        let packed = x.packed.iter().map(|matrix| self.algebra.multiply_plain(&w, matrix, scale));
        Ok(Tensor::packed(x.places, packed.collect::<Result<_, Error>>()?, x.first))
    }

    /// The sum over the rows, in every row, in slots: at the scale of what is done to it, 1/x.
    fn summed(&mut self, x: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let slots = self.slots_of(x)?;
        let interval = self.approximation(Site::LossInverse)?.interval();
        let factor = 2.0 / interval.width();
        let constant = factor / slots.factor;
        let sums = self.row_sums(&x.places, &slots.halves, constant, |arithmetic, parts, _, _| {
            let mut sum = arithmetic.duplicate(parts[0])?;
            parts[1..].iter().try_for_each(|part| arithmetic.add_assign(&mut sum, part))?;
            Ok(sum)
        })?;
        if x.places.ciphertexts_of_one() != 1 {
            return Err(Error::Form { operation: "a sum of many rows" });
        }
        let slots = Slots { factor, halves: sums };
        Ok(Tensor {
            slots: RefCell::new(Some(Rc::new(slots))),
            ..Tensor::packed(x.places, Vec::new(), x.first)
        })
    }

    /// Adds column s of a tensor of first tokens to column 0 of sentence s.
    fn add_first(&mut self, x: &Tensor<G>, first: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "an addition to first tokens" };
        let matrix = first.packed.first().ok_or(form)?;
        let level = x.packed.iter().map(|x| x.level).min().ok_or(form)?.min(matrix.level);
        let rows = self.algebra.split(&Matrix { level, ..matrix.clone() })?;
        let rank = matrix.entries.layout.rank();
        let mut by_sentence: Vec<Vec<Rc<G::Piece>>> = x.packed.iter().map(|_| Vec::new()).collect();
        let mut entries: Option<Entries> = None;
        for rows in rows.chunks(rank) {
            let columns = self.algebra.columns(rows, Side::Scatter)?;
            for (pieces, column) in by_sentence.iter_mut().zip(&columns) {
                let column = self.algebra.column_matrix(column)?;
                entries = Some(column.entries);
                pieces.extend(column.pieces);
            }
        }
        let entries = Entries { layout: matrix.entries.layout, ..entries.ok_or(form)? };
        let mut packed = Vec::with_capacity(x.packed.len());
        for (x, pieces) in x.packed.iter().zip(by_sentence) {
            let [x, first] = self.aligned(x, &Matrix { entries, level, pieces })?;
            packed.push(self.algebra.add(&x, &first)?);
        }
        Ok(Tensor::packed(x.places, packed, x.first))
    }
}

impl<G: Algebra, M: Model> TrainingExecutor for Engine<'_, G, M> {
    fn trained(&self) -> Trainable {
        self.set
    }

    fn subtract(&mut self, a: &Tensor<G>, b: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let difference = self.combine(a, b, true)?;
        let (level, bound) = difference
            .packed
            .iter()
            .map(|matrix| (matrix.level, matrix.entries.bound))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            .ok_or(Error::Form { operation: "a difference" })?;
        // Gradients begin here; outputs that no function has refreshed come from a product.
        if level < self.algebra.rings().level { self.at_top(&difference, bound) } else { Ok(difference) }
    }

    fn scale(&mut self, x: &Tensor<G>, factor: f64) -> Result<Tensor<G>, Error> {
        let scaled = |matrix: &Matrix<G::Piece>| {
            let (scale, bound) = (matrix.entries.scale / factor, matrix.entries.bound * factor.abs());
            Matrix { entries: Entries { scale, bound, ..matrix.entries }, ..matrix.clone() }
        };
        Ok(Tensor::packed(x.places, x.packed.iter().map(scaled).collect(), x.first))
    }

    fn linear_transposed(&mut self, dy: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        match weight {
            Parameter::LoraUp(..) => self.lora_up_backward(dy, weight),
            _ if self.is_whole(weight) => self.multiply_whole_transposed(dy, weight),
            _ if self.is_trained(weight) => self.expand_trained(dy, weight),
            _ => self.multiply_weight_transposed(dy, weight),
        }
    }

    fn accumulate(&mut self, x: &Tensor<G>, dy: &Tensor<G>, weight: Parameter) -> Result<(), Error> {
        self.add_gradient(x, dy, weight)
    }

    fn head_products(&mut self, x: &Tensor<G>, y: &Tensor<G>) -> Result<Tensor<G>, Error> {
        self.products_of_heads(x, y, None)
    }

    fn mix_transposed(&mut self, scores: &Tensor<G>, x: &Tensor<G>) -> Result<Tensor<G>, Error> {
        self.values_transposed(scores, x)
    }

    fn weigh_by_rows(&mut self, scores: &Tensor<G>, x: &Tensor<G>) -> Result<Tensor<G>, Error> {
        self.weighed_by_rows(scores, x)
    }

    fn weigh_by_columns(&mut self, scores: &Tensor<G>, x: &Tensor<G>) -> Result<Tensor<G>, Error> {
        self.weighed_by_columns(scores, x)
    }

    fn kernel_backward(
        &mut self,
        scores: &Tensor<G>,
        d_scores: &Tensor<G>,
        layer: usize,
    ) -> Result<Tensor<G>, Error> {
        match self.config().kernel {
            Kernel::Gaussian => self.scores_backward(scores, d_scores),
            Kernel::Softmax => self.softmax_backward(scores, d_scores, layer),
        }
    }

    fn exponents_backward(
        &mut self,
        config: &Config,
        e: &Tensor<G>,
        by: [&Tensor<G>; 2],
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor<G>>; 2], Error> {
        let [query, key] = self.exponent_gradients(e, by, wanted)?;
        let mut scaled = |x: Option<Tensor<G>>| {
            x.map(|x| TrainingExecutor::scale(self, &x, 2.0 * config.kernel_scale())).transpose()
        };
        Ok([scaled(query)?, scaled(key)?])
    }

    fn layer_norm_backward(&mut self, x: &Tensor<G>, dy: &Tensor<G>, norm: Norm) -> Result<Tensor<G>, Error> {
        self.normalise_backward(x, dy, norm)
    }

    fn gate_backward(
        &mut self,
        hidden: &Tensor<G>,
        d_gated: &Tensor<G>,
        layer: usize,
    ) -> Result<Tensor<G>, Error> {
        self.gated_backward(hidden, d_gated, layer)
    }

    fn tanh_backward(&mut self, _: &Tensor<G>, y: &Tensor<G>, dy: &Tensor<G>) -> Result<Tensor<G>, Error> {
        // So that W_up's transpose brings it to the bound of the final norm's gradient.
        let reach = 0.5 * self.approximation(Site::Tanh)?.interval().width();
        let factor = reach / (self.stream() * self.gradient_bound(Site::FinalNorm)?);
        self.hyperbolic_backward(y, dy, factor)
    }

    fn add_to_first_token(&mut self, x: &Tensor<G>, first: &Tensor<G>) -> Result<Tensor<G>, Error> {
        self.add_first(x, first)
    }

    fn centre(&mut self, x: &Tensor<G>) -> Result<Tensor<G>, Error> {
        self.centred(x)
    }

    fn row_sums(&mut self, x: &Tensor<G>) -> Result<Tensor<G>, Error> {
        self.summed(x)
    }
}
