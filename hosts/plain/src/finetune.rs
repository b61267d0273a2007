//! Fine-tuning as it is done under encryption: the same program, step by step, in f64 (or f32), exact, with polynomials,
//! and with the noise an encrypted run would have.

use rayon::prelude::*;
use veilformer::transformer::{
    AdamWHe, Config, Moments, OptimizerExecutor, Parameter, Site, Trainable, adamw_he,
};

use crate::data::Task;
use crate::executor::{Functions, PlainError, PlainExecutor};
use crate::gradient::{Penalties, Trainer};
use crate::noise::{Noise, NoiseSource};
use crate::parameters::Parameters;
use crate::run::{CHUNKS, Example};
use crate::scalar::Scalar;
use crate::sites::Ranges;
use crate::train::gradient;

/// How to fine-tune.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// The weights that change.
    pub trained: Trainable,
    /// The optimizer.
    pub optimizer: AdamWHe,
    /// Steps in all, over which the learning rate falls to 0.
    pub steps: u32,
    /// How the non-linear functions are computed, those of the loss and the optimizer included.
    pub functions: Functions<'a>,
    /// The noise of an encrypted run, if any.
    pub noise: Option<Noise>,
}

/// The learning rate and ε of AdamW-HE for LoRA with the Gaussian kernel, and the epochs (PAPER.md, T11).
pub fn paper_constants(task: Task) -> (f64, f64, usize) {
    match task {
        Task::Cola => (4.0e-3, 8.0e-3, 5),
        Task::Mrpc => (5.0e-4, 6.0e-4, 5),
        Task::Rte => (2.0e-4, 2.0e-4, 5),
        Task::StsB => (2.5e-2, 4.0e-1, 5),
        Task::Sst2 => (8.5e-3, 8.0e-4, 1),
        Task::Qnli => (6.5e-3, 8.0e-4, 1),
    }
}

/// What fine-tuning starts from: a pre-trained encoder, with fresh LoRA factors (B = 0, so that they change nothing yet) and a
/// fresh head. Parameters that `pretrained` has in another shape, or not at all, are fresh too.
pub fn begin<F: Scalar>(pretrained: &Parameters<F>, config: &Config, seed: u64) -> Parameters<F> {
    let mut parameters = Parameters::random(config, seed);
    for (parameter, range) in parameters.layout().to_vec() {
        let weights = pretrained.get(parameter);
        if !Trainable::Adapters.includes(parameter) && weights.len() == range.len() {
            parameters.values_mut()[range].copy_from_slice(weights);
        }
    }
    parameters
}

/// A fine-tuning run.
pub struct FineTuner<'a, F> {
    config: &'a Config,
    recipe: Recipe<'a>,
    penalties: Penalties,
    parameters: Parameters<F>,
    moments: Vec<(Parameter, Moments<Vec<f64>>)>,
    ranges: Ranges,
    done: u32,
}

impl<'a, F: Scalar> FineTuner<'a, F> {
    /// Starts from these weights.
    pub fn new(config: &'a Config, parameters: Parameters<F>, recipe: Recipe<'a>) -> Self {
        let moments = recipe.trained.parameters(config).map(|parameter| {
            let weights: Vec<f64> = parameters.get(parameter).iter().map(|w| w.to_f64()).collect();
            let zero = vec![0.0; weights.len()];
            (parameter, Moments { weights, first: zero.clone(), second: zero })
        });
        let (moments, ranges) = (moments.collect(), Ranges::new(config));
        Self { config, recipe, penalties: Penalties::none(config), parameters, moments, ranges, done: 0 }
    }

    /// The weights as they are now.
    pub fn parameters(&self) -> &Parameters<F> {
        &self.parameters
    }

    /// The moments of the trained weights, in the order of [`Trainable::parameters`].
    pub fn moments(&self) -> &[(Parameter, Moments<Vec<f64>>)] {
        &self.moments
    }

    /// The arguments and gradients seen at every site, those of training included.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// One step on a batch; returns its mean loss before the step. An empty batch does nothing.
    pub fn step(&mut self, batch: &[Example]) -> Result<f64, PlainError> {
        if batch.is_empty() {
            return Ok(0.0);
        }
        let (loss, sum) = self.gradient(batch)?;
        self.done += 1;
        // The executor holds sums over the batch: a mean gradient is this many of its units.
        let unit = 1.0 / batch.len() as f64;
        for (parameter, _) in &self.moments {
            let mean: Vec<f64> = sum.get(*parameter).iter().map(|g| g.to_f64() * unit).collect();
            self.ranges.note_gradients(Site::Optimizer, &mean);
        }
        let step = self.recipe.optimizer.step(self.done, self.recipe.steps, unit);
        let noise = self.recipe.noise.map(|noise| NoiseSource::new(noise, self.stream(CHUNKS)));
        let mut ex = PlainOptimizer { functions: self.recipe.functions, ranges: &mut self.ranges, noise };
        for (parameter, moments) in &mut self.moments {
            let gradient = sum.get(*parameter).iter().map(|g| g.to_f64()).collect();
            *moments = adamw_he(&mut ex, &step, moments, &gradient, parameter.decays())?;
            let weights = self.parameters.get_mut(*parameter).iter_mut();
            weights.zip(&moments.weights).for_each(|(w, &new)| *w = F::from_f64(new));
        }
        Ok(loss * unit)
    }

    /// The loss and the gradient, both summed over a batch.
    fn gradient(&mut self, batch: &[Example]) -> Result<(f64, Parameters<F>), PlainError> {
        let this = &*self;
        let pieces: Vec<(f64, Parameters<F>, PlainExecutor<'_, F>)> = batch
            .par_chunks(batch.len().div_ceil(CHUNKS))
            .enumerate()
            .map(|(index, piece)| {
                let Recipe { trained, functions, noise, .. } = this.recipe;
                let mut trainer = Trainer::new(this.config, &this.parameters, functions, &this.penalties)
                    .with_trained(trained);
                if let Some(noise) = noise {
                    trainer = trainer.with_noise(noise, this.stream(index));
                }
                let mut loss = 0.0;
                for example in piece {
                    loss += gradient(this.config, &mut trainer, &this.parameters, example)?;
                }
                let (gradients, executor) = trainer.finish();
                Ok((loss, gradients, executor))
            })
            .collect::<Result<_, PlainError>>()?;
        let (mut loss, mut sum, mut ranges) = (0.0, Parameters::zeros(this.config), this.ranges.clone());
        for (more_loss, more, executor) in pieces {
            loss += more_loss;
            sum.values_mut().iter_mut().zip(more.values()).for_each(|(a, &b)| *a += b);
            ranges.merge(executor.ranges());
        }
        self.ranges = ranges;
        Ok((loss, sum))
    }

    /// A noise stream of its own for every piece of every step.
    fn stream(&self, piece: usize) -> u64 {
        u64::from(self.done) * (CHUNKS as u64 + 1) + piece as u64
    }
}

/// The optimizer's arithmetic on f64.
struct PlainOptimizer<'a> {
    functions: Functions<'a>,
    ranges: &'a mut Ranges,
    noise: Option<NoiseSource>,
}

impl PlainOptimizer<'_> {
    fn result(&mut self, mut x: Vec<f64>) -> Vec<f64> {
        if let Some(noise) = &mut self.noise {
            noise.disturb(&mut x);
        }
        x
    }
}

impl OptimizerExecutor for PlainOptimizer<'_> {
    type Vector = Vec<f64>;
    type Error = PlainError;

    fn combine(&mut self, a: f64, x: &Vec<f64>, b: f64, y: &Vec<f64>) -> Result<Vec<f64>, PlainError> {
        Ok(self.result(x.iter().zip(y).map(|(x, y)| a * x + b * y).collect()))
    }

    fn product(&mut self, x: &Vec<f64>, y: &Vec<f64>) -> Result<Vec<f64>, PlainError> {
        Ok(self.result(x.iter().zip(y).map(|(x, y)| x * y).collect()))
    }

    fn inverse_sqrt(&mut self, x: &Vec<f64>, factor: f64) -> Result<Vec<f64>, PlainError> {
        let function = self.functions.at(Site::Optimizer)?;
        let evaluate = |x: &f64| {
            let argument = 1.0 + factor * x;
            self.ranges.note(Site::Optimizer, argument);
            function.evaluate(argument)
        };
        let y = x.iter().map(evaluate).collect();
        Ok(self.result(y))
    }
}
