//! The training half of the plain executor: gradients of a set of weights, and penalties on arguments that stray.
//!
//! Penalty training (PAPER.md, appendix E): an argument u of a site with bounds [l, h] adds ½·w·dist(u, [l, h])² to the
//! loss, so that the ranges the polynomials must cover stay narrow. The penalty's gradient enters where the site's own does.

use veilformer::transformer::{Config, Executor, Kernel, Norm, Parameter, Site, Trainable, TrainingExecutor};

use crate::executor::{Functions, PlainError, PlainExecutor, same_shape};
use crate::noise::Noise;
use crate::parameters::Parameters;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, add_scaled, dot};

/// Bounds the arguments of some sites are pushed back into.
#[derive(Debug, Clone, PartialEq)]
pub struct Penalties {
    config: Config,
    bounds: Vec<Option<(f64, f64)>>,
    /// The weight w of every penalty, relative to the loss of one sequence; the tokens a site sees share it.
    pub weight: f64,
}

impl Penalties {
    /// No bounds.
    pub fn none(config: &Config) -> Self {
        Self { config: *config, bounds: vec![None; Site::count(config)], weight: 0.0 }
    }

    /// Bounds a site.
    pub fn set(&mut self, site: Site, low: f64, high: f64) {
        self.bounds[site.index(&self.config)] = Some((low, high));
    }

    /// The derivative of the penalty by the argument.
    pub fn slope(&self, site: Site, argument: f64) -> f64 {
        self.bounds[site.index(&self.config)]
            .map_or(0.0, |(low, high)| self.share(site) * (argument - argument.clamp(low, high)))
    }

    /// The penalty itself.
    pub fn value(&self, site: Site, argument: f64) -> f64 {
        self.bounds[site.index(&self.config)].map_or(0.0, |(low, high)| {
            0.5 * self.share(site) * (argument - argument.clamp(low, high)).powi(2)
        })
    }

    /// The weight of one token's argument: a layer that works on every token must not outweigh the last one.
    fn share(&self, site: Site) -> f64 {
        let every = match site {
            Site::FirstNorm(_) => true,
            Site::Kernel(layer) | Site::Normaliser(layer) | Site::SecondNorm(layer) | Site::Gate(layer) => {
                !self.config.is_last(layer)
            }
            Site::FinalNorm | Site::Tanh | Site::LossExp | Site::LossInverse | Site::Optimizer => false,
        };
        if every { self.weight / self.config.length as f64 } else { self.weight }
    }
}

/// A [`PlainExecutor`] that also sums gradients.
pub struct Trainer<'a, F> {
    executor: PlainExecutor<'a, F>,
    penalties: &'a Penalties,
    trained: Trainable,
    gradients: Parameters<F>,
}

impl<'a, F: Scalar> Trainer<'a, F> {
    /// A trainer of every weight, with all gradients zero.
    pub fn new(
        config: &'a Config,
        parameters: &'a Parameters<F>,
        functions: Functions<'a>,
        penalties: &'a Penalties,
    ) -> Self {
        let executor = PlainExecutor::new(config, parameters, functions);
        Self { executor, penalties, trained: Trainable::Everything, gradients: Parameters::zeros(config) }
    }

    /// The same for a set of weights.
    pub fn with_trained(self, trained: Trainable) -> Self {
        Self { trained, ..self }
    }

    /// The same with noise; every `stream` of a seed has its own.
    pub fn with_noise(self, noise: Noise, stream: u64) -> Self {
        Self { executor: self.executor.with_noise(noise, stream), ..self }
    }

    /// The gradients summed so far; those of frozen weights stay zero.
    pub fn gradients(&self) -> &Parameters<F> {
        &self.gradients
    }

    /// The gradients summed so far.
    pub fn gradients_mut(&mut self) -> &mut Parameters<F> {
        &mut self.gradients
    }

    /// The gradients, and the executor with the ranges it saw.
    pub fn finish(self) -> (Parameters<F>, PlainExecutor<'a, F>) {
        (self.gradients, self.executor)
    }
}

impl<F: Scalar> Executor for Trainer<'_, F> {
    type Tensor = Tensor<F>;
    type Error = PlainError;

    fn linear(&mut self, x: &Tensor<F>, weight: Parameter) -> Result<Tensor<F>, PlainError> {
        self.executor.linear(x, weight)
    }
    fn add(&mut self, a: &Tensor<F>, b: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        self.executor.add(a, b)
    }
    fn multiply(&mut self, a: &Tensor<F>, b: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        self.executor.multiply(a, b)
    }
    fn apply(&mut self, x: &Tensor<F>, site: Site) -> Result<Tensor<F>, PlainError> {
        self.executor.apply(x, site)
    }
    fn layer_norm(&mut self, x: &Tensor<F>, norm: Norm) -> Result<Tensor<F>, PlainError> {
        self.executor.layer_norm(x, norm)
    }
    fn first_token(&mut self, x: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        self.executor.first_token(x)
    }
    fn mask_tokens(&mut self, x: &Tensor<F>, mask: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        self.executor.mask_tokens(x, mask)
    }
    fn gaussian_scores(
        &mut self,
        query: &Tensor<F>,
        key: &Tensor<F>,
        layer: usize,
    ) -> Result<Tensor<F>, PlainError> {
        self.executor.gaussian_scores(query, key, layer)
    }
    fn softmax_scores(
        &mut self,
        query: &Tensor<F>,
        key: &Tensor<F>,
        mask: &Tensor<F>,
        layer: usize,
    ) -> Result<Tensor<F>, PlainError> {
        self.executor.softmax_scores(query, key, mask, layer)
    }
    fn mix(&mut self, scores: &Tensor<F>, value: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        self.executor.mix(scores, value)
    }
    fn gate(&mut self, hidden: &Tensor<F>, layer: usize) -> Result<Tensor<F>, PlainError> {
        self.executor.gate(hidden, layer)
    }
}

impl<F: Scalar> TrainingExecutor for Trainer<'_, F> {
    fn trained(&self) -> Trainable {
        self.trained
    }

    fn subtract(&mut self, a: &Tensor<F>, b: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        same_shape("subtract", a, b)?;
        Ok(a.zip(b, |a, b| a - b))
    }

    fn scale(&mut self, x: &Tensor<F>, factor: f64) -> Result<Tensor<F>, PlainError> {
        let factor = F::from_f64(factor);
        Ok(self.executor.result(x.map(|v| v * factor)))
    }

    fn linear_transposed(&mut self, dy: &Tensor<F>, weight: Parameter) -> Result<Tensor<F>, PlainError> {
        let shape = weight.shape(self.executor.config);
        if dy.columns() != shape.columns {
            let right = (shape.rows, shape.columns);
            return Err(PlainError::Shape { operation: "linear_transposed", left: dy.shape(), right });
        }
        let dx = dy.times_transposed(self.executor.parameters.get(weight));
        if let Parameter::LoraUp(_, layer) = weight {
            self.executor.ranges.note_adapter_gradients(layer, dx.data());
        }
        Ok(self.executor.result(dx))
    }

    fn accumulate(&mut self, x: &Tensor<F>, dy: &Tensor<F>, weight: Parameter) -> Result<(), PlainError> {
        let shape = weight.shape(self.executor.config);
        if x.rows() != dy.rows() || (x.columns(), dy.columns()) != (shape.rows, shape.columns) {
            return Err(PlainError::Shape { operation: "accumulate", left: x.shape(), right: dy.shape() });
        }
        let sum = self.gradients.get_mut(weight);
        if self.executor.is_noiseless() {
            x.add_outer_into(dy, sum);
        } else {
            let mut outer = Tensor::zeros(shape.rows, shape.columns);
            x.add_outer_into(dy, outer.data_mut());
            add_scaled(sum, F::from_f64(1.0), self.executor.result(outer).data());
        }
        Ok(())
    }

    fn head_products(&mut self, x: &Tensor<F>, y: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        let products = self.executor.by_heads("head_products", x, y, dot)?;
        Ok(self.executor.result(products))
    }

    fn mix_transposed(&mut self, scores: &Tensor<F>, x: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        let rows = self.executor.head_rows("mix_transposed", scores, x, true)?;
        let n = self.executor.config.head_width();
        let mut out = Tensor::zeros(scores.columns(), x.columns());
        for head in 0..self.executor.config.heads {
            for i in 0..rows {
                for (j, &s) in scores.row(head * rows + i).iter().enumerate() {
                    add_scaled(&mut out.row_mut(j)[head * n..][..n], s, &x.row(i)[head * n..][..n]);
                }
            }
        }
        Ok(self.executor.result(out))
    }

    fn weigh_by_rows(&mut self, scores: &Tensor<F>, x: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        let rows = self.executor.head_rows("weigh_by_rows", scores, x, true)?;
        let n = self.executor.config.head_width();
        let mut out = x.clone();
        for head in 0..self.executor.config.heads {
            for i in 0..rows {
                let sum = scores.row(head * rows + i).iter().fold(F::default(), |sum, &s| sum + s);
                out.row_mut(i)[head * n..][..n].iter_mut().for_each(|v| *v = *v * sum);
            }
        }
        Ok(self.executor.result(out))
    }

    fn weigh_by_columns(&mut self, scores: &Tensor<F>, x: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        let rows = self.executor.head_rows("weigh_by_columns", scores, x, false)?;
        let n = self.executor.config.head_width();
        let mut out = x.clone();
        for head in 0..self.executor.config.heads {
            for j in 0..x.rows() {
                let sum = (0..rows).fold(F::default(), |sum, i| sum + scores.row(head * rows + i)[j]);
                out.row_mut(j)[head * n..][..n].iter_mut().for_each(|v| *v = *v * sum);
            }
        }
        Ok(self.executor.result(out))
    }

    fn kernel_backward(
        &mut self,
        scores: &Tensor<F>,
        d_scores: &Tensor<F>,
        layer: usize,
    ) -> Result<Tensor<F>, PlainError> {
        self.executor.ranges.note_gradients(Site::Kernel(layer), d_scores.data());
        let mut gradient = self.multiply(scores, d_scores)?;
        if self.executor.config.kernel == Kernel::Softmax {
            let sums = self.row_sums(&gradient)?;
            let shared = self.multiply(scores, &sums)?;
            gradient = self.subtract(&gradient, &shared)?;
        }
        if self.penalties.weight > 0.0 {
            let exponents = self.executor.exponents.get(&layer).map_or(&[][..], Tensor::data);
            for (dz, z) in gradient.data_mut().iter_mut().zip(exponents) {
                *dz += F::from_f64(self.penalties.slope(Site::Kernel(layer), z.to_f64()));
            }
        }
        Ok(gradient)
    }

    fn layer_norm_backward(
        &mut self,
        x: &Tensor<F>,
        dy: &Tensor<F>,
        norm: Norm,
    ) -> Result<Tensor<F>, PlainError> {
        same_shape("layer_norm_backward", x, dy)?;
        if let Some(site) = norm.site() {
            self.executor.ranges.note_gradients(site, dy.data());
        }
        let (normalised, factors) = self.executor.normalise(x, norm)?;
        let width = x.columns() as f64;
        let gain = self.executor.parameters.get(Parameter::Gain(norm));
        let mut dx = dy.clone();
        for (i, &r) in factors.iter().enumerate() {
            let x_hat = normalised.row(i);
            if self.trained.includes(Parameter::Gain(norm)) {
                let gain = self.gradients.get_mut(Parameter::Gain(norm));
                for (slot, (&d, &x)) in gain.iter_mut().zip(dy.row(i).iter().zip(x_hat)) {
                    *slot += d * x;
                }
                let bias = self.gradients.get_mut(Parameter::Bias(norm));
                bias.iter_mut().zip(dy.row(i)).for_each(|(slot, &d)| *slot += d);
            }
            let g = dx.row_mut(i);
            g.iter_mut().zip(gain).for_each(|(d, &gain)| *d = *d * gain);
            let mean = g.iter().map(|v| v.to_f64()).sum::<f64>() / width;
            let along = dot(g, x_hat).to_f64() / width;
            // The penalty on v = variance + ε: dv/dx = 2(x − mean)/width = 2·x̂/(r·width).
            let penalty =
                norm.site().map_or(0.0, |site| self.penalties.slope(site, 1.0 / (r * r)) * 2.0 / (r * width));
            let (r, mean, along, penalty) =
                (F::from_f64(r), F::from_f64(mean), F::from_f64(along), F::from_f64(penalty));
            for (d, &x) in g.iter_mut().zip(x_hat) {
                *d = r * (*d - mean - x * along) + penalty * x;
            }
        }
        Ok(self.executor.result(dx))
    }

    fn gate_backward(
        &mut self,
        hidden: &Tensor<F>,
        d_gated: &Tensor<F>,
        layer: usize,
    ) -> Result<Tensor<F>, PlainError> {
        let site = Site::Gate(layer);
        let relu = self.executor.functions.at(site)?;
        let half = self.executor.config.feed_forward;
        if hidden.shape() != (d_gated.rows(), 2 * half) || d_gated.columns() != half {
            let (left, right) = (hidden.shape(), d_gated.shape());
            return Err(PlainError::Shape { operation: "gate_backward", left, right });
        }
        self.executor.ranges.note_gradients(site, d_gated.data());
        let mut d_hidden = hidden.clone();
        for i in 0..hidden.rows() {
            let (a, b) = d_hidden.row_mut(i).split_at_mut(half);
            for ((a, b), &dg) in a.iter_mut().zip(b).zip(d_gated.row(i)) {
                let (slope, penalty) = (relu.relu_slope(b.to_f64()), self.penalties.slope(site, b.to_f64()));
                let da = dg * relu.evaluate(*b);
                *b = dg * *a * F::from_f64(slope) + F::from_f64(penalty);
                *a = da;
            }
        }
        Ok(self.executor.result(d_hidden))
    }

    fn tanh_backward(
        &mut self,
        x: &Tensor<F>,
        y: &Tensor<F>,
        dy: &Tensor<F>,
    ) -> Result<Tensor<F>, PlainError> {
        same_shape("tanh_backward", x, y)?;
        same_shape("tanh_backward", y, dy)?;
        self.executor.ranges.note_gradients(Site::Tanh, dy.data());
        let one = F::from_f64(1.0);
        let mut dx = y.zip(dy, |y, dy| dy * (one - y * y));
        for (d, x) in dx.data_mut().iter_mut().zip(x.data()) {
            *d += F::from_f64(self.penalties.slope(Site::Tanh, x.to_f64()));
        }
        Ok(self.executor.result(dx))
    }

    fn add_to_first_token(&mut self, x: &Tensor<F>, first: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        if x.rows() == 0 || first.shape() != (1, x.columns()) {
            let (left, right) = (x.shape(), first.shape());
            return Err(PlainError::Shape { operation: "add_to_first_token", left, right });
        }
        let mut y = x.clone();
        add_scaled(y.row_mut(0), F::from_f64(1.0), first.row(0));
        Ok(y)
    }

    fn centre(&mut self, x: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        let sums = self.row_sums(x)?;
        let share = F::from_f64(1.0 / x.columns().max(1) as f64);
        Ok(x.zip(&sums, |x, sum| x - sum * share))
    }

    fn row_sums(&mut self, x: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        let mut y = x.clone();
        for i in 0..y.rows() {
            let sum = x.row(i).iter().fold(F::default(), |sum, &v| sum + v);
            y.row_mut(i).fill(sum);
        }
        Ok(self.executor.result(y))
    }
}
