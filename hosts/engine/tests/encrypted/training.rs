//! The encrypted backward pass against the same polynomials in f64, on toy parameters, which are insecure.

use crate::world::sample::{
    SENTENCES, Sample, ToyEngine, batch as send_batch, config, full, send_weights, softmax,
};
use crate::world::{Client, World};
use veilformer::ckks::{Ciphertext, ParametersLiteral};
use veilformer::transformer::{
    AdamWHe, Config, Loss, Moments, Trainable, backward, forward_recorded, loss_gradient,
};
use veilformer_engine::{Batch, Engine, Error, Halves, TrainedPlaces};
use veilformer_multicore::Multicore;
use veilformer_plain::executor::Functions;
use veilformer_plain::finetune::{FineTuner, Recipe};
use veilformer_plain::gradient::{Penalties, Trainer};
use veilformer_plain::parameters::Parameters;
use veilformer_plain::slots::Weights;
use veilformer_plain::train::gradient;

#[test]
fn gradients_of_adapters() {
    for config in [config(2, false, 2), config(2, true, 2)] {
        gradients_of(config, Trainable::Adapters);
    }
}

#[test]
fn gradients_past_hidden_layers_out_of_slots() {
    gradients_of(full(2, false, 1), Trainable::Adapters);
}

#[test]
fn gradients_of_a_low_rank_head() {
    gradients_of(Config { head_rank: 4, ..config(1, false, 1) }, Trainable::Adapters);
}

#[test]
fn gradients_of_scores() {
    let scores = Config { classes: 1, loss: Loss::SquaredError, ..config(1, false, 2) };
    gradients_of(scores, Trainable::Adapters);
}

#[test]
fn gradients_of_adapters_through_softmax() {
    for config in [softmax(2, false, 2), softmax(2, true, 2)] {
        gradients_of(config, Trainable::Adapters);
    }
}

#[test]
fn gradients_of_whole_matrices() {
    // More gates than a piece has rows.
    for config in [Config { feed_forward: 136, ..softmax(1, false, 0) }, softmax(2, true, 0)] {
        gradients_of(config, Trainable::Matrices);
    }
}

fn gradients_of(config: Config, trained: Trainable) {
    println!("{trained:?}, {:?}, {} layers", config.kernel, config.layers);
    let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, [28000, 120000]);
    let sample = Sample::with_trained(config, trained, 2);
    let client = world.client();
    let penalties = Penalties::none(&sample.config);
    let functions = Functions::Polynomial(&sample.approximations);
    let mut plain =
        Trainer::new(&sample.config, &sample.parameters, functions, &penalties).with_trained(trained);
    for example in &sample.data[..SENTENCES] {
        gradient(&sample.config, &mut plain, &sample.parameters, example).unwrap();
    }
    let (expected, _) = plain.finish();
    let others = sample.with_other(trained);
    world.serve(&client, &sample.keys(&world), |algebra| {
        let model = Weights { parameters: &others, ..sample.weights() };
        let mut engine = Engine::new(algebra, &model, SENTENCES).unwrap().with_trained(trained).unwrap();
        send_weights(&mut engine, &client, &sample, &world);
        differentiate(&mut engine, &client, &sample, &world);
        let places = engine.trained_places().unwrap();
        let gradients = engine.gradients().unwrap();
        let unit = engine.gradient_unit().unwrap() * SENTENCES as f64;
        compare(&client, &sample, &places, &gradients, unit, &expected);
    });
}

#[test]
fn two_steps_of_the_optimizer() {
    steps(config(1, false, 1), Trainable::Adapters, 2);
}

#[test]
fn a_step_of_whole_matrices() {
    steps(softmax(1, false, 0), Trainable::Matrices, 1);
}

fn steps(config: Config, trained: Trainable, count: u32) {
    let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, [28000, 120000]);
    let sample = Sample::with_trained(config, trained, 3);
    let client = world.client();
    let optimizer = AdamWHe::paper(2e-2, 1e-2);
    let recipe = Recipe {
        trained,
        optimizer,
        steps: 4,
        functions: Functions::Polynomial(&sample.approximations),
        noise: None,
    };
    let mut plain = FineTuner::new(&sample.config, sample.parameters.clone(), recipe);
    world.serve(&client, &sample.keys(&world), |algebra| {
        let model = sample.weights();
        let mut engine = Engine::new(algebra, &model, SENTENCES).unwrap().with_trained(trained).unwrap();
        engine.begin().unwrap();
        let mut before = None;
        for step in 1..=count {
            before = Some(copy(&engine, &world));
            plain.step(&sample.data[..SENTENCES]).unwrap();
            let batch = send_batch(&engine, &client, &sample, &world);
            engine.train(batch, &optimizer, step, 4).unwrap();
            let places = engine.trained_places().unwrap();
            compare(&client, &sample, &places, engine.weights().unwrap(), 1.0, plain.parameters());
        }
        if count > 1 {
            repeats(&mut engine, &client, &sample, &world, before.unwrap(), |engine, batch| {
                engine.train(batch, &optimizer, count, 4).map(drop)
            });
        }
    });
}

/// From the state before it, the last step comes to the same bits; what fails changes nothing.
fn repeats(
    engine: &mut ToyEngine<'_, '_>,
    client: &Client<'_>,
    sample: &Sample,
    world: &World,
    before: Moments<Vectors>,
    step: impl Fn(&mut ToyEngine<'_, '_>, Batch<Ciphertext<Multicore>>) -> Result<(), Error>,
) {
    let reached = slots(engine, client);
    engine.resume(before).unwrap();
    assert_ne!(slots(engine, client), reached);
    let batch = send_batch(engine, client, sample, world);
    step(engine, batch).unwrap();
    assert_eq!(slots(engine, client), reached);
    let unlabelled = Batch { input: Vec::new(), mask: Vec::new(), target: Vec::new() };
    assert!(matches!(step(engine, unlabelled), Err(Error::Form { .. })));
    assert_eq!(slots(engine, client), reached);
}

type Vectors = Vec<Halves<Ciphertext<Multicore>>>;

/// A copy of weights and moments.
fn copy(engine: &ToyEngine<'_, '_>, world: &World) -> Moments<Vectors> {
    let copy = |x: &Ciphertext<Multicore>| x.duplicate(&world.accelerators[0]).unwrap();
    let all = |halves: &[Halves<Ciphertext<Multicore>>]| {
        halves.iter().map(|(lower, upper)| (copy(lower), upper.as_ref().map(copy))).collect()
    };
    let Moments { weights, first, second } = engine.state().unwrap();
    Moments { weights: all(weights), first: all(first), second: all(second) }
}

/// What is in the slots of weights and moments.
fn slots(engine: &ToyEngine<'_, '_>, client: &Client<'_>) -> Vec<Vec<f64>> {
    let Moments { weights, first, second } = engine.state().unwrap();
    let halves = [weights, first, second].into_iter().flatten();
    halves
        .flat_map(|(lower, upper)| [Some(lower), upper.as_ref()])
        .flatten()
        .map(|x| client.decrypt_slots(x))
        .collect()
}

/// Forward and backward on a freshly encrypted batch.
fn differentiate(engine: &mut ToyEngine<'_, '_>, client: &Client<'_>, sample: &Sample, world: &World) {
    let batch = send_batch(engine, client, sample, world);
    let (x, mask) = (engine.input(&batch.input).unwrap(), engine.mask(batch.mask).unwrap());
    engine.record(true);
    let (logits, tape) = forward_recorded(&sample.config, engine, x, &mask).unwrap();
    let target = engine.target(&batch.target).unwrap();
    let d_logits = loss_gradient(&sample.config, engine, &logits, &target).unwrap();
    backward(&sample.config, engine, tape, &d_logits, &mask).unwrap();
    engine.record(false);
}

/// Every trained matrix to eight bits of its largest entry.
fn compare(
    client: &Client<'_>,
    sample: &Sample,
    places: &TrainedPlaces,
    slots: &[(Ciphertext<Multicore>, Option<Ciphertext<Multicore>>)],
    unit: f64,
    expected: &Parameters<f64>,
) {
    let slots: Vec<[Vec<f64>; 2]> = slots
        .iter()
        .map(|(lower, upper)| {
            [Some(lower), upper.as_ref()].map(|x| x.map_or(Vec::new(), |x| client.decrypt_slots(x)))
        })
        .collect();
    for span in places.spans() {
        let columns = span.parameter.shape(&sample.config).columns;
        let (mut worst, mut largest) = (0.0f64, 0.0f64);
        for (vector, index) in (0..span.count).flat_map(|v| (0..span.length).map(move |i| (v, i))) {
            let (ciphertext, upper, slot) = places.slot(span, vector, index);
            let found = slots[ciphertext][usize::from(upper)][slot] * unit;
            let (row, column) = span.entry(vector, index);
            let expected = expected.get(span.parameter)[row * columns + column];
            worst = worst.max((found - expected).abs());
            largest = largest.max(expected.abs());
        }
        println!("{:?}: {worst:.2e} of {largest:.2e}, {:.1} bits", span.parameter, (largest / worst).log2());
        assert!(worst < largest / 256.0, "{:?}: {worst} of {largest}", span.parameter);
    }
}
