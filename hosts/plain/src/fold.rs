//! Folding: every constant that can be multiplied into a plaintext weight beforehand is, because a level saved is a
//! level saved in every encrypted run.
//!
//! What the encrypted executor multiplies by, and why it computes the same:
//!
//! * **The residual stream is kept centred and scaled.** Every use of the stream except the residual addition is a layer
//!   norm, which removes the mean; so the mean projector P = I − 11ᵀ/d goes into W_O and the second feed-forward matrix.
//!   The stream ahead of a norm with interval [l, h] is x̃ = c·Px, c = √(2/(d·(h − l))): the argument of the norm's
//!   polynomial, already on [−1, 1], is then just **t = Σ x̃² − offset**. Between two norms the stream changes scale by a
//!   public scalar, off the critical path.
//! * **The norm's gain, bias and 1/c** go into the matrix that reads it and the coefficients:
//!   LN(x)·W = (x̃·W′) ⊙ p(t) + b′ with W′ = diag(gain)·W, b′ = bias·W, p = p₀/c. The product x̃·W′ does not wait for p(t), so
//!   norm and matrix together cost 2 + depth(p) levels.
//! * **The kernel's scale** goes into W_Q and W_K: t = offset − Σ (q′ − k′)².
//! * **The gate's and tanh's intervals** go into the matrices before them.
//! * LoRA factors, where they are known in the clear, are added to their matrix; a low-rank head becomes one matrix.
//!
//! | the program says | an executor over a `Folded` does |
//! |---|---|
//! | `layer_norm(x̃)` | t = Σ x̃² − offset, p(t); hands back the pair (x̃, p(t)) and multiplies nothing yet |
//! | `linear((x̃, p), W)` | (x̃·W′) ⊙ p + b′, with W′ = `query`, `key`, `value`, `expand_a`, `expand_b` or `head` |
//! | `linear(y, W_O)`, `linear(y, Contract)` | y·`output`, y·`contract`: a contribution to the stream in the scale of the *next* norm |
//! | `add(stream, contribution)` | `attention_rescale`·stream + contribution, or `feed_forward_rescale`·stream + contribution |
//! | `first_token(x)` | row 0 repeated, or the others zero: no row may carry what a later polynomial is not calibrated for |
//! | `gaussian_scores(q′, k′)` | `kernel`(`kernel_offset` − Σ (q′ − k′)²) |
//! | `gate((a, t))` | a ⊙ `gate`(t) |
//! | `tanh(t)` | `tanh`(t) |
//!
//! [`Folded::evaluate`] carries these steps out on f64 and is the reference for the encrypted executor.

use veilformer::approx::{Approximation, clenshaw};
use veilformer::transformer::{Config, Norm, Parameter, Projection, Site};

use crate::executor::PlainError;
use crate::parameters::Parameters;
use crate::sites::Approximations;
use crate::tensor::{Tensor, dot};

/// A polynomial whose argument arrives on [−1, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct UnitPolynomial {
    /// Chebyshev coefficients.
    pub coefficients: Vec<f64>,
    /// Squarings after it.
    pub squarings: u32,
    /// Levels it costs.
    pub depth: u32,
}

impl UnitPolynomial {
    fn new(polynomial: &Approximation<'_>, scale: f64) -> Self {
        Self {
            coefficients: polynomial.coefficients().iter().map(|c| c * scale).collect(),
            squarings: polynomial.squarings(),
            depth: polynomial.depth(),
        }
    }

    /// The value at t.
    pub fn evaluate(&self, t: f64) -> f64 {
        (0..self.squarings).fold(clenshaw(&self.coefficients, t), |y, _| y * y)
    }
}

/// A layer norm whose affine part has gone elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedNorm {
    /// c: the stream ahead of this norm is c·Px.
    pub scale: f64,
    /// t = Σ x̃² − offset.
    pub offset: f64,
    /// p(t): the factor every entry of the row is multiplied by, 1/c included.
    pub factor: UnitPolynomial,
}

/// x·matrix + bias. A bias of zeros may be skipped.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    /// Inputs × outputs.
    pub matrix: Tensor<f64>,
    /// One per output.
    pub bias: Vec<f64>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedLayer {
    /// `None`: query, key and value read the input as it comes.
    pub first_norm: Option<FoldedNorm>,
    /// q′: scaled for the kernel.
    pub query: Affine,
    /// k′: scaled for the kernel.
    pub key: Affine,
    /// v; multiplied by the encrypted mask afterwards.
    pub value: Affine,
    /// t = offset − Σ (q′ − k′)² over a head.
    pub kernel_offset: f64,
    /// Scores from t.
    pub kernel: UnitPolynomial,
    /// (S·V)·output is added to the stream.
    pub output: Tensor<f64>,
    /// What the stream is multiplied by before that addition.
    pub attention_rescale: f64,
    /// The norm ahead of the feed-forward.
    pub second_norm: FoldedNorm,
    /// a.
    pub expand_a: Affine,
    /// The argument of the gate's polynomial.
    pub expand_b: Affine,
    /// ReLU(b) from it.
    pub gate: UnitPolynomial,
    /// (a ⊙ ReLU(b))·contract is added to the stream.
    pub contract: Tensor<f64>,
    /// What the stream is multiplied by before that addition.
    pub feed_forward_rescale: f64,
}

/// A model as the encrypted executor reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// The sizes.
    pub config: Config,
    /// What the input is multiplied by to become the stream.
    pub input_scale: f64,
    /// Whether the input must be centred to become the stream: not where the embedding's norm has no affine part.
    pub centre_input: bool,
    /// The layers.
    pub layers: Vec<FoldedLayer>,
    /// The norm ahead of the head.
    pub final_norm: FoldedNorm,
    /// The argument of tanh's polynomial.
    pub head: Affine,
    /// tanh from it.
    pub tanh: UnitPolynomial,
    /// Logits.
    pub classifier: Tensor<f64>,
}

/// Folds a model. Fails where a site has no approximation.
pub fn fold(
    config: &Config,
    parameters: &Parameters<f32>,
    approximations: &Approximations,
) -> Result<Folded, PlainError> {
    let folder =
        Folder { config, parameters: parameters.convert(), approximations, no_norm: vec![1.0; config.width] };
    let entry = |layer: usize| match layer {
        l if l == config.layers => Norm::Final,
        l => Norm::First(l),
    };
    let input_scale = if config.has_first_norm(0) { folder.norm(Norm::First(0))?.scale } else { 1.0 };
    let mut scale = input_scale;
    let mut layers = Vec::with_capacity(config.layers);
    for layer in 0..config.layers {
        let next = folder.norm(entry(layer + 1))?.scale;
        layers.push(folder.layer(layer, scale, next)?);
        scale = next;
    }
    let tanh = folder.site(Site::Tanh)?;
    let head_up = folder.matrix(Parameter::HeadUp);
    let head = match config.head_rank {
        0 => head_up,
        _ => folder.matrix(Parameter::HeadDown).times(head_up.data(), config.head_hidden),
    };
    Ok(Folded {
        config: *config,
        input_scale,
        centre_input: config.embedding_affine,
        layers,
        final_norm: folder.norm(Norm::Final)?,
        head: to_unit(folder.after_norm(Some(Norm::Final), &head), &tanh),
        tanh: UnitPolynomial::new(&tanh, 1.0),
        classifier: folder.matrix(Parameter::Classifier),
    })
}

struct Folder<'a> {
    config: &'a Config,
    parameters: Parameters<f64>,
    approximations: &'a Approximations,
    no_norm: Vec<f64>,
}

impl Folder<'_> {
    fn site(&self, site: Site) -> Result<Approximation<'_>, PlainError> {
        self.approximations.get(site).ok_or(PlainError::NoApproximation(site))
    }

    fn matrix(&self, parameter: Parameter) -> Tensor<f64> {
        let shape = parameter.shape(self.config);
        Tensor::from_rows(shape.columns, self.parameters.get(parameter).to_vec())
            .unwrap_or_else(|| Tensor::zeros(shape.rows, shape.columns))
    }

    fn norm(&self, norm: Norm) -> Result<FoldedNorm, PlainError> {
        let polynomial = self.site(norm.site().unwrap_or(Site::FinalNorm))?;
        let interval = polynomial.interval();
        let scale = (2.0 / (self.config.width as f64 * interval.width())).sqrt();
        let offset = (interval.high() + interval.low() - 2.0 * self.config.norm_epsilon) / interval.width();
        Ok(FoldedNorm { scale, offset, factor: UnitPolynomial::new(&polynomial, 1.0 / scale) })
    }

    /// The matrix and bias that read x̃·p(t) in place of LN(x).
    fn after_norm(&self, norm: Option<Norm>, weight: &Tensor<f64>) -> Affine {
        let gain = norm.map_or(self.no_norm.as_slice(), |n| self.parameters.get(Parameter::Gain(n)));
        let bias = norm.map_or(&[][..], |n| self.parameters.get(Parameter::Bias(n)));
        let mut matrix = weight.clone();
        let mut folded = vec![0.0; weight.columns()];
        for (i, &gain) in gain.iter().enumerate() {
            for (f, w) in folded.iter_mut().zip(weight.row(i)) {
                *f += bias.get(i).unwrap_or(&0.0) * w;
            }
            matrix.row_mut(i).iter_mut().for_each(|w| *w *= gain);
        }
        Affine { matrix, bias: folded }
    }

    /// W, plus A·B where there is a LoRA.
    fn projection(&self, projection: Projection, layer: usize) -> Tensor<f64> {
        let w = self.matrix(Parameter::Attention(projection, layer));
        if self.config.lora_rank == 0 {
            return w;
        }
        let down = self.matrix(Parameter::LoraDown(projection, layer));
        let up = self.parameters.get(Parameter::LoraUp(projection, layer));
        w.zip(&down.times(up, self.config.width), |a, b| a + b)
    }

    fn layer(&self, layer: usize, scale: f64, next_scale: f64) -> Result<FoldedLayer, PlainError> {
        let first = self.config.has_first_norm(layer).then_some(Norm::First(layer));
        let kernel = self.site(Site::Kernel(layer))?;
        let interval = kernel.interval();
        let kernel_scale = (2.0 * self.config.kernel_scale() / interval.width()).sqrt();
        let project = |p| self.after_norm(first, &self.projection(p, layer));
        let second_norm = self.norm(Norm::Second(layer))?;
        let gate = self.site(Site::Gate(layer))?;
        let expand = self.matrix(Parameter::Expand(layer));
        let half = self.config.feed_forward;
        let (a, b) = (columns(&expand, 0, half), columns(&expand, half, half));
        let second = Some(Norm::Second(layer));
        Ok(FoldedLayer {
            first_norm: first.map(|n| self.norm(n)).transpose()?,
            query: scaled(project(Projection::Query), kernel_scale),
            key: scaled(project(Projection::Key), kernel_scale),
            value: project(Projection::Value),
            kernel_offset: -(interval.low() + interval.high()) / interval.width(),
            kernel: UnitPolynomial::new(&kernel, 1.0),
            output: centred(self.matrix(Parameter::Output(layer)), second_norm.scale),
            attention_rescale: second_norm.scale / scale,
            expand_a: self.after_norm(second, &a),
            expand_b: to_unit(self.after_norm(second, &b), &gate),
            gate: UnitPolynomial::new(&gate, 1.0),
            contract: centred(self.matrix(Parameter::Contract(layer)), next_scale),
            feed_forward_rescale: next_scale / second_norm.scale,
            second_norm,
        })
    }
}

/// c·W·P: rows without their mean.
fn centred(mut matrix: Tensor<f64>, scale: f64) -> Tensor<f64> {
    for i in 0..matrix.rows() {
        centre(matrix.row_mut(i), scale);
    }
    matrix
}

fn centre(row: &mut [f64], scale: f64) {
    let mean = row.iter().sum::<f64>() / row.len().max(1) as f64;
    row.iter_mut().for_each(|x| *x = scale * (*x - mean));
}

fn columns(matrix: &Tensor<f64>, from: usize, count: usize) -> Tensor<f64> {
    let mut out = Tensor::zeros(matrix.rows(), count);
    for i in 0..matrix.rows() {
        out.row_mut(i).copy_from_slice(&matrix.row(i)[from..][..count]);
    }
    out
}

fn scaled(affine: Affine, factor: f64) -> Affine {
    let bias = affine.bias.iter().map(|b| b * factor).collect();
    Affine { matrix: affine.matrix.map(|w| w * factor), bias }
}

/// Makes an affine map land on [−1, 1] where it landed on the polynomial's interval.
fn to_unit(affine: Affine, polynomial: &Approximation<'_>) -> Affine {
    let interval = polynomial.interval();
    let mut affine = scaled(affine, 2.0 / interval.width());
    let shift = (interval.low() + interval.high()) / interval.width();
    affine.bias.iter_mut().for_each(|b| *b -= shift);
    affine
}

impl FoldedNorm {
    /// p(t) of a row of the stream.
    fn factor_of(&self, stream: &[f64]) -> f64 {
        self.factor.evaluate(dot(stream, stream) - self.offset)
    }

    fn levels(&self) -> u32 {
        2 + self.factor.depth
    }
}

impl Affine {
    /// (x·matrix) ⊙ factor + bias, row by row.
    fn apply(&self, x: &Tensor<f64>, norm: Option<&FoldedNorm>) -> Tensor<f64> {
        let mut y = x.times(self.matrix.data(), self.matrix.columns());
        for i in 0..y.rows() {
            let factor = norm.map_or(1.0, |n| n.factor_of(x.row(i)));
            y.row_mut(i).iter_mut().zip(&self.bias).for_each(|(v, b)| *v = *v * factor + b);
        }
        y
    }
}

impl Folded {
    /// Levels on the critical path, from the encrypted input to the encrypted logits.
    pub fn levels(&self) -> u32 {
        let layer = |l: &FoldedLayer| {
            let projections = l.first_norm.as_ref().map_or(1, FoldedNorm::levels);
            let attention = 1 + l.kernel.depth + 1 + 1;
            let feed_forward = l.second_norm.levels() + l.gate.depth + 1 + 1;
            projections + attention + feed_forward
        };
        self.layers.iter().map(layer).sum::<u32>() + self.final_norm.levels() + self.tanh.depth + 1
    }

    /// Logits of one sequence, step by step as the encrypted executor takes them: `input` is the T×d normalised
    /// embedding, `mask` 1 or 0 per token.
    pub fn evaluate(&self, input: &Tensor<f64>, mask: &[f64]) -> Vec<f64> {
        let mut stream = input.clone();
        for i in 0..stream.rows() {
            if self.centre_input {
                centre(stream.row_mut(i), 1.0);
            }
            stream.row_mut(i).iter_mut().for_each(|x| *x *= self.input_scale);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            stream = self.evaluate_layer(index, layer, input, &stream, mask);
        }
        let mut z = self.head.apply(&stream, Some(&self.final_norm));
        z.data_mut().iter_mut().for_each(|z| *z = self.tanh.evaluate(*z));
        z.times(self.classifier.data(), self.config.classes).data().to_vec()
    }

    fn evaluate_layer(
        &self,
        index: usize,
        layer: &FoldedLayer,
        input: &Tensor<f64>,
        stream: &Tensor<f64>,
        mask: &[f64],
    ) -> Tensor<f64> {
        let norm = layer.first_norm.as_ref();
        let x = if norm.is_some() { stream } else { input };
        let rows = if self.config.is_last(index) { 1 } else { x.rows() };
        let first = |t: &Tensor<f64>| {
            let mut cut = Tensor::zeros(rows, t.columns());
            cut.data_mut().copy_from_slice(&t.data()[..rows * t.columns()]);
            cut
        };
        let (q, k) = (layer.query.apply(&first(x), norm), layer.key.apply(x, norm));
        let v = layer.value.apply(x, norm);
        let n = self.config.head_width();
        let mut mixed = Tensor::zeros(rows, self.config.width);
        for i in 0..rows {
            for head in 0..self.config.heads {
                let span = head * n..(head + 1) * n;
                for (j, m) in mask.iter().enumerate() {
                    let distance: f64 = q.row(i)[span.clone()]
                        .iter()
                        .zip(&k.row(j)[span.clone()])
                        .map(|(q, k)| (q - k).powi(2))
                        .sum();
                    let score = layer.kernel.evaluate(layer.kernel_offset - distance);
                    for (y, v) in mixed.row_mut(i)[span.clone()].iter_mut().zip(&v.row(j)[span.clone()]) {
                        *y += score * (m * v);
                    }
                }
            }
        }
        let attention = mixed.times(layer.output.data(), self.config.width);
        let stream = first(stream).zip(&attention, |x, y| layer.attention_rescale * x + y);
        let norm = Some(&layer.second_norm);
        let (a, b) = (layer.expand_a.apply(&stream, norm), layer.expand_b.apply(&stream, norm));
        let gated = a.zip(&b, |a, b| a * layer.gate.evaluate(b));
        let contracted = gated.times(layer.contract.data(), self.config.width);
        stream.zip(&contracted, |x, y| layer.feed_forward_rescale * x + y)
    }
}
