//! A step of fine-tuning under encryption: LoRA's factors and a head on a batch, forward, backward and the optimizer.
//!
//! Measured is the server's half, from a client's ciphertexts to the new weights, made ready for the next step. Every run
//! is a step further; the weights are compared with those of the same polynomials in f64 after the last.

use super::engine::{Sample, Subject, World};
use super::tally::Tally;
use super::{Figure, Setting, Stages, compare};
use crate::client::encoder;
use crate::exit::Failure;
use crate::output::peak_memory;
use std::cell::RefCell;
use veilformer::ckks::encoding::words_to_read;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{Ciphertext, PrecisionStats};
use veilformer::transformer::{
    AdamWHe, Config, Trainable, backward, forward, forward_recorded, loss_gradient,
};
use veilformer_engine::{Engine, TrainedPlaces, Watched, client, with_algebra};
use veilformer_multicore::Multicore;
use veilformer_plain::executor::Functions;
use veilformer_plain::finetune::{FineTuner, Recipe};
use veilformer_plain::parameters::Parameters as Model;

/// Sixteen sentences.
pub(super) const NAME: &str = "step/veil-tiny";
/// Limbs of the big ring and of the small one: 16 GiB and 4 GiB, of which the figure says how much was used.
pub(super) const LIMBS: [usize; 2] = [1 << 15, 1 << 16];

/// Lower and upper slots.
type Halves = (Ciphertext<Multicore>, Option<Ciphertext<Multicore>>);
type Weights = Vec<Halves>;

/// What is trained, and how: the learning rate is high enough for a step to change weights by more than its error.
pub(super) fn recipe(trained: Trainable, functions: Functions<'_>, steps: u32) -> Recipe<'_> {
    let optimizer = AdamWHe::paper(2e-2, 1e-2);
    Recipe { trained, optimizer, steps, functions, noise: None }
}

/// As many steps as runs are wanted.
pub(super) fn figure(
    world: &World<'_>,
    setting: &Setting,
    sample: &Sample<'_>,
    subject: &Subject,
    trained: Trainable,
) -> Result<Figure, Failure> {
    let runs = setting.runs.unwrap_or(1);
    let (config, batch) = (&subject.config, &sample.data[..subject.sentences]);
    let recipe = recipe(trained, Functions::Polynomial(&sample.approximations), 2 * runs);
    let mut twin = FineTuner::new(config, sample.parameters.clone(), recipe);
    let keys = world.keys(subject)?;
    let tally = RefCell::new(Tally::default());
    let model = sample.weights();
    let (mut times, mut stages, mut answers, mut stats) = (Vec::new(), Stages::new(), Stages::new(), None);
    let mut figure = setting.figure(subject.name, super::engine::SET, &[]);
    with_algebra(&world.ring(&keys, 0), &world.ring(&keys, 1), |algebra| {
        let watched = Watched::new(algebra, |operation, moment| tally.borrow_mut().note(operation, moment));
        let mut engine = Engine::new(watched, &model, subject.sentences)?.with_trained(trained)?;
        let places = engine.trained_places()?;
        let placed = Placed { config, places: &places, model: twin.parameters() };
        engine.set_trained(placed.encrypted(world)?)?;
        for step in 1..=runs {
            twin.step(batch)?;
            let (input, mask) = world.send(&engine, sample)?;
            let (wanted, scale) = (engine.target_places()?, engine.target_scale());
            let entry = |_, class: usize, sentence: usize| {
                f64::from(u8::from(batch.get(sentence).is_some_and(|x| x.label as usize == class)))
            };
            let targets = client::coefficients(&wanted, scale, entry)?.into_iter();
            let targets = targets.map(|c| world.coefficients(c)).collect::<Result<Vec<_>, _>>()?;

            tally.borrow_mut().start();
            stages = Stages::new();
            let (input, mask) = (engine.input(&input)?, engine.mask(mask)?);
            engine.record(true);
            let (logits, tape) = forward_recorded(config, &mut engine, input, &mask)?;
            stages.end("forward");
            let target = engine.target(&targets)?;
            let d_logits = loss_gradient(config, &mut engine, &logits, &target)?;
            backward(config, &mut engine, tape, &d_logits, &mask)?;
            engine.record(false);
            stages.end("backward");
            let unit = engine.gradient_unit()?;
            engine.optimize(&recipe.optimizer.step(step, recipe.steps, unit))?;
            stages.end("optimizer");
            times.push(tally.borrow_mut().stop());
        }
        times.sort_by(f64::total_cmp);
        figure = tally.take().complete(setting.figure(subject.name, super::engine::SET, &times));
        if compare::Row::of(subject.name).is_some() {
            // Whole matrices are taken apart when they are first used; who only answers does that once.
            for _ in 0..if trained == Trainable::Matrices { 2 } else { 1 } {
                let (input, mask) = world.send(&engine, sample)?;
                answers = Stages::new();
                let (input, mask) = (engine.input(&input)?, engine.mask(mask)?);
                forward(config, &mut engine, input, &mask)?;
                answers.end(compare::INFERENCE);
            }
        }
        let placed = Placed { config, places: &places, model: twin.parameters() };
        stats = Some(placed.compare(world, engine.weights().unwrap_or_default())?);
        Ok::<_, Failure>(())
    })?;
    world.note_peaks(&keys);
    figure.stages = stages.list.into_iter().chain(answers.list).collect();
    if let Some(stats) = stats {
        figure = figure.precise(stats);
    }
    Ok(Figure { bytes: peak_memory(), ..figure })
}

/// Weights, and where they lie.
struct Placed<'p> {
    config: &'p Config,
    places: &'p TrainedPlaces,
    model: &'p Model<f64>,
}

impl Placed<'_> {
    /// The weight in a slot.
    fn weight(&self, ciphertext: usize, upper: bool, slot: usize) -> Option<f64> {
        let (parameter, row, column) = self.places.weight(ciphertext, upper, slot)?;
        Some(self.model.get(parameter)[row * parameter.shape(self.config).columns + column])
    }

    /// As a client sends them.
    fn encrypted(&self, world: &World<'_>) -> Result<Weights, Failure> {
        let (parameters, places) = (world.parameters[0], self.places.places());
        let level = BootstrapPlan::new(parameters)?.output();
        let half = |ciphertext, upper| {
            let weight = |slot| self.weight(ciphertext, upper, slot).unwrap_or(0.0);
            world.slots(&(0..parameters.slots()).map(weight).collect::<Vec<f64>>(), level)
        };
        let upper = |c| places.has_upper_half().then(|| half(c, true)).transpose();
        (0..places.ciphertexts()).map(|c| Ok((half(c, false)?, upper(c)?))).collect()
    }

    /// How close to them those in slots are, within ±1 as they are.
    fn compare(&self, world: &World<'_>, found: &[Halves]) -> Result<PrecisionStats, Failure> {
        let (parameters, mut pairs) = (world.parameters[0], Vec::new());
        let encoder = encoder(parameters.degree())?;
        let mut words = vec![0; words_to_read(parameters.degree(), 1)];
        for (ciphertext, (lower, upper)) in found.iter().enumerate() {
            for (half, x) in [Some(lower), upper.as_ref()].into_iter().enumerate() {
                let Some(x) = x else { continue };
                let (mut work, mut slots) = (vec![0.0; parameters.degree()], vec![0.0; parameters.slots()]);
                world.secrets[0].decrypt_coefficients(x, &mut words, &mut work)?;
                encoder.decode_real(&mut work, parameters.scale(x.level()), &mut slots)?;
                let expected = |slot| self.weight(ciphertext, half == 1, slot);
                pairs.extend(slots.iter().enumerate().filter_map(|(slot, x)| Some((expected(slot)?, *x))));
            }
        }
        Ok(PrecisionStats::of(pairs.into_iter()))
    }
}
