//! The trainer: AdamW, cosine decay, penalties, and a last stretch on the polynomials that will be deployed.
//!
//! Deterministic for a seed: a batch is always cut into [`CHUNKS`] pieces whose gradients are added in order, whatever
//! the number of threads.

use rayon::prelude::*;
use veilformer::transformer::{
    Config, Executor, Norm, Parameter, Site, TrainingExecutor, backward, forward, forward_recorded,
    loss_gradient, position,
};

use crate::executor::{Functions, PlainError, PlainExecutor};
use crate::gradient::{Penalties, Trainer};
use crate::optimizer::{AdamW, Moments};
use crate::parameters::Parameters;
use crate::random::Random;
use crate::scalar::Scalar;
use crate::sites::{Approximations, Budget, Ranges};
use crate::tensor::Tensor;
use crate::tokenizer::{Sequence, UNKNOWN};
use veilformer::approx::ApproxError;

/// Pieces a batch is cut into; also the most threads that can help.
pub const CHUNKS: usize = 2;

/// A tokenised sentence and its label: a class, or a score.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The tokens.
    pub sequence: Sequence,
    /// The class number, or the score.
    pub label: f32,
}

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Passes over the data with the exact functions.
    pub exact_epochs: usize,
    /// Passes after that with the polynomials.
    pub polynomial_epochs: usize,
    /// Sequences per step.
    pub batch: usize,
    /// At the start; falls to 0 along a cosine.
    pub learning_rate: f64,
    /// The optimizer.
    pub optimizer: AdamW,
    /// Chance that a token is replaced by [UNK].
    pub word_dropout: f64,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What happened so far, after every epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Epochs done.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Mean loss over the epoch, penalties not included.
    pub loss: f64,
    /// Whether the polynomials were used.
    pub polynomial: bool,
}

/// Why training stopped.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// The program failed.
    #[error(transparent)]
    Plain(#[from] PlainError),
    /// A polynomial could not be fitted: training has diverged, or a site was never reached.
    #[error("calibration failed ({0}): a smaller learning rate or narrower penalties may help")]
    Calibration(#[from] ApproxError),
    /// The loss is not a number.
    #[error("the loss is {loss} in epoch {epoch}: training diverged, use a smaller learning rate")]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// Its mean loss.
        loss: f64,
    },
    /// No data.
    #[error("no training examples were given")]
    NoData,
}

/// A trained model: weights, and the polynomials it was finished on.
pub struct Trained {
    /// The weights.
    pub parameters: Parameters<f32>,
    /// The table of approximations.
    pub approximations: Approximations,
}

/// Trains from random weights.
pub fn train(
    config: &Config,
    data: &[Example],
    options: &Options,
    penalties: &Penalties,
    budget: impl Fn(Site) -> Budget,
    progress: &mut dyn FnMut(Progress),
) -> Result<Trained, TrainError> {
    if data.is_empty() {
        return Err(TrainError::NoData);
    }
    let mut parameters = Parameters::<f32>::random(config, options.seed);
    let mut moments = Moments::new(parameters.values().len());
    let mut order: Vec<usize> = (0..data.len()).collect();
    let epochs = options.exact_epochs + options.polynomial_epochs;
    let steps = (data.len().div_ceil(options.batch.max(1)) * epochs) as f64;
    let mut step = 0;
    let mut table = None;
    for epoch in 0..epochs {
        if epoch == options.exact_epochs {
            let ranges = observe(config, &parameters, data, Functions::Exact)?.ranges;
            table = Some(Approximations::calibrate(config, &ranges, &budget)?);
        }
        Random::new(options.seed, 1000 + epoch as u64).shuffle(&mut order);
        let mut loss = 0.0;
        for batch in order.chunks(options.batch.max(1)) {
            let functions = table.as_ref().map_or(Functions::Exact, Functions::Polynomial);
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * f64::from(step) / steps).cos());
            step += 1;
            loss += train_step(
                config,
                data,
                batch,
                options,
                (penalties, functions),
                options.learning_rate * cosine,
                (options.seed, epoch as u64),
                &mut parameters,
                &mut moments,
            )?;
        }
        let loss = loss / data.len() as f64;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { epoch: epoch + 1, loss });
        }
        progress(Progress { epoch: epoch + 1, epochs, loss, polynomial: table.is_some() });
    }
    let approximations = match table {
        Some(table) => table,
        None => {
            let ranges = observe(config, &parameters, data, Functions::Exact)?.ranges;
            Approximations::calibrate(config, &ranges, &budget)?
        }
    };
    Ok(Trained { parameters, approximations })
}

/// One optimizer step on a batch; returns the sum of the losses.
#[allow(clippy::too_many_arguments)]
fn train_step(
    config: &Config,
    data: &[Example],
    batch: &[usize],
    options: &Options,
    (penalties, functions): (&Penalties, Functions<'_>),
    learning_rate: f64,
    (seed, epoch): (u64, u64),
    parameters: &mut Parameters<f32>,
    moments: &mut Moments,
) -> Result<f64, TrainError> {
    let weights = &*parameters;
    let pieces: Vec<(f64, Parameters<f32>)> = batch
        .par_chunks(batch.len().div_ceil(CHUNKS))
        .map(|piece| {
            let mut trainer = Trainer::new(config, weights, functions, penalties);
            let mut loss = 0.0;
            for &index in piece {
                let mut example = data[index].clone();
                let mut random = Random::new(seed ^ (epoch << 40), index as u64);
                let used = example.sequence.used;
                for token in example.sequence.tokens.iter_mut().take(used).skip(1) {
                    if random.uniform() < options.word_dropout {
                        *token = UNKNOWN;
                    }
                }
                loss += gradient(config, &mut trainer, weights, &example)?;
            }
            Ok((loss, trainer.finish().0))
        })
        .collect::<Result<_, PlainError>>()?;
    let mut pieces = pieces.into_iter();
    let Some((mut loss, mut sum)) = pieces.next() else { return Ok(0.0) };
    for (more_loss, more) in pieces {
        loss += more_loss;
        sum.values_mut().iter_mut().zip(more.values()).for_each(|(a, b)| *a += b);
    }
    let decayed: Vec<_> = parameters
        .layout()
        .iter()
        .filter(|(p, _)| !matches!(p, Parameter::Gain(_) | Parameter::Bias(_) | Parameter::PositionScale))
        .map(|(_, range)| range.clone())
        .collect();
    let scale = 1.0 / batch.len() as f32;
    moments.step(&options.optimizer, learning_rate, parameters.values_mut(), sum.values(), scale, &decayed);
    Ok(loss)
}

/// Token + scaled position, before the embedding's norm.
fn embed_raw<F: Scalar>(config: &Config, parameters: &Parameters<F>, tokens: &[u32]) -> Tensor<F> {
    let table = parameters.get(Parameter::TokenEmbedding);
    let scale = parameters.get(Parameter::PositionScale).first().map_or(0.0, |s| s.to_f64());
    let mut x = Tensor::zeros(tokens.len(), config.width);
    for (i, &token) in tokens.iter().enumerate() {
        let row = table.chunks_exact(config.width).nth(token as usize).unwrap_or(&[]);
        for (feature, (y, &e)) in x.row_mut(i).iter_mut().zip(row).enumerate() {
            *y = e + F::from_f64(scale * position(i, feature, config.width));
        }
    }
    x
}

/// The normalised embedding: the tensor that is encrypted.
pub fn embed<F: Scalar>(
    executor: &mut PlainExecutor<'_, F>,
    config: &Config,
    parameters: &Parameters<F>,
    tokens: &[u32],
) -> Result<Tensor<F>, PlainError> {
    executor.layer_norm(&embed_raw(config, parameters, tokens), Norm::Embedding)
}

/// The mask as a T×1 tensor.
pub fn mask_tensor<F: Scalar>(sequence: &Sequence) -> Tensor<F> {
    let mut mask = Tensor::zeros(sequence.tokens.len(), 1);
    mask.data_mut().iter_mut().zip(sequence.mask()).for_each(|(m, v)| *m = F::from_f64(v));
    mask
}

/// Adds one example's gradient to the trainer's; returns its loss (without penalties).
pub fn gradient<F: Scalar>(
    config: &Config,
    trainer: &mut Trainer<'_, F>,
    parameters: &Parameters<F>,
    example: &Example,
) -> Result<f64, PlainError> {
    let raw = embed_raw(config, parameters, &example.sequence.tokens);
    let input = trainer.layer_norm(&raw, Norm::Embedding)?;
    let mask = mask_tensor(&example.sequence);
    let (logits, tape) = forward_recorded(config, trainer, input, &mask)?;
    let target = target(config, example.label);
    let d_logits = loss_gradient(config, trainer, &logits, &target)?;
    let d_input = backward(config, trainer, tape, &d_logits, &mask)?;
    let d_raw = trainer.layer_norm_backward(&raw, &d_input, Norm::Embedding)?;
    scatter(config, trainer.gradients_mut(), &example.sequence.tokens, &d_raw);
    Ok(loss(config, &logits, example.label))
}

/// Gradients of token embeddings and of the position's factor.
fn scatter<F: Scalar>(config: &Config, gradients: &mut Parameters<F>, tokens: &[u32], d_raw: &Tensor<F>) {
    let width = config.width;
    let mut d_scale = 0.0;
    let table = gradients.get_mut(Parameter::TokenEmbedding);
    for (i, &token) in tokens.iter().enumerate() {
        let Some(row) = table.chunks_exact_mut(width).nth(token as usize) else { continue };
        for (feature, (g, &d)) in row.iter_mut().zip(d_raw.row(i)).enumerate() {
            *g += d;
            d_scale += d.to_f64() * position(i, feature, width);
        }
    }
    if let Some(g) = gradients.get_mut(Parameter::PositionScale).first_mut() {
        *g += F::from_f64(d_scale);
    }
}

/// One-hot, or the score.
pub fn target<F: Scalar>(config: &Config, label: f32) -> Tensor<F> {
    use veilformer::transformer::Loss;
    let mut target = Tensor::zeros(1, config.classes);
    match config.loss {
        Loss::CrossEntropy => {
            if let Some(t) = target.data_mut().get_mut(label as usize) {
                *t = F::from_f64(1.0);
            }
        }
        Loss::SquaredError => target.data_mut()[0] = F::from_f64(f64::from(label)),
    }
    target
}

/// The loss of one row of logits.
pub fn loss<F: Scalar>(config: &Config, logits: &Tensor<F>, label: f32) -> f64 {
    use veilformer::transformer::Loss;
    let y: Vec<f64> = logits.data().iter().map(|v| v.to_f64()).collect();
    match config.loss {
        Loss::CrossEntropy => {
            let largest = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = y.iter().map(|v| (v - largest).exp()).sum();
            largest + sum.ln() - y.get(label as usize).copied().unwrap_or(f64::NAN)
        }
        Loss::SquaredError => 0.5 * (y[0] - f64::from(label)).powi(2),
    }
}

/// What a run over a data set saw.
pub struct Observation {
    /// One row of logits per example.
    pub logits: Vec<Vec<f64>>,
    /// The range of arguments at every site.
    pub ranges: Ranges,
}

impl Observation {
    /// Share of examples whose largest logit is the label's.
    pub fn accuracy(&self, data: &[Example]) -> f64 {
        let right = self.logits.iter().zip(data).filter(|(y, example)| {
            let best = y.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
            best == Some(example.label as usize)
        });
        right.count() as f64 / data.len().max(1) as f64
    }

    /// Largest and mean |difference| of the logits of two runs.
    pub fn difference(&self, other: &Self) -> (f64, f64) {
        let (mut worst, mut sum, mut count) = (0.0f64, 0.0, 0.0);
        for (a, b) in self.logits.iter().flatten().zip(other.logits.iter().flatten()) {
            worst = worst.max((a - b).abs());
            sum += (a - b).abs();
            count += 1.0;
        }
        (worst, sum / f64::max(count, 1.0))
    }
}

/// Runs a model over examples: the logits, and the ranges every site saw.
pub fn observe<F: Scalar>(
    config: &Config,
    parameters: &Parameters<F>,
    data: &[Example],
    functions: Functions<'_>,
) -> Result<Observation, PlainError> {
    let pieces: Vec<Observation> = data
        .par_chunks(data.len().div_ceil(CHUNKS).max(1))
        .map(|piece| {
            let mut executor = PlainExecutor::new(config, parameters, functions);
            let mut logits = Vec::with_capacity(piece.len());
            for example in piece {
                let input = embed(&mut executor, config, parameters, &example.sequence.tokens)?;
                let mask = mask_tensor(&example.sequence);
                let y = forward(config, &mut executor, input, &mask)?;
                logits.push(y.data().iter().map(|v| v.to_f64()).collect());
            }
            Ok(Observation { logits, ranges: executor.ranges().clone() })
        })
        .collect::<Result<_, PlainError>>()?;
    let mut all = Observation { logits: Vec::new(), ranges: Ranges::new(config) };
    for piece in pieces {
        all.ranges.merge(&piece.ranges);
        all.logits.extend(piece.logits);
    }
    Ok(all)
}
