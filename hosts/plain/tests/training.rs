//! Fine-tuning: trainable sets, AdamW-HE, polynomials in place of every function, and noise.

use std::path::Path;

use proptest::prelude::*;
use veilformer::approx::Interval;
use veilformer::transformer::{
    AdamWHe, Config, Kernel, Loss, Norm, Parameter, Projection, Site, Targets, Trainable,
};
use veilformer_plain::executor::{Functions, PlainError};
use veilformer_plain::finetune::{FineTuner, Recipe, begin};
use veilformer_plain::gradient::{Penalties, Trainer};
use veilformer_plain::model::Model;
use veilformer_plain::noise::Noise;
use veilformer_plain::parameters::{Parameters, parameter_name};
use veilformer_plain::random::Random;
use veilformer_plain::run::{Example, observe, observe_with_noise};
use veilformer_plain::sites::{Approximations, Budget, Entry, Ranges};
use veilformer_plain::tokenizer::Sequence;
use veilformer_plain::train::gradient;

const VOCABULARY: usize = 9;

fn config() -> Config {
    Config {
        layers: 2,
        width: 8,
        heads: 2,
        length: 4,
        feed_forward: 5,
        head_rank: 3,
        head_hidden: 6,
        classes: 2,
        vocabulary: VOCABULARY,
        lora_rank: 2,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm: true,
        embedding_affine: true,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    }
}

/// Random weights, none at its special starting value, and random sentences.
fn world(config: &Config, seed: u64, sentences: usize) -> (Parameters<f64>, Vec<Example>) {
    let mut parameters = Parameters::<f64>::random(config, seed);
    let mut random = Random::new(seed, 99);
    for w in parameters.values_mut() {
        *w += 0.1 * random.normal();
    }
    let data = (0..sentences).map(|_| {
        let used = 1 + (random.next_u64() % config.length as u64) as usize;
        let tokens = (0..config.length).map(|_| (random.next_u64() % VOCABULARY as u64) as u32).collect();
        let label = match config.loss {
            Loss::CrossEntropy => (random.next_u64() % config.classes as u64) as f32,
            Loss::SquaredError => random.uniform() as f32,
        };
        Example { sequence: Sequence { tokens, used, truncated: false }, label }
    });
    let data = data.collect();
    (parameters, data)
}

/// Loss and gradient of one example.
fn run(
    config: &Config,
    parameters: &Parameters<f64>,
    example: &Example,
    trained: Trainable,
) -> (f64, Parameters<f64>) {
    let none = Penalties::none(config);
    let mut trainer = Trainer::new(config, parameters, Functions::Exact, &none).with_trained(trained);
    let loss = gradient(config, &mut trainer, parameters, example).unwrap();
    (loss, trainer.finish().0)
}

fn any_config() -> impl Strategy<Value = Config> {
    let sizes = (1usize..=3, 1usize..=3, 1usize..=3, 1usize..=4, 1usize..=6, 0usize..=3, 2usize..=4);
    let targets = (any::<bool>(), any::<bool>(), any::<bool>());
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (sizes, 0usize..=3, targets, switches).prop_map(|(sizes, lora_rank, targets, switches)| {
        let (layers, heads, head_width, length, feed_forward, head_rank, classes) = sizes;
        let (first_norm, embedding_affine, softmax, squared) = switches;
        Config {
            layers,
            // With two features or fewer a norm leaves hardly more than signs.
            width: heads * (head_width + 2),
            heads,
            length,
            feed_forward,
            head_rank,
            classes: if squared { 1 } else { classes },
            lora_rank,
            lora_targets: Targets { query: targets.0, key: targets.1, value: targets.2 },
            kernel: if softmax { Kernel::Softmax } else { Kernel::Gaussian },
            first_norm,
            embedding_affine,
            loss: if squared { Loss::SquaredError } else { Loss::CrossEntropy },
            ..config()
        }
    })
}

fn any_trainable() -> impl Strategy<Value = Trainable> {
    prop_oneof![Just(Trainable::Everything), Just(Trainable::Server), Just(Trainable::Adapters)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every model's gradients are the differences of its loss (two entries of every weight); frozen ones are not summed.
    #[test]
    fn gradients_of_the_trained_weights(config in any_config(), trained in any_trainable(), seed: u64) {
        prop_assert_eq!(config.validate(), Ok(()));
        let (mut parameters, data) = world(&config, seed, 1);
        let (_, analytic) = run(&config, &parameters, &data[0], trained);
        for (index, (parameter, range)) in parameters.layout().to_vec().into_iter().enumerate() {
            let g = &analytic.values()[range.clone()];
            if !trained.includes(parameter) {
                prop_assert!(g.iter().all(|&g| g == 0.0), "{} is frozen", parameter_name(parameter));
                continue;
            }
            let size = g.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            for pick in 0..2 {
                let i = (seed.wrapping_add(7 * index as u64 + pick) % range.len() as u64) as usize;
                let w = parameters.values()[range.start + i];
                let mut at = |x: f64| {
                    parameters.values_mut()[range.start + i] = w + x;
                    run(&config, &parameters, &data[0], Trainable::Adapters).0
                };
                // The smaller step is for gates that the larger one would open or close.
                let errors = [2e-5, 1e-6].map(|h| {
                    let near = (at(h) - at(-h)) / (2.0 * h);
                    let far = (at(2.0 * h) - at(-2.0 * h)) / (4.0 * h);
                    ((4.0 * near - far) / 3.0 - g[i]).abs()
                });
                at(0.0);
                let error = errors[0].min(errors[1]);
                prop_assert!(
                    error <= 1e-6 * size.max(1e-2),
                    "{} entry {i}: {} is {error:.1e} off", parameter_name(parameter), g[i]
                );
            }
        }
    }

    /// A frozen weight is the same after training, to the last bit; every trained matrix moves (it decays at least).
    #[test]
    fn frozen_weights_stay(config in any_config(), trained in any_trainable(), seed: u64) {
        let (before, data) = world(&config, seed, 5);
        let optimizer = AdamWHe::paper(1e-2, 1e-3);
        let recipe = Recipe { trained, optimizer, steps: 3, functions: Functions::Exact, noise: None };
        let mut tuner = FineTuner::new(&config, before.clone(), recipe);
        for batch in [&data[..2], &data[2..3], &data[3..]] {
            tuner.step(batch).unwrap();
        }
        for (parameter, _) in before.layout() {
            let same = before.get(*parameter) == tuner.parameters().get(*parameter);
            let trained = trained.includes(*parameter);
            prop_assert!(same || trained, "{} is frozen", parameter_name(*parameter));
            prop_assert!(!same || !trained || !parameter.decays(), "{} is not", parameter_name(*parameter));
        }
    }
}

/// LoRA factors change nothing until they are trained, whatever the head.
#[test]
fn fine_tuning_begins_where_pre_training_ended() {
    let pretrained = Config { lora_rank: 0, ..config() };
    let (mut before, data) = world(&pretrained, 8, 3);
    let adapted = config();
    let mut start = begin(&before, &adapted, 1);
    assert_ne!(start.get(Parameter::Classifier), before.get(Parameter::Classifier));
    for parameter in [Parameter::HeadDown, Parameter::HeadUp, Parameter::Classifier] {
        before.get_mut(parameter).copy_from_slice(start.get(parameter));
    }
    let expected = observe(&pretrained, &before, &data, Functions::Exact).unwrap().logits;
    assert_eq!(observe(&adapted, &start, &data, Functions::Exact).unwrap().logits, expected);
    start.get_mut(Parameter::LoraUp(Projection::Value, 1)).fill(0.1);
    assert_ne!(observe(&adapted, &start, &data, Functions::Exact).unwrap().logits, expected);
}

/// PAPER.md, algorithm 1, line by line and entry by entry.
fn algorithm_1(
    constants: &AdamWHe,
    steps: u32,
    start: &[f64],
    gradients: &[Vec<f64>],
    decays: bool,
) -> Vec<f64> {
    let (mut theta, mut m, mut v) = (start.to_vec(), vec![0.0; start.len()], vec![0.0; start.len()]);
    for (t, g) in (1i32..).zip(gradients) {
        let done = f64::from(t - 1) / f64::from(steps);
        let lr = constants.learning_rate * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0;
        for i in 0..theta.len() {
            if decays {
                theta[i] -= lr * constants.weight_decay * theta[i];
            }
            m[i] = constants.beta1 * m[i] + (1.0 - constants.beta1) * g[i];
            v[i] = constants.beta2 * v[i] + (1.0 - constants.beta2) * g[i] * g[i];
            let m_hat = m[i] / (1.0 - constants.beta1.powi(t));
            let v_hat = v[i] / (1.0 - constants.beta2.powi(t));
            theta[i] -= lr * m_hat / (v_hat + constants.epsilon).sqrt();
        }
    }
    theta
}

#[test]
fn three_steps_are_those_of_algorithm_1() {
    for (kernel, loss, epsilon) in [
        (Kernel::Gaussian, Loss::CrossEntropy, 8e-4),
        (Kernel::Softmax, Loss::CrossEntropy, 1e-8),
        (Kernel::Gaussian, Loss::SquaredError, 4e-1),
    ] {
        let classes = if loss == Loss::SquaredError { 1 } else { 3 };
        let config = Config { kernel, loss, classes, ..config() };
        let (start, data) = world(&config, 11, 12);
        let optimizer = AdamWHe { weight_decay: 0.3, ..AdamWHe::paper(2e-2, epsilon) };
        let recipe = Recipe {
            trained: Trainable::Server,
            optimizer,
            steps: 5,
            functions: Functions::Exact,
            noise: None,
        };
        let mut tuner = FineTuner::new(&config, start.clone(), recipe);
        // The independent optimizer gets mean gradients at the tuner's own weights.
        let mut gradients: Vec<Parameters<f64>> = Vec::new();
        for batch in data.chunks(4) {
            let mut mean = Parameters::zeros(&config);
            for example in batch {
                let (_, g) = run(&config, tuner.parameters(), example, Trainable::Everything);
                mean.values_mut().iter_mut().zip(g.values()).for_each(|(m, g)| *m += g / 4.0);
            }
            gradients.push(mean);
            tuner.step(batch).unwrap();
        }
        for parameter in Trainable::Server.parameters(&config) {
            let of_parameter: Vec<Vec<f64>> = gradients.iter().map(|g| g.get(parameter).to_vec()).collect();
            let decays = !matches!(parameter, Parameter::Gain(_) | Parameter::Bias(_));
            let expected = algorithm_1(&optimizer, 5, start.get(parameter), &of_parameter, decays);
            for (w, expected) in tuner.parameters().get(parameter).iter().zip(expected) {
                assert!((w - expected).abs() < 1e-12, "{}: {w} for {expected}", parameter_name(parameter));
            }
        }
    }
}

/// Adapters and head, three steps, with a task's constants.
fn adapters(functions: Functions<'_>, noise: Option<Noise>) -> Recipe<'_> {
    Recipe { trained: Trainable::Adapters, optimizer: AdamWHe::paper(4e-3, 8e-4), steps: 3, functions, noise }
}

/// What a run of three steps ends with.
fn tuned<'a>(
    config: &'a Config,
    (start, data): &(Parameters<f64>, Vec<Example>),
    recipe: Recipe<'a>,
) -> FineTuner<'a, f64> {
    let mut tuner = FineTuner::new(config, start.clone(), recipe);
    for batch in data.chunks(4) {
        tuner.step(batch).unwrap();
    }
    tuner
}

/// The largest difference over all weights.
fn difference(a: &Parameters<f64>, b: &Parameters<f64>) -> f64 {
    a.values().iter().zip(b.values()).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

/// Polynomials for every site, of training too, on the ranges of an exact run.
fn calibrated(config: &Config, ranges: &Ranges, degree: usize) -> Approximations {
    let budget = |_| Budget { degree, squarings: 0, margin: 1.5 };
    let mut table = Approximations::calibrate(config, ranges, budget).unwrap();
    table.fit(Site::training(config), ranges, budget).unwrap();
    table
}

/// ReLU alone has no good polynomial, so the gates are biased open and their polynomial is x.
fn with_open_gates(config: &Config, seed: u64) -> (Parameters<f64>, Vec<Example>) {
    let (mut parameters, data) = world(config, seed, 12);
    for layer in 0..config.layers {
        parameters.get_mut(Parameter::Bias(Norm::Second(layer))).fill(1.0);
        let expand = parameters.get_mut(Parameter::Expand(layer));
        for row in expand.chunks_exact_mut(2 * config.feed_forward) {
            row[config.feed_forward..].iter_mut().for_each(|w| *w = 0.3 + 0.1 * *w);
        }
    }
    (parameters, data)
}

#[test]
fn steps_on_polynomials_are_the_exact_steps_but_for_their_errors() {
    for (kernel, loss, classes) in [
        (Kernel::Gaussian, Loss::CrossEntropy, 3),
        (Kernel::Softmax, Loss::CrossEntropy, 2),
        (Kernel::Gaussian, Loss::SquaredError, 1),
    ] {
        let config = Config { classes, kernel, loss, ..config() };
        let world = with_open_gates(&config, 5);
        let exact = tuned(&config, &world, adapters(Functions::Exact, None));
        for degree in [7, 15, 63, 255] {
            let mut table = calibrated(&config, exact.ranges(), degree);
            for layer in 0..config.layers {
                let (low, high) = exact.ranges().get(Site::Gate(layer));
                assert!(low > 0.0);
                let interval = Interval::new(0.0, 2.0 * high).unwrap();
                let coefficients = vec![high, high];
                let entry = Entry { interval, squarings: 0, coefficients, observed: (low, high) };
                table.insert(Site::Gate(layer), entry).unwrap();
            }
            let sites = Site::all(&config).chain(Site::training(&config));
            let worst = sites.map(|s| table.get(s).unwrap().measure(4001).worst).fold(0.0, f64::max);
            let run = tuned(&config, &world, adapters(Functions::Polynomial(&table), None));
            assert_eq!(run.ranges().escape(&table), None);
            let difference = difference(exact.parameters(), run.parameters());
            // Three steps of 0.4 % each, in which every function's error counts about once.
            assert!(
                difference < 0.02 * worst,
                "degree {degree}: errors {worst:.1e}, weights {difference:.1e}"
            );
            assert!(degree < 255 || difference < 1e-6, "degree {degree}: {difference:.1e}");
        }
    }
}

#[test]
fn noise_moves_the_weights_in_proportion_and_by_its_seed() {
    let config = Config { classes: 3, ..config() };
    let world = with_open_gates(&config, 5);
    let exact = tuned(&config, &world, adapters(Functions::Exact, None));
    let noisy = |bits: i32, seed| {
        let noise = Noise { relative: 2f64.powi(-bits), seed };
        tuned(&config, &world, adapters(Functions::Exact, Some(noise))).parameters().clone()
    };
    let (coarse, fine) = (noisy(24, 1), noisy(34, 1));
    let ratio = difference(exact.parameters(), &coarse) / difference(exact.parameters(), &fine);
    assert!((500.0..2000.0).contains(&ratio), "{ratio}");
    assert!(difference(exact.parameters(), &coarse) < 1e-4);
    assert_eq!(coarse, noisy(24, 1));
    assert_ne!(coarse, noisy(24, 2));
    let (weights, data) = (exact.parameters(), &world.1);
    let clean = observe(&config, weights, data, Functions::Exact).unwrap();
    let noise = Some(Noise { relative: 2f64.powi(-20), seed: 1 });
    let noisy = observe_with_noise(&config, weights, data, Functions::Exact, noise).unwrap();
    let (worst, mean) = clean.difference(&noisy);
    assert!(mean > 2f64.powi(-24) && worst < 2f64.powi(-12), "{mean} {worst}");
}

/// A model calibrated for training keeps its polynomials, its bounds and its shape on the disk.
#[test]
fn a_trained_models_table_survives_the_disk() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/assets/veil-mini");
    let mut model = Model::load(&assets).unwrap();
    assert_eq!((model.config.kernel, model.config.lora_targets), (Kernel::Gaussian, Targets::ALL));
    assert!(Site::training(&model.config).all(|s| model.approximations.get(s).is_none()));
    let targets = Targets { query: false, key: true, value: true };
    model.config = Config { lora_rank: 1, lora_targets: targets, kernel: Kernel::Softmax, ..model.config };
    model.parameters = begin(&model.parameters, &model.config, 1);
    let tokens = vec![2; model.config.length];
    let example = Example { sequence: Sequence { tokens, used: 5, truncated: false }, label: 1.0 };
    let recipe = adapters(Functions::Exact, None);
    let mut tuner = FineTuner::new(&model.config, model.parameters.clone(), recipe);
    tuner.step(std::slice::from_ref(&example)).unwrap();
    // One sentence leaves some intervals a point: a little is added to both ends.
    let mut ranges = tuner.ranges().clone();
    let sites = || Site::all(&model.config).chain(Site::training(&model.config));
    for site in sites() {
        let (low, high) = ranges.get(site);
        ranges.note(site, low - 0.1 * low.abs());
        ranges.note(site, high + 0.1 * high.abs() + 0.1);
    }
    let budget = |_| Budget { degree: 15, squarings: 0, margin: 2.0 };
    model.approximations = Approximations::new(&model.config);
    model.approximations.fit(sites(), &ranges, budget).unwrap();
    for site in [Site::Tanh, Site::Kernel(0), Site::FirstNorm(1), Site::Gate(0), Site::Optimizer] {
        let bound = model.approximations.gradient_bound(site).unwrap();
        assert_eq!(bound, 2.0 * ranges.gradient(site), "{site:?}");
    }
    let folder = std::env::temp_dir().join(format!("veilformer-training-{}", std::process::id()));
    model.save(&folder).unwrap();
    let loaded = Model::load(&folder).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(loaded.config, model.config);
    assert_eq!(loaded.parameters, model.parameters);
    assert_eq!(loaded.approximations, model.approximations);
}

/// Without polynomials for loss and optimizer a model cannot be trained as under encryption, and says so.
#[test]
fn training_asks_for_its_own_polynomials() {
    let config = config();
    let world = world(&config, 3, 4);
    let exact = tuned(&config, &world, adapters(Functions::Exact, None));
    let budget = |_| Budget { degree: 15, squarings: 0, margin: 1.5 };
    let mut table = Approximations::calibrate(&config, exact.ranges(), budget).unwrap();
    let step = |table: &Approximations| {
        let recipe = adapters(Functions::Polynomial(table), None);
        FineTuner::new(&config, world.0.clone(), recipe).step(&world.1).map(drop)
    };
    assert_eq!(step(&table), Err(PlainError::NoApproximation(Site::LossExp)));
    table.fit([Site::LossExp, Site::LossInverse], exact.ranges(), budget).unwrap();
    assert_eq!(step(&table), Err(PlainError::NoApproximation(Site::Optimizer)));
    table.fit([Site::Optimizer], exact.ranges(), budget).unwrap();
    assert_eq!(step(&table), Ok(()));
}
