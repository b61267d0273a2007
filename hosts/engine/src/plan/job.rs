//! The jobs there are: inference of a batch, a step of fine-tuning.

use super::located::Located;
use super::{Count, DryRun, Recorder, Refusal, Subject, dry_run};
use super::{CountedKeys, Counting};
use crate::{Engine, Error, TrainedPlaces, required_keys};
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{KeyRequests, Parameters};
use veilformer::transformer::slots::Model;
use veilformer::transformer::{
    AdamWHe, Config, Trainable, backward, forward, forward_recorded, loss_gradient,
};

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Job {
    /// Outputs of a batch, and which weights are encrypted.
    Inference(Option<Trainable>),
    /// One step of fine-tuning, of these weights.
    Step(Trainable, AdamWHe),
}

impl Job {
    /// The weights that are encrypted.
    pub fn encrypted(&self) -> Option<Trainable> {
        match *self {
            Self::Inference(encrypted) => encrypted,
            Self::Step(trained, _) => Some(trained),
        }
    }
}

/// The phase in which encrypted weights arrive: once for all batches.
pub const WEIGHTS: &str = "weights";

/// The keys of both rings for a job.
///
/// # Errors
/// Those of [`required_keys`].
pub fn job_keys(parameters: &Parameters, config: &Config, job: &Job) -> Result<[KeyRequests; 2], Error> {
    required_keys::<Counting, CountedKeys>(parameters, config, job.encrypted().is_some())
}

/// Runs a job dry: phases [`WEIGHTS`] where some are encrypted, `forward`, and of a step `backward` and `optimizer`.
///
/// # Errors
/// Those of the real run.
pub fn count<M: Model>(
    subject: &Subject<'_>,
    model: &M,
    sentences: usize,
    job: &Job,
) -> Result<Count, Refusal> {
    let run = |dry: DryRun<'_>, recorder: &Recorder<'_>| {
        run(subject.parameters, dry, recorder, model, sentences, job).map_err(|error| recorder.refusal(error))
    };
    Ok(dry_run(subject, run)?.1)
}

fn run<M: Model>(
    parameters: &Parameters,
    dry: DryRun<'_>,
    recorder: &Recorder<'_>,
    model: &M,
    sentences: usize,
    job: &Job,
) -> Result<(), Error> {
    let (config, plan) = (model.config(), BootstrapPlan::new(parameters)?);
    let mut engine = Engine::new(dry, model, sentences)?;
    let sent = |count: usize, level: usize| -> Result<Vec<_>, Error> {
        (0..count).map(|_| Ok(recorder.sent(level)?)).collect()
    };
    if let Some(set) = job.encrypted() {
        engine = engine.with_trained(set)?;
        recorder.phase(WEIGHTS);
        let places: TrainedPlaces = engine.trained_places()?;
        let (count, both) = (places.places().ciphertexts(), places.places().has_upper_half());
        let uppers = (0..count).map(|_| both.then(|| recorder.sent(plan.output())).transpose());
        let uppers = uppers.collect::<Result<Vec<_>, _>>()?;
        engine.set_trained(sent(count, plan.output())?.into_iter().zip(uppers).collect())?;
    }
    recorder.phase("forward");
    let mut engine = Located::new(engine, recorder);
    let inputs = sent(engine.inner().input_places()?.ciphertexts(), plan.coefficient_level())?;
    let masks = sent(engine.inner().score_places()?.ciphertexts(), plan.output())?;
    let (x, mask) = (engine.inner().input(&inputs)?, engine.inner().mask(masks)?);
    let Job::Step(_, optimizer) = job else {
        return forward(config, &mut engine, x, &mask).map(drop);
    };
    engine.inner().record(true);
    let (logits, tape) = forward_recorded(config, &mut engine, x, &mask)?;
    recorder.phase("backward");
    let targets = sent(engine.inner().target_places()?.ciphertexts(), plan.coefficient_level())?;
    let target = engine.inner().target(&targets)?;
    let d_logits = loss_gradient(config, &mut engine, &logits, &target)?;
    backward(config, &mut engine, tape, &d_logits, &mask)?;
    engine.inner().record(false);
    recorder.phase("optimizer");
    let engine = engine.inner();
    recorder.at("optimizer".into());
    let unit = engine.gradient_unit()?;
    engine.optimize(&optimizer.step(1, 2, unit))
}
