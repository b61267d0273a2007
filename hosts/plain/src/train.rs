//! The trainer: AdamW, cosine decay, penalties, and a last stretch on the polynomials that will be deployed.
//!
//! Deterministic for a seed: a batch is always cut into [`CHUNKS`] pieces whose gradients are added in order, whatever
//! the number of threads.

use std::ops::Range;

use rayon::prelude::*;
use veilformer::approx::ApproxError;
use veilformer::transformer::{
    Config, Executor, Loss, Norm, Parameter, Site, TrainingExecutor, backward, forward_recorded,
    loss_gradient, position,
};

use crate::executor::{Functions, PlainError};
use crate::gradient::{Penalties, Trainer};
use crate::optimizer::{AdamW, Moments};
use crate::parameters::Parameters;
use crate::random::Random;
use crate::run::{CHUNKS, Example, embed_raw, mask_tensor, observe};
use crate::scalar::Scalar;
use crate::sites::{Approximations, Budget};
use crate::tensor::Tensor;
use crate::tokenizer::UNKNOWN;

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
    /// Chance that a token is replaced by `[UNK]`.
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

/// Trains from random weights: first with the exact functions, then, calibrated on the whole training set, with the
/// polynomials.
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
    let mut run = Run::new(config, data, options, penalties);
    let mut order: Vec<usize> = (0..data.len()).collect();
    let epochs = options.exact_epochs + options.polynomial_epochs;
    let mut table = None;
    for epoch in 0..epochs {
        if epoch == options.exact_epochs {
            table = Some(run.calibrate(&budget)?);
        }
        Random::new(options.seed, 1000 + epoch as u64).shuffle(&mut order);
        let functions = table.as_ref().map_or(Functions::Exact, Functions::PolynomialModel);
        let mut loss = 0.0;
        for (step, batch) in order.chunks(options.batch.max(1)).enumerate() {
            let done = (epoch as f64 + (step * options.batch) as f64 / data.len() as f64) / epochs as f64;
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
            loss += run.step(batch, epoch, functions, options.learning_rate * cosine)?;
        }
        let loss = loss / data.len() as f64;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { epoch: epoch + 1, loss });
        }
        progress(Progress { epoch: epoch + 1, epochs, loss, polynomial: table.is_some() });
    }
    let approximations = match table {
        Some(table) => table,
        None => run.calibrate(&budget)?,
    };
    Ok(Trained { parameters: run.parameters, approximations })
}

/// A training run under way.
struct Run<'a> {
    config: &'a Config,
    data: &'a [Example],
    options: &'a Options,
    penalties: &'a Penalties,
    parameters: Parameters<f32>,
    moments: Moments,
    /// Where the matrices lie: gains, biases and the position's factor do not decay.
    decayed: Vec<Range<usize>>,
}

impl<'a> Run<'a> {
    fn new(config: &'a Config, data: &'a [Example], options: &'a Options, penalties: &'a Penalties) -> Self {
        let parameters = Parameters::random(config, options.seed);
        let moments = Moments::new(parameters.values().len());
        let decays = parameters.layout().iter().filter(|(p, _)| p.decays());
        let decayed = decays.map(|(_, range)| range.clone()).collect();
        Self { config, data, options, penalties, parameters, moments, decayed }
    }

    /// Polynomials for the ranges that the whole training set reaches with the exact functions.
    fn calibrate(&self, budget: impl Fn(Site) -> Budget) -> Result<Approximations, TrainError> {
        let seen = observe(self.config, &self.parameters, self.data, Functions::Exact)?;
        Ok(Approximations::calibrate(self.config, &seen.ranges, budget)?)
    }

    /// One optimizer step on a batch; returns the sum of its losses.
    fn step(
        &mut self,
        batch: &[usize],
        epoch: usize,
        functions: Functions<'_>,
        learning_rate: f64,
    ) -> Result<f64, TrainError> {
        let pieces: Vec<(f64, Parameters<f32>)> = batch
            .par_chunks(batch.len().div_ceil(CHUNKS))
            .map(|piece| self.piece(piece, epoch, functions))
            .collect::<Result<_, PlainError>>()?;
        let mut pieces = pieces.into_iter();
        let Some((mut loss, mut sum)) = pieces.next() else { return Ok(0.0) };
        for (more_loss, more) in pieces {
            loss += more_loss;
            sum.values_mut().iter_mut().zip(more.values()).for_each(|(a, b)| *a += b);
        }
        self.moments.step(
            &self.options.optimizer,
            learning_rate,
            self.parameters.values_mut(),
            sum.values(),
            1.0 / batch.len() as f32,
            &self.decayed,
        );
        Ok(loss)
    }

    /// Loss and gradient of a part of a batch.
    fn piece(
        &self,
        piece: &[usize],
        epoch: usize,
        functions: Functions<'_>,
    ) -> Result<(f64, Parameters<f32>), PlainError> {
        let mut trainer = Trainer::new(self.config, &self.parameters, functions, self.penalties);
        let mut loss = 0.0;
        for &index in piece {
            let mut example = self.data[index].clone();
            let mut random = Random::new(self.options.seed ^ ((epoch as u64) << 40), index as u64);
            let used = example.sequence.used;
            for token in example.sequence.tokens.iter_mut().take(used).skip(1) {
                if random.uniform() < self.options.word_dropout {
                    *token = UNKNOWN;
                }
            }
            loss += gradient(self.config, &mut trainer, &self.parameters, &example)?;
        }
        Ok((loss, trainer.finish().0))
    }
}

/// Adds one example's gradient of the trained weights to the trainer's; returns its loss (without penalties).
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
    if let Some(d_input) = backward(config, trainer, tape, &d_logits, &mask)? {
        let d_raw = trainer.layer_norm_backward(&raw, &d_input, Norm::Embedding)?;
        scatter(config, trainer.gradients_mut(), &example.sequence.tokens, &d_raw);
    }
    Ok(loss(config, logits.data(), example.label))
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
pub fn loss<F: Scalar>(config: &Config, logits: &[F], label: f32) -> f64 {
    let y: Vec<f64> = logits.iter().map(|v| v.to_f64()).collect();
    match config.loss {
        Loss::CrossEntropy => {
            let largest = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = y.iter().map(|v| (v - largest).exp()).sum();
            largest + sum.ln() - y.get(label as usize).copied().unwrap_or(f64::NAN)
        }
        Loss::SquaredError => 0.5 * (y[0] - f64::from(label)).powi(2),
    }
}
