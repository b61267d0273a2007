//! The slot program on exact slots against the polynomial twin: the same numbers, and the dry run's levels.

use std::path::Path;

use proptest::prelude::*;
use veilformer::ckks::ParametersLiteral;
use veilformer::transformer::slots::{
    Layout, Plan, PlanSlots, Refresh, SlotArithmetic, SlotExecutor, SlotTensor,
};
use veilformer::transformer::{Config, Kernel, Loss, Parameter, Site, Targets, forward};
use veilformer_plain::data::Task;
use veilformer_plain::executor::{Functions, PlainExecutor};
use veilformer_plain::model::Model;
use veilformer_plain::parameters::Parameters;
use veilformer_plain::random::Random;
use veilformer_plain::recipe::tokenise;
use veilformer_plain::run::{Example, embed, mask_tensor, observe};
use veilformer_plain::sites::{Approximations, Budget};
use veilformer_plain::slots::{PlainSlots, PlainVector, Weights};
use veilformer_plain::tokenizer::Sequence;

const REFRESH: Refresh = Refresh { floor: 3, level: 15 };

fn config(layers: usize, heads: usize, length: usize, first_norm: bool) -> Config {
    Config {
        layers,
        width: 8,
        heads,
        length,
        feed_forward: 8,
        head_rank: 0,
        head_hidden: 8,
        classes: 2,
        vocabulary: 30,
        lora_rank: 0,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm,
        embedding_affine: false,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    }
}

/// Random weights, biases and gains included, and random sentences of every length.
fn world(config: &Config, seed: u64, sentences: usize) -> (Parameters<f64>, Vec<Example>) {
    let mut parameters = Parameters::<f64>::random(config, seed);
    let mut random = Random::new(seed, 9);
    for (parameter, range) in parameters.layout().to_vec() {
        if matches!(parameter, Parameter::Gain(_) | Parameter::Bias(_)) {
            parameters.values_mut()[range].iter_mut().for_each(|w| *w += 0.2 * random.normal());
        }
    }
    let data = (0..sentences).map(|_| {
        let used = 1 + (random.next_u64() % config.length as u64) as usize;
        let token = |i| if i < used { 4 + (random.next_u64() % 26) as u32 } else { 0 };
        let tokens = (0..config.length).map(token).collect();
        Example { sequence: Sequence { tokens, used, truncated: false }, label: 0.0 }
    });
    (parameters, data.collect())
}

/// As few levels as the shipped model takes.
fn lean(site: Site) -> Budget {
    let degree = if matches!(site, Site::Kernel(0) | Site::Gate(_)) { 15 } else { 7 };
    Budget { degree, squarings: 0, margin: 1.5 }
}

/// Deeper: the kernel's argument and a norm's output must be refreshed too.
fn deep(site: Site) -> Budget {
    let squarings = if matches!(site, Site::Kernel(_)) { 2 } else { 0 };
    Budget { degree: 15, squarings, margin: 2.0 }
}

/// What a run leaves: its arithmetic, and the slots and level of the logits.
fn run<S: SlotArithmetic>(
    slots: S,
    model: &Weights<'_>,
    [x, mask]: [S::Vector; 2],
) -> (S, SlotTensor<S::Vector>) {
    let mut executor = SlotExecutor::new(slots, model).unwrap();
    let y = forward(model.config, &mut executor, SlotTensor::tokens(x), &SlotTensor::tokens(mask)).unwrap();
    (executor.into_slots(), y)
}

fn plan(model: &Weights<'_>, refresh: Option<Refresh>, top: usize) -> (Plan, usize) {
    let parameters = ParametersLiteral::N16_LEVELED.check().unwrap();
    let slots = PlanSlots::with_refresh(&parameters, refresh);
    let (x, mask) = (slots.input(top), slots.input(top));
    let (slots, y) = run(slots, model, [x, mask]);
    let level = slots.level(y.vector());
    (slots.finish(), level)
}

/// Runs a batch on exact slots; checks it against the twin and the dry run. Returns the number of refreshes.
fn check(model: &Weights<'_>, data: &[Example], slots: usize, refresh: Option<Refresh>, top: usize) -> usize {
    let (config, parameters) = (model.config, model.parameters);
    let layout = Layout::new(config, slots).unwrap();
    let functions = Functions::Polynomial(model.approximations);
    let expected = observe(config, parameters, data, functions).unwrap();
    let (mut tokens, mut mask) = (vec![0.0; slots], vec![0.0; slots]);
    let mut twin = PlainExecutor::new(config, parameters, functions);
    for (sentence, example) in data.iter().enumerate() {
        let x = embed(&mut twin, config, parameters, &example.sequence.tokens).unwrap();
        let m = mask_tensor::<f64>(&example.sequence);
        for token in 0..config.length {
            for feature in 0..config.width {
                let slot = layout.slot(feature, token, sentence);
                (tokens[slot], mask[slot]) = (x.row(token)[feature], m.row(token)[0]);
            }
        }
    }
    let input = [PlainVector::new(tokens, top), PlainVector::new(mask, top)];
    let (arithmetic, logits) = run(PlainSlots::new(slots, refresh), model, input);
    let size = expected.logits.iter().flatten().fold(1.0, |m: f64, y| m.max(y.abs()));
    for (sentence, row) in expected.logits.iter().enumerate() {
        for (class, y) in row.iter().enumerate() {
            let got = logits.vector().values()[layout.slot(class, 0, sentence)];
            assert!((got - y).abs() < 1e-9 * size, "sentence {sentence}, class {class}: {got} for {y}");
        }
    }
    let (plan, level) = plan(model, refresh, top);
    assert_eq!(plan.lowest_level, arithmetic.lowest_level());
    assert_eq!(level, arithmetic.level(logits.vector()));
    assert_eq!(plan.refreshes, arithmetic.refreshes());
    println!("{} refreshes of at most {}", plan.refreshes, arithmetic.largest_refreshed());
    arithmetic.refreshes()
}

/// The same for a random model; `None` where it does not stay in the intervals its polynomials were fitted to.
fn check_random(
    config: &Config,
    seed: u64,
    budget: fn(Site) -> Budget,
    refresh: Option<Refresh>,
    top: usize,
) -> Option<usize> {
    let slots = 1024;
    let batch = Layout::new(config, slots).unwrap().batch();
    let (parameters, data) = world(config, seed, batch);
    let ranges = observe(config, &parameters, &data, Functions::Exact).unwrap().ranges;
    let approximations = Approximations::calibrate(config, &ranges, budget).unwrap();
    let polynomial = observe(config, &parameters, &data, Functions::Polynomial(&approximations)).unwrap();
    let model = Weights { config, parameters: &parameters, approximations: &approximations };
    let inside = polynomial.ranges.escape(&approximations).is_none();
    inside.then(|| check(&model, &data, slots, refresh, top))
}

#[test]
fn the_shipped_model_bootstraps_four_times() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/assets");
    let model = Model::load(&assets.join("veil-mini")).unwrap();
    let parameters = model.parameters.convert::<f64>();
    let rows = Task::Sst2.read(&assets.join("sst2-excerpt.tsv")).unwrap();
    let data = tokenise(&model.tokenizer, &rows[..32], model.config.length).unwrap();
    let weights =
        Weights { config: &model.config, parameters: &parameters, approximations: &model.approximations };
    assert_eq!(check(&weights, &data, 1 << 15, Some(REFRESH), REFRESH.level), 4);
}

#[test]
fn one_layer_needs_no_bootstrap() {
    let config = config(1, 2, 8, false);
    assert_eq!(check_random(&config, 1, lean, None, 30), Some(0));
    // Wide enough to use the other tokens' lanes.
    assert_eq!(check_random(&Config { feed_forward: 20, ..config }, 2, lean, None, 30), Some(0));
}

#[test]
fn two_layers_refresh_the_residual_stream_alone() {
    // After each of the two attentions and the two feed-forwards.
    assert_eq!(check_random(&config(2, 2, 8, false), 3, lean, Some(REFRESH), 15), Some(4));
}

#[test]
fn without_levels_and_bootstraps_the_program_stops() {
    let config = config(2, 2, 8, false);
    let (parameters, data) = world(&config, 4, 8);
    let ranges = observe(&config, &parameters, &data, Functions::Exact).unwrap().ranges;
    let approximations = Approximations::calibrate(&config, &ranges, lean).unwrap();
    let model = Weights { config: &config, parameters: &parameters, approximations: &approximations };
    let mut executor = SlotExecutor::new(PlainSlots::new(1024, None), &model).unwrap();
    let input = || SlotTensor::tokens(PlainVector::new(vec![0.5; 1024], 15));
    let error = forward(&config, &mut executor, input(), &input()).err();
    assert!(format!("{error:?}").contains("LevelsExhausted"), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn slots_compute_what_the_twin_computes(
        layers in 1usize..=3,
        heads in 0u32..=2,
        length in 2u32..=4,
        first_norm: bool,
        feed_forward in 1usize..=8,
        head_rank in 0usize..=4,
        seed: u64,
    ) {
        // With heads of 2 places, 16 tokens would be too many vectors of scores.
        prop_assume!(heads < 2 || length < 4);
        let config = Config { feed_forward, head_rank, ..config(layers, 1 << heads, 1 << length, first_norm) };
        prop_assume!(check_random(&config, seed, deep, Some(REFRESH), 15).is_some());
    }
}
