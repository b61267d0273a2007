//! A pre-training run: its recipe, its state, its steps and its checkpoint.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use veilformer::transformer::{Config, Parameter};

use super::corpus::{Masking, segments};
use super::network::{Shares, step};
use super::{Batch, Bounds, PretrainError};
use crate::parameters::Parameters;
use crate::random::Random;
use crate::sites::Ranges;

/// How to pre-train.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Sequences per step.
    pub batch: usize,
    /// Sequences whose gradient is computed at once; parts run in parallel.
    pub part: usize,
    /// Steps in all.
    pub steps: u64,
    /// At the peak of the triangle.
    pub learning_rate: f64,
    /// The factor of the sinusoidal positions, relative to the size of the token embedding at the start. It is not trained:
    /// until attention has learnt to look at places they are noise, and their factor would go to 0 and stay there.
    pub position_scale: f32,
    /// Share of the steps before the peak.
    pub rise: f64,
    /// (β₁, β₂) of AdamW.
    pub betas: (f64, f64),
    /// ε of AdamW, outside the root.
    pub epsilon: f64,
    /// θ ← θ − lr·wd·θ, matrices only.
    pub weight_decay: f64,
    /// The longest a step's gradient may be; a longer one is shortened.
    pub clip: f64,
    /// How tokens are hidden.
    pub masking: Masking,
    /// Everything random follows from it.
    pub seed: u64,
}

impl Recipe {
    /// The triangular schedule: the learning rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let done = (step as f64 + 0.5) / self.steps.max(1) as f64;
        let slope = if done < self.rise { done / self.rise } else { (1.0 - done) / (1.0 - self.rise) };
        self.learning_rate * slope.clamp(0.0, 1.0)
    }
}

/// What one step came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// Steps done.
    pub step: u64,
    /// Tokens seen since the start, padding not included.
    pub tokens: u64,
    /// Mean loss of the step's predictions.
    pub loss: f64,
    /// Length of the gradient before clipping.
    pub gradient: f64,
    /// The arguments seen at every site.
    pub ranges: Ranges,
}

/// A run under way.
pub struct Pretraining<'a> {
    config: &'a Config,
    recipe: Recipe,
    bounds: Bounds,
    stream: &'a [u16],
    /// Weights, first and second moments.
    parameters: Parameters<f32>,
    moments: [Vec<f32>; 2],
    step: u64,
    tokens: u64,
    /// Which pass over the stream, and how many of its segments are done.
    epoch: u64,
    cursor: usize,
    segments: Vec<(u32, u8)>,
}

impl<'a> Pretraining<'a> {
    /// A run from random weights.
    ///
    /// # Errors
    /// [`PretrainError::Corpus`] where the stream is shorter than one sequence.
    pub fn new(
        config: &'a Config,
        recipe: Recipe,
        bounds: Bounds,
        stream: &'a [u16],
    ) -> Result<Self, PretrainError> {
        if stream.len() < config.length {
            return Err(PretrainError::Corpus { tokens: stream.len(), least: config.length });
        }
        let mut parameters = Parameters::random(config, recipe.seed);
        // Tied weights: a row of the embedding is as long as a normalised row's logit is wide.
        let size = (config.width as f32).sqrt().recip();
        parameters.get_mut(Parameter::TokenEmbedding).iter_mut().for_each(|w| *w *= size);
        parameters.get_mut(Parameter::PositionScale).fill(recipe.position_scale * size);
        let moments = [(); 2].map(|()| vec![0.0; parameters.values().len()]);
        let segments = segments(stream, config.length, recipe.seed, 0);
        Ok(Self {
            config,
            recipe,
            bounds,
            stream,
            parameters,
            moments,
            step: 0,
            tokens: 0,
            epoch: 0,
            cursor: 0,
            segments,
        })
    }

    /// The weights so far.
    pub fn parameters(&self) -> &Parameters<f32> {
        &self.parameters
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Tokens seen, padding not included.
    pub fn tokens_seen(&self) -> u64 {
        self.tokens
    }

    /// The next sequences of the stream, in parts.
    fn next_batch(&mut self) -> Vec<Batch> {
        let mut random = Random::new(self.recipe.seed, 0xba7c_0000_0000 + self.step);
        let mut taken = Vec::with_capacity(self.recipe.batch);
        while taken.len() < self.recipe.batch {
            if self.cursor == self.segments.len() {
                self.epoch += 1;
                self.cursor = 0;
                self.segments = segments(self.stream, self.config.length, self.recipe.seed, self.epoch);
            }
            taken.push(self.segments[self.cursor]);
            self.cursor += 1;
        }
        let part = self.recipe.part.max(1);
        let masking = self.recipe.masking;
        taken
            .chunks(part)
            .map(|part| masking.batch(self.stream, part, self.config.length, &mut random))
            .collect()
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// [`PretrainError::Diverged`] where the loss is not finite; the weights are then as they were.
    pub fn step(&mut self) -> Result<Report, PretrainError> {
        let parts = self.next_batch();
        let predictions: usize = parts.iter().map(|p| p.predictions.len()).sum();
        let rows: usize = parts.iter().map(|p| p.tokens.len()).sum();
        let shares =
            Shares { prediction: 1.0 / predictions.max(1) as f32, penalty: 1.0 / rows.max(1) as f32 };
        let done: Vec<_> = parts
            .par_iter()
            .map(|part| {
                let mut gradients = Parameters::zeros(self.config);
                let outcome =
                    step(self.config, &self.parameters, part, (&self.bounds, shares), &mut gradients);
                (outcome, gradients)
            })
            .collect();
        let (mut loss, mut ranges) = (0.0, Ranges::new(self.config));
        let mut sum: Option<Parameters<f32>> = None;
        for (outcome, gradients) in done {
            loss += outcome.loss * f64::from(shares.prediction);
            ranges.merge(&outcome.ranges);
            match &mut sum {
                None => sum = Some(gradients),
                Some(sum) => {
                    sum.values_mut().iter_mut().zip(gradients.values()).for_each(|(a, b)| *a += b);
                }
            }
        }
        if !loss.is_finite() {
            return Err(PretrainError::Diverged { step: self.step + 1, loss });
        }
        self.tokens += parts.iter().flat_map(|p| &p.used).map(|&used| used as u64).sum::<u64>();
        let gradient = sum.map_or(0.0, |sum| self.update(&sum));
        Ok(Report { step: self.step, tokens: self.tokens, loss, gradient, ranges })
    }

    /// AdamW; returns the gradient's length.
    fn update(&mut self, gradients: &Parameters<f32>) -> f64 {
        let r = &self.recipe;
        let rate = r.rate(self.step);
        self.step += 1;
        let length = gradients.values().iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
        let scale = (r.clip / length).min(1.0) as f32;
        let steps = i32::try_from(self.step).unwrap_or(i32::MAX);
        let (b1, b2) = (r.betas.0 as f32, r.betas.1 as f32);
        let rate1 = (rate / (1.0 - r.betas.0.powi(steps))) as f32;
        let correct2 = (1.0 / (1.0 - r.betas.1.powi(steps))) as f32;
        let epsilon = r.epsilon as f32;
        let keep = (1.0 - rate * r.weight_decay) as f32;
        let [first, second] = &mut self.moments;
        let trained = |p: &Parameter| *p != Parameter::PositionScale;
        for (parameter, range) in gradients.layout().iter().filter(|(p, _)| trained(p)) {
            let keep = if parameter.decays() { keep } else { 1.0 };
            let weights = &mut self.parameters.values_mut()[range.clone()];
            let moments = first[range.clone()].iter_mut().zip(&mut second[range.clone()]);
            for ((w, &g), (m, v)) in weights.iter_mut().zip(&gradients.values()[range.clone()]).zip(moments) {
                let g = g * scale;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *w = *w * keep - rate1 * *m / ((*v * correct2).sqrt() + epsilon);
            }
        }
        length
    }

    /// What a checkpoint must agree with to be continued: everything but the number of steps, so that a run can be made
    /// longer or shorter while the learning rate has not yet fallen to 0.
    fn signature(&self) -> String {
        let recipe = Recipe { steps: 0, ..self.recipe.clone() };
        format!("{:?} {recipe:?} {:?}, {} tokens", self.config, self.bounds, self.stream.len())
    }

    /// Writes the run's state, and replaces an older file only once it is complete.
    ///
    /// # Errors
    /// [`PretrainError::File`].
    pub fn save(&self, path: &Path) -> Result<(), PretrainError> {
        let bytes = |x: &[f32]| x.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let [first, second] = &self.moments;
        let tensors = [
            ("weights", bytes(self.parameters.values())),
            ("first", bytes(first)),
            ("second", bytes(second)),
        ];
        let position =
            [self.step, self.tokens, self.epoch, self.cursor as u64].map(|x| x.to_string()).join(" ");
        let about =
            HashMap::from([("position".to_owned(), position), ("signature".to_owned(), self.signature())]);
        let damaged = |e: safetensors::SafeTensorError| checkpoint_error(path, e.to_string());
        let views = tensors
            .iter()
            .map(|(name, data)| Ok((*name, TensorView::new(Dtype::F32, vec![data.len() / 4], data)?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(damaged)?;
        let file = safetensors::serialize(views, Some(about)).map_err(damaged)?;
        let part = path.with_extension("part");
        let io = |source| PretrainError::File { path: path.to_owned(), source };
        fs::write(&part, file).map_err(io)?;
        fs::rename(&part, path).map_err(io)
    }

    /// Takes up the run a checkpoint was written by.
    ///
    /// # Errors
    /// [`PretrainError::File`], or [`PretrainError::Checkpoint`] where the file is damaged or of another recipe, model or
    /// corpus; the run is then as it was.
    pub fn resume(&mut self, path: &Path) -> Result<(), PretrainError> {
        let bytes = fs::read(path).map_err(|source| PretrainError::File { path: path.to_owned(), source })?;
        let bad = |what: &str| checkpoint_error(path, what.to_owned());
        let damaged = |e: safetensors::SafeTensorError| checkpoint_error(path, e.to_string());
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let about = header.metadata().clone().unwrap_or_default();
        if about.get("signature") != Some(&self.signature()) {
            return Err(bad("it was written with another recipe, model or corpus"));
        }
        let position = about.get("position").map_or("", String::as_str);
        let position: Vec<u64> = position.split(' ').filter_map(|x| x.parse().ok()).collect();
        let &[step, tokens, epoch, cursor] = position.as_slice() else {
            return Err(bad("it does not say how far it got"));
        };
        let count = self.parameters.values().len();
        let read = |name| {
            let tensor = file.tensor(name).map_err(damaged)?;
            let (quads, _) = tensor.data().as_chunks::<4>();
            let values: Vec<f32> = quads.iter().map(|q| f32::from_le_bytes(*q)).collect();
            if values.len() == count && values.iter().all(|x| x.is_finite()) {
                Ok(values)
            } else {
                Err(bad("a tensor has another size or is not finite"))
            }
        };
        let (weights, first, second) = (read("weights")?, read("first")?, read("second")?);
        let segments = segments(self.stream, self.config.length, self.recipe.seed, epoch);
        if cursor as usize > segments.len() {
            return Err(bad("it is further than the corpus reaches"));
        }
        self.parameters.values_mut().copy_from_slice(&weights);
        self.moments = [first, second];
        (self.step, self.tokens, self.epoch, self.cursor) = (step, tokens, epoch, cursor as usize);
        self.segments = segments;
        Ok(())
    }
}

fn checkpoint_error(path: &Path, what: String) -> PretrainError {
    PretrainError::Checkpoint { path: path.to_owned(), what }
}
