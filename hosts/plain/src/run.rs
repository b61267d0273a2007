//! Running a model over sentences: embedding, logits, accuracy, and the ranges every site saw.

use rayon::prelude::*;
use veilformer::transformer::{Config, Executor, Norm, Parameter, forward, position};

use crate::executor::{Functions, PlainError, PlainExecutor};
use crate::noise::Noise;
use crate::parameters::Parameters;
use crate::scalar::Scalar;
use crate::sites::Ranges;
use crate::tensor::Tensor;
use crate::tokenizer::Sequence;

/// Pieces a batch or a data set is cut into; also the most threads that can help.
pub const CHUNKS: usize = 2;

/// A tokenised sentence and its label: a class, or a score.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The tokens.
    pub sequence: Sequence,
    /// The class number, or the score.
    pub label: f32,
}

/// Token + scaled position, before the embedding's norm.
pub(crate) fn embed_raw<F: Scalar>(config: &Config, parameters: &Parameters<F>, tokens: &[u32]) -> Tensor<F> {
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
    observe_with_noise(config, parameters, data, functions, None)
}

/// The same with the noise of an encrypted run, where there is any.
pub fn observe_with_noise<F: Scalar>(
    config: &Config,
    parameters: &Parameters<F>,
    data: &[Example],
    functions: Functions<'_>,
    noise: Option<Noise>,
) -> Result<Observation, PlainError> {
    let pieces: Vec<Observation> = data
        .par_chunks(data.len().div_ceil(CHUNKS).max(1))
        .enumerate()
        .map(|(stream, piece)| {
            let mut executor = PlainExecutor::new(config, parameters, functions);
            if let Some(noise) = noise {
                executor = executor.with_noise(noise, stream as u64);
            }
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
