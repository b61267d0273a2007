//! Linear maps by plaintext weights.

use crate::algebra::{Algebra, Matrix};
use crate::attention::SCORES_LEVEL;
use crate::executor::Engine;
use crate::{Error, Places, Tensor};
use veilformer::matrix::PlainMatrix;
use veilformer::transformer::slots::Model;
use veilformer::transformer::{Kernel, Parameter, Projection, Shape, Site};

/// Scale of a matrix whose product with another is to be taken.
pub(crate) const FACTOR_SCALE: f64 = (1u64 << 38) as f64;

/// What a product with weights is to be.
struct Target {
    /// Its columns of the weight.
    columns: std::ops::Range<usize>,
    /// What an entry is multiplied by.
    scale: Scale,
    /// Whether the mean over the features is taken out.
    centred: bool,
}

/// How a scale is chosen.
enum Scale {
    /// As such.
    Of(f64),
    /// So that entries within this reach to the bound of a bootstrap.
    Within(f64),
    /// So that the largest entry there can be does.
    Largest,
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// x·W: one product, or two for the halves of a gate.
    pub(crate) fn multiply_weight(&mut self, x: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        if self.is_trained(weight) {
            return self.multiply_trained(x, weight);
        }
        if let Some(unscaled) = &x.unscaled {
            return self.expand_in_slots(x, unscaled, weight);
        }
        let config = self.config();
        let Shape { columns, .. } = weight.shape(config);
        let target = |scale| Target { columns: 0..columns, scale, centred: false };
        let half = |site| -> Result<f64, Error> { Ok(0.5 * self.approximation(site)?.interval().width()) };
        let first = match weight {
            Parameter::Attention(projection, layer) => {
                target(Scale::Of(self.projection_scale(x, projection, layer)?))
            }
            Parameter::Output(_) | Parameter::Contract(_) => {
                Target { centred: true, ..target(Scale::Within(self.stream())) }
            }
            Parameter::Expand(layer) => {
                let b = Target {
                    columns: columns / 2..columns,
                    ..target(Scale::Within(half(Site::Gate(layer))?))
                };
                let a = Target { columns: 0..columns / 2, ..target(Scale::Largest) };
                let gated = self.multiply_target(x, weight, &b)?;
                return Ok(Tensor { gated: gated.packed, ..self.multiply_target(x, weight, &a)? });
            }
            Parameter::HeadUp => target(Scale::Within(half(Site::Tanh)?)),
            _ => target(Scale::Largest),
        };
        self.multiply_target(x, weight, &first)
    }

    fn multiply_target(
        &mut self,
        x: &Tensor<G>,
        weight: Parameter,
        target: &Target,
    ) -> Result<Tensor<G>, Error> {
        let (model, config) = (self.model, self.config());
        let shape = weight.shape(config);
        let form = Error::Form { operation: "a linear map" };
        let entries = x.packed.first().ok_or(form)?.entries;
        if entries.layout.rows() != shape.rows {
            return Err(form);
        }
        let places: Places = x.places.with_rows(target.columns.len())?;
        let means: Vec<f64> = if target.centred {
            let mean = |row| (0..shape.columns).map(|c| model.weight(weight, row, c)).sum::<f64>();
            (0..shape.rows).map(|row| mean(row) / shape.columns as f64).collect()
        } else {
            vec![0.0; shape.rows]
        };
        let entry = |output: usize, input: usize| {
            model.weight(weight, input, target.columns.start + output) - means[input]
        };
        let mut words = vec![0; PlainMatrix::words_needed(places.layout(), &entries.layout)];
        let w = PlainMatrix::quantize(places.layout(), &entries.layout, &mut words, entry)?;
        // A normalised row is no longer than its bound.
        let is_normalised =
            matches!(weight, Parameter::Attention(..) | Parameter::Expand(_) | Parameter::HeadDown)
                || (weight == Parameter::HeadUp && config.head_rank == 0);
        let reach = if is_normalised { w.norm() } else { w.bound() } * entries.bound;
        let (bound, scale) = match target.scale {
            Scale::Of(scale) => (reach, scale),
            Scale::Within(bound) => (bound, self.algebra.rings().message_scale / bound),
            Scale::Largest => (reach, self.algebra.rings().message_scale / reach),
        };
        let w = w.with_bound(bound / entries.bound);
        // What goes to a bootstrap, or joins a stream that does, needs no level behind the product.
        let level = match weight {
            Parameter::Expand(_) | Parameter::Contract(_) | Parameter::Output(_) => 1,
            _ => usize::MAX,
        };
        let factors: Vec<_> = x.packed.iter().map(|matrix| matrix.at_most(level)).collect();
        let packed = self.algebra.multiply_plain_each(&w, &factors, scale)?;
        Ok(Tensor::packed(places, packed, x.first))
    }

    /// The scale and the bound of dy·Wᵀ.
    pub(crate) fn transposed_scale(&self, dy: &Tensor<G>, weight: Parameter) -> Result<(f64, f64), Error> {
        let rings = self.algebra.rings();
        let message = rings.message_scale;
        Ok(match weight {
            Parameter::Output(layer) => {
                let scale = self.mixed_gradient_scale(self.gradient_bound(Site::Kernel(layer))?);
                (scale, message / scale)
            }
            Parameter::Contract(layer) => {
                let bound = self.gradient_bound(Site::Gate(layer))?;
                (message / bound, bound)
            }
            Parameter::Expand(layer) => {
                let bound = self.gradient_bound(Site::SecondNorm(layer))?;
                (message / bound, bound)
            }
            Parameter::Attention(_, layer) if self.config().has_first_norm(layer) => {
                let bound = self.gradient_bound(Site::FirstNorm(layer))?;
                // The first tokens go back to their sentences as columns.
                let replicas = rings.degrees.small / dy.places.layout().rank();
                (message / bound / if dy.first { replicas as f64 } else { 1.0 }, bound)
            }
            _ => return Err(Error::Form { operation: "a transposed linear map" }),
        })
    }

    /// The scale of gradients by what attention gives: their product with values is to reach to the bound of a bootstrap.
    pub(crate) fn mixed_gradient_scale(&self, bound: f64) -> f64 {
        let rings = self.algebra.rings();
        let below = rings.moduli[rings.level - 1];
        let value = FACTOR_SCALE * below / rings.message_scale;
        rings.message_scale / bound * below / value
    }

    /// dy·Wᵀ for plaintext weights.
    pub(crate) fn multiply_weight_transposed(
        &mut self,
        dy: &Tensor<G>,
        weight: Parameter,
    ) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "a transposed linear map" };
        let (model, config) = (self.model, self.config());
        let Shape { rows, columns } = weight.shape(config);
        let (scale, bound) = self.transposed_scale(dy, weight)?;
        let places = dy.places.with_rows(rows)?;
        let halves: Vec<_> = if let Parameter::Expand(_) = weight {
            vec![(0, columns / 2, &dy.packed), (columns / 2, columns, &dy.gated)]
        } else {
            vec![(0, columns, &dy.packed)]
        };
        let mut sum: Option<Vec<Matrix<G::Piece>>> = None;
        for (first, end, packed) in halves {
            let entries = packed.first().ok_or(form)?.entries;
            if entries.layout.rows() != end - first {
                return Err(form);
            }
            let mut words = vec![0; PlainMatrix::words_needed(places.layout(), &entries.layout)];
            let entry = |output: usize, input: usize| model.weight(weight, output, first + input);
            let w = PlainMatrix::quantize(places.layout(), &entries.layout, &mut words, entry)?;
            let w = w.with_bound(bound / entries.bound);
            let products = self.algebra.multiply_plain_each(&w, packed, scale)?;
            sum = Some(match sum {
                None => products,
                // At scales as close as the integers that brought both there allow.
                Some(sum) => {
                    let sums = sum.iter().zip(&products).map(|(x, y)| {
                        let [x, y] = self.aligned(x, y)?;
                        self.algebra.add(&x, &y)
                    });
                    sums.collect::<Result<_, Error>>()?
                }
            });
        }
        Ok(Tensor::packed(places, sum.ok_or(form)?, dy.first))
    }

    /// The scale of queries, keys or values, one level below a lowered tensor.
    pub(crate) fn projection_scale(
        &self,
        x: &Tensor<G>,
        projection: Projection,
        layer: usize,
    ) -> Result<f64, Error> {
        let rings = self.algebra.rings();
        let below = rings.moduli[match projection {
            Projection::Value => rings.level - 1,
            _ => SCORES_LEVEL,
        }];
        // Columns are at as many times the scale of rows as there are of them.
        let columns = (rings.degrees.small / x.places.layout().rank()) as f64;
        if projection == Projection::Value {
            return Ok(FACTOR_SCALE * below / (columns * rings.message_scale));
        }
        // Products, or half the squared distances, times 2c, are to reach to the bound of a bootstrap.
        let wanted = rings.message_scale * 2.0 * self.config().kernel_scale() / self.kernel_reach(layer)?;
        Ok(match self.config().kernel {
            Kernel::Gaussian => (0.5 * wanted * below).sqrt() / columns,
            Kernel::Softmax => (wanted * below / columns).sqrt(),
        })
    }
}
