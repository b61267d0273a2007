//! The plain executor: exact, or with the model's polynomials in place of the functions.
//!
//! Both are the same code over the same program; only the non-linear functions differ. Whatever it computes, the executor
//! notes the range of the arguments at every site, which is what calibration and escape checks read. It can add the noise
//! that an encrypted execution would have.

use std::collections::HashMap;

use veilformer::approx::{Approximation, Function};
use veilformer::transformer::{Config, Executor, Norm, Parameter, Site};

use crate::noise::{Noise, NoiseSource};
use crate::parameters::Parameters;
use crate::scalar::Scalar;
use crate::sites::{Approximations, Ranges};
use crate::tensor::{Tensor, add_scaled, dot};

/// Why an operation could not be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlainError {
    /// Two matrices do not fit together.
    #[error("{operation}: a {left:?} matrix does not fit {right:?}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// Shape of the left operand.
        left: (usize, usize),
        /// Shape of the right operand, or the one expected.
        right: (usize, usize),
    },
    /// The table of approximations has no entry for a site.
    #[error("no approximation for {0:?}: calibrate the model first, or run it exactly")]
    NoApproximation(Site),
}

/// How the non-linear functions are computed.
#[derive(Debug, Clone, Copy)]
pub enum Functions<'a> {
    /// As they are.
    Exact,
    /// By the polynomials of the table: what the encrypted execution computes, without its noise.
    Polynomial(&'a Approximations),
    /// The model's by the polynomials of the table; loss and optimizer as they are: training in the clear of a model that
    /// is to answer under encryption.
    PolynomialModel(&'a Approximations),
}

impl<'a> Functions<'a> {
    /// The function of a site.
    pub(crate) fn at(self, site: Site) -> Result<Activation<'a>, PlainError> {
        match self {
            Self::Exact => Ok(Activation::Exact(site.function())),
            Self::PolynomialModel(_) if site.is_training() => Ok(Activation::Exact(site.function())),
            Self::Polynomial(table) | Self::PolynomialModel(table) => {
                table.get(site).map(Activation::Polynomial).ok_or(PlainError::NoApproximation(site))
            }
        }
    }
}

/// Runs the program on matrices of f32 or f64.
pub struct PlainExecutor<'a, F> {
    pub(crate) config: &'a Config,
    pub(crate) parameters: &'a Parameters<F>,
    pub(crate) functions: Functions<'a>,
    pub(crate) ranges: Ranges,
    /// The kernel's arguments, layer by layer, of the last sequence.
    pub(crate) exponents: HashMap<usize, Tensor<F>>,
    noise: Option<NoiseSource>,
}

/// One site's function, looked up once per call.
pub(crate) enum Activation<'a> {
    Exact(Function),
    Polynomial(Approximation<'a>),
}

impl Activation<'_> {
    pub(crate) fn evaluate<F: Scalar>(&self, x: F) -> F {
        match self {
            Self::Exact(Function::Relu) => {
                if x > F::default() {
                    x
                } else {
                    F::default()
                }
            }
            Self::Exact(Function::Exp) => x.exp(),
            Self::Exact(Function::Tanh) => x.tanh(),
            Self::Exact(function) => F::from_f64(function.evaluate(x.to_f64())),
            Self::Polynomial(polynomial) => F::from_f64(polynomial.evaluate(x.to_f64())),
        }
    }

    /// The derivative of ReLU, or of the polynomial in its place.
    pub(crate) fn relu_slope(&self, x: f64) -> f64 {
        match self {
            Self::Exact(_) => f64::from(u8::from(x > 0.0)),
            Self::Polynomial(polynomial) => polynomial.slope(x),
        }
    }
}

impl<'a, F: Scalar> PlainExecutor<'a, F> {
    /// An executor for a model of these sizes and weights.
    pub fn new(config: &'a Config, parameters: &'a Parameters<F>, functions: Functions<'a>) -> Self {
        let (ranges, exponents) = (Ranges::new(config), HashMap::new());
        Self { config, parameters, functions, ranges, exponents, noise: None }
    }

    /// The same with noise; every `stream` of a seed has its own.
    pub fn with_noise(self, noise: Noise, stream: u64) -> Self {
        Self { noise: Some(NoiseSource::new(noise, stream)), ..self }
    }

    /// The arguments seen so far.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Whether results come without noise.
    pub(crate) fn is_noiseless(&self) -> bool {
        self.noise.is_none()
    }

    /// The result of an operation, with its noise where there is any.
    pub(crate) fn result(&mut self, mut x: Tensor<F>) -> Tensor<F> {
        if let Some(noise) = &mut self.noise {
            noise.disturb(x.data_mut());
        }
        x
    }

    /// exp, at the layer's kernel, of all exponents.
    fn kernel(&mut self, exponents: Tensor<F>, layer: usize) -> Result<Tensor<F>, PlainError> {
        let scores = self.apply(&exponents, Site::Kernel(layer))?;
        self.exponents.insert(layer, exponents);
        Ok(scores)
    }

    /// x̂ and, per row, r: the normalised rows before gain and bias.
    pub(crate) fn normalise(
        &mut self,
        x: &Tensor<F>,
        norm: Norm,
    ) -> Result<(Tensor<F>, Vec<f64>), PlainError> {
        let inverse_sqrt = match norm.site() {
            Some(site) => self.functions.at(site)?,
            None => Activation::Exact(Function::InverseSqrt),
        };
        let mut normalised = x.clone();
        let mut factors = Vec::with_capacity(x.rows());
        for i in 0..x.rows() {
            let row = normalised.row_mut(i);
            let width = row.len().max(1) as f64;
            let mean = F::from_f64(row.iter().map(|v| v.to_f64()).sum::<f64>() / width);
            row.iter_mut().for_each(|v| *v = *v - mean);
            let variance = dot(row, row).to_f64() / width + self.config.norm_epsilon;
            if let Some(site) = norm.site() {
                self.ranges.note(site, variance);
            }
            let factor = inverse_sqrt.evaluate(variance);
            row.iter_mut().for_each(|v| *v = *v * F::from_f64(factor));
            factors.push(factor);
        }
        Ok((normalised, factors))
    }

    /// Number of rows per head, after checking that the scores fit `x` on the side that is contracted.
    pub(crate) fn head_rows(
        &self,
        operation: &'static str,
        scores: &Tensor<F>,
        x: &Tensor<F>,
        contract_rows: bool,
    ) -> Result<usize, PlainError> {
        let per_head = scores.rows() / self.config.heads;
        let contracted = if contract_rows { per_head } else { scores.columns() };
        if per_head * self.config.heads == scores.rows()
            && contracted == x.rows()
            && x.columns() == self.config.width
        {
            Ok(per_head)
        } else {
            Err(PlainError::Shape { operation, left: scores.shape(), right: x.shape() })
        }
    }

    /// f(row i of x, row j of y) over the columns of every head, stacked head by head.
    pub(crate) fn by_heads(
        &self,
        operation: &'static str,
        x: &Tensor<F>,
        y: &Tensor<F>,
        f: impl Fn(&[F], &[F]) -> F,
    ) -> Result<Tensor<F>, PlainError> {
        if x.columns() != self.config.width || y.columns() != self.config.width {
            return Err(PlainError::Shape { operation, left: x.shape(), right: y.shape() });
        }
        let n = self.config.head_width();
        let mut out = Tensor::zeros(self.config.heads * x.rows(), y.rows());
        for head in 0..self.config.heads {
            for i in 0..x.rows() {
                let q = &x.row(i)[head * n..][..n];
                for (j, s) in out.row_mut(head * x.rows() + i).iter_mut().enumerate() {
                    *s = f(q, &y.row(j)[head * n..][..n]);
                }
            }
        }
        Ok(out)
    }
}

pub(crate) fn same_shape<F: Scalar>(
    operation: &'static str,
    a: &Tensor<F>,
    b: &Tensor<F>,
) -> Result<(), PlainError> {
    if a.shape() == b.shape() {
        Ok(())
    } else {
        Err(PlainError::Shape { operation, left: a.shape(), right: b.shape() })
    }
}

impl<F: Scalar> Executor for PlainExecutor<'_, F> {
    type Tensor = Tensor<F>;
    type Error = PlainError;

    fn linear(&mut self, x: &Tensor<F>, weight: Parameter) -> Result<Tensor<F>, PlainError> {
        let shape = weight.shape(self.config);
        if x.columns() != shape.rows {
            let right = (shape.rows, shape.columns);
            return Err(PlainError::Shape { operation: "linear", left: x.shape(), right });
        }
        Ok(self.result(x.times(self.parameters.get(weight), shape.columns)))
    }

    fn add(&mut self, a: &Tensor<F>, b: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        same_shape("add", a, b)?;
        Ok(a.zip(b, |a, b| a + b))
    }

    fn multiply(&mut self, a: &Tensor<F>, b: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        same_shape("multiply", a, b)?;
        Ok(self.result(a.zip(b, |a, b| a * b)))
    }

    fn apply(&mut self, x: &Tensor<F>, site: Site) -> Result<Tensor<F>, PlainError> {
        let function = self.functions.at(site)?;
        let y = x.map(|v| {
            self.ranges.note(site, v.to_f64());
            function.evaluate(v)
        });
        Ok(self.result(y))
    }

    fn layer_norm(&mut self, x: &Tensor<F>, norm: Norm) -> Result<Tensor<F>, PlainError> {
        let (mut y, _) = self.normalise(x, norm)?;
        let (gain, bias) =
            (self.parameters.get(Parameter::Gain(norm)), self.parameters.get(Parameter::Bias(norm)));
        for i in 0..y.rows() {
            for (v, (&gain, &bias)) in y.row_mut(i).iter_mut().zip(gain.iter().zip(bias)) {
                *v = *v * gain + bias;
            }
        }
        // The client's norm is computed in the clear.
        Ok(if norm.site().is_some() { self.result(y) } else { y })
    }

    fn first_token(&mut self, x: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        Tensor::from_rows(x.columns(), x.data().iter().take(x.columns()).copied().collect())
            .filter(|first| first.rows() == 1)
            .ok_or(PlainError::Shape { operation: "first_token", left: x.shape(), right: (1, x.columns()) })
    }

    fn mask_tokens(&mut self, x: &Tensor<F>, mask: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        if mask.shape() != (x.rows(), 1) {
            return Err(PlainError::Shape { operation: "mask_tokens", left: x.shape(), right: mask.shape() });
        }
        let mut y = x.clone();
        for (i, &m) in mask.data().iter().enumerate() {
            y.row_mut(i).iter_mut().for_each(|v| *v = *v * m);
        }
        Ok(self.result(y))
    }

    fn gaussian_scores(
        &mut self,
        query: &Tensor<F>,
        key: &Tensor<F>,
        layer: usize,
    ) -> Result<Tensor<F>, PlainError> {
        let scale = F::from_f64(-self.config.kernel_scale());
        let exponents = self.by_heads("gaussian_scores", query, key, |q, k| {
            scale
                * q.iter().zip(k).fold(F::default(), |sum, (&q, &k)| {
                    let difference = q - k;
                    sum + difference * difference
                })
        })?;
        self.kernel(exponents, layer)
    }

    fn softmax_scores(
        &mut self,
        query: &Tensor<F>,
        key: &Tensor<F>,
        mask: &Tensor<F>,
        layer: usize,
    ) -> Result<Tensor<F>, PlainError> {
        if mask.shape() != (key.rows(), 1) {
            let (left, right) = (key.shape(), mask.shape());
            return Err(PlainError::Shape { operation: "softmax_scores", left, right });
        }
        let scale = F::from_f64(2.0 * self.config.kernel_scale());
        let exponents = self.by_heads("softmax_scores", query, key, |q, k| scale * dot(q, k))?;
        let mut scores = self.kernel(exponents, layer)?;
        let site = Site::Normaliser(layer);
        let inverse = self.functions.at(site)?;
        for i in 0..scores.rows() {
            let row = scores.row_mut(i);
            row.iter_mut().zip(mask.data()).for_each(|(s, &m)| *s = *s * m);
            let sum = row.iter().fold(F::default(), |sum, &s| sum + s);
            self.ranges.note(site, sum.to_f64());
            let factor = inverse.evaluate(sum);
            row.iter_mut().for_each(|s| *s = *s * factor);
        }
        Ok(self.result(scores))
    }

    fn mix(&mut self, scores: &Tensor<F>, value: &Tensor<F>) -> Result<Tensor<F>, PlainError> {
        let rows = self.head_rows("mix", scores, value, false)?;
        let n = self.config.head_width();
        let mut out = Tensor::zeros(rows, self.config.width);
        for head in 0..self.config.heads {
            for i in 0..rows {
                let y = &mut out.row_mut(i)[head * n..][..n];
                for (j, &s) in scores.row(head * rows + i).iter().enumerate() {
                    add_scaled(y, s, &value.row(j)[head * n..][..n]);
                }
            }
        }
        Ok(self.result(out))
    }

    fn gate(&mut self, hidden: &Tensor<F>, layer: usize) -> Result<Tensor<F>, PlainError> {
        let site = Site::Gate(layer);
        let relu = self.functions.at(site)?;
        let half = self.config.feed_forward;
        if hidden.columns() != 2 * half {
            let right = (hidden.rows(), 2 * half);
            return Err(PlainError::Shape { operation: "gate", left: hidden.shape(), right });
        }
        let mut out = Tensor::zeros(hidden.rows(), half);
        for i in 0..hidden.rows() {
            let (a, b) = hidden.row(i).split_at(half);
            for ((y, &a), &b) in out.row_mut(i).iter_mut().zip(a).zip(b) {
                self.ranges.note(site, b.to_f64());
                *y = a * relu.evaluate(b);
            }
        }
        Ok(self.result(out))
    }
}
