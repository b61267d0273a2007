//! Numeric gradient checks of every layer, the loss and the penalties, in f64.

use proptest::prelude::*;
use veilformer::transformer::{Config, Kernel, Loss, Parameter, Projection, Site, Targets};
use veilformer_plain::executor::Functions;
use veilformer_plain::gradient::{Penalties, Trainer};
use veilformer_plain::parameters::{Parameters, parameter_name};
use veilformer_plain::random::Random;
use veilformer_plain::run::{Example, observe};
use veilformer_plain::sites::{Approximations, Budget};
use veilformer_plain::tokenizer::Sequence;
use veilformer_plain::train::gradient;

fn config(layers: usize, first_norm: bool, head_rank: usize, lora_rank: usize, loss: Loss) -> Config {
    Config {
        layers,
        width: 6,
        heads: 2,
        length: 4,
        feed_forward: 5,
        head_rank,
        head_hidden: 4,
        classes: if loss == Loss::CrossEntropy { 3 } else { 1 },
        vocabulary: 9,
        lora_rank,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm,
        embedding_affine: first_norm,
        norm_epsilon: 1e-5,
        loss,
    }
}

fn model(config: &Config, seed: u64) -> (Parameters<f64>, Example) {
    let mut parameters = Parameters::<f64>::random(config, seed);
    let mut random = Random::new(seed, 99);
    // Nothing at its special starting value: B = 0 or gain = 1 would hide mistakes.
    for w in parameters.values_mut() {
        *w += 0.2 * random.normal();
    }
    let used = 2 + (seed % 3) as usize;
    let tokens = (0..config.length).map(|_| (random.next_u64() % config.vocabulary as u64) as u32).collect();
    let label = if config.classes == 3 { (seed % 3) as f32 } else { 2.5 };
    (parameters, Example { sequence: Sequence { tokens, used, truncated: false }, label })
}

/// Loss by a forward pass alone.
fn loss(config: &Config, parameters: &Parameters<f64>, example: &Example, functions: Functions<'_>) -> f64 {
    let none = Penalties::none(config);
    gradient(config, &mut Trainer::new(config, parameters, functions, &none), parameters, example).unwrap()
}

/// Compares with central differences of fourth order, weight by weight; returns the worst error, relative to the
/// parameter's largest gradient.
fn check(config: &Config, parameters: &Parameters<f64>, example: &Example, functions: Functions<'_>) {
    let none = Penalties::none(config);
    let mut trainer = Trainer::new(config, parameters, functions, &none);
    gradient(config, &mut trainer, parameters, example).unwrap();
    let analytic = trainer.finish().0;
    let mut moved = parameters.clone();
    for (parameter, range) in parameters.layout() {
        let size = analytic.values()[range.clone()].iter().fold(0.0f64, |m, g| m.max(g.abs()));
        for i in range.clone() {
            let w = parameters.values()[i];
            let h = 2e-4;
            let mut at = |x: f64| {
                moved.values_mut()[i] = x;
                let y = loss(config, &moved, example, functions);
                moved.values_mut()[i] = w;
                y
            };
            let near = (at(w + h) - at(w - h)) / (2.0 * h);
            let far = (at(w + 2.0 * h) - at(w - 2.0 * h)) / (4.0 * h);
            let numeric = (4.0 * near - far) / 3.0;
            let error = (numeric - analytic.values()[i]).abs();
            assert!(
                error <= 1e-6 * size.max(1e-3),
                "{} entry {}: {} against {numeric}",
                parameter_name(*parameter),
                i - range.start,
                analytic.values()[i]
            );
        }
    }
}

#[test]
fn every_layer_and_both_losses() {
    for (layers, first_norm, head_rank, lora_rank, loss) in [
        (1, false, 0, 0, Loss::CrossEntropy),
        (1, true, 2, 2, Loss::SquaredError),
        (2, true, 3, 2, Loss::CrossEntropy),
        (3, false, 2, 0, Loss::CrossEntropy),
    ] {
        for (seed, kernel) in [(0, Kernel::Gaussian), (1, Kernel::Softmax), (2, Kernel::Gaussian)] {
            let config = Config { kernel, ..config(layers, first_norm, head_rank, lora_rank, loss) };
            config.validate().unwrap();
            let (parameters, example) = model(&config, seed);
            check(&config, &parameters, &example, Functions::Exact);
        }
    }
}

/// The polynomials of high degree stand in for the functions; the gate differentiates its polynomial itself.
#[test]
fn polynomials_have_gradients_too() {
    let config = config(2, true, 0, 0, Loss::CrossEntropy);
    let (parameters, example) = model(&config, 1);
    let ranges =
        observe(&config, &parameters, std::slice::from_ref(&example), Functions::Exact).unwrap().ranges;
    let budget = |site| Budget {
        degree: if matches!(site, Site::Gate(_)) { 14 } else { 255 },
        squarings: 0,
        margin: if matches!(site, Site::Gate(_)) { 2.0 } else { 1.2 },
    };
    // Only the gate's error is visible: the others are exact to many digits, and so are their derivatives.
    let table = Approximations::calibrate(&config, &ranges, budget).unwrap();
    check(&config, &parameters, &example, Functions::PolynomialModel(&table));
}

#[test]
fn a_masked_token_has_no_influence() {
    let config = config(2, true, 0, 0, Loss::CrossEntropy);
    let (parameters, mut example) = model(&config, 4);
    example.sequence.used = 3;
    let before = loss(&config, &parameters, &example, Functions::Exact);
    example.sequence.tokens[3] = (example.sequence.tokens[3] + 1) % 9;
    assert_eq!(before, loss(&config, &parameters, &example, Functions::Exact));
    example.sequence.tokens[2] = (example.sequence.tokens[2] + 1) % 9;
    assert_ne!(before, loss(&config, &parameters, &example, Functions::Exact));
}

/// A penalty's gradient by every weight upstream of its site, against differences of the penalty's own value.
#[test]
fn penalties_push_along_their_gradient() {
    let config = Config {
        feed_forward: 1,
        heads: 1,
        width: 4,
        length: 1,
        head_hidden: 1,
        classes: 2,
        ..config(1, false, 0, 0, Loss::CrossEntropy)
    };
    let (mut parameters, mut example) = model(&config, 2);
    example.sequence = Sequence { tokens: vec![3], used: 1, truncated: false };
    // With the classifier zero the loss has no gradient: only the penalty is left.
    parameters.get_mut(Parameter::Classifier).fill(0.0);
    for (site, weight) in [
        (Site::SecondNorm(0), Parameter::Output(0)),
        (Site::Gate(0), Parameter::Expand(0)),
        (Site::FinalNorm, Parameter::Contract(0)),
        (Site::Tanh, Parameter::HeadUp),
    ] {
        let mut penalties = Penalties::none(&config);
        penalties.weight = 0.7;
        penalties.set(site, 50.0, 60.0);
        let value = |p: &Parameters<f64>| {
            let seen = observe(&config, p, std::slice::from_ref(&example), Functions::Exact).unwrap();
            penalties.value(site, seen.ranges.get(site).0)
        };
        let mut trainer = Trainer::new(&config, &parameters, Functions::Exact, &penalties);
        gradient(&config, &mut trainer, &parameters, &example).unwrap();
        let analytic = trainer.finish().0.get(weight).to_vec();
        for (i, analytic) in analytic.into_iter().enumerate() {
            let at = |d: f64| {
                let mut p = parameters.clone();
                p.get_mut(weight)[i] += d;
                value(&p)
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (numeric - analytic).abs() < 1e-6 * (1.0 + numeric.abs()),
                "{site:?} {i}: {analytic} {numeric}"
            );
        }
    }
    // The kernel: one token against itself is at distance 0, so use two tokens and the key matrix.
    let config = Config { length: 2, ..config };
    let example =
        Example { sequence: Sequence { tokens: vec![3, 5], used: 2, truncated: false }, label: 0.0 };
    let mut penalties = Penalties::none(&config);
    penalties.weight = 0.3;
    penalties.set(Site::Kernel(0), -1e-3, 0.0);
    let weight = Parameter::Attention(Projection::Key, 0);
    let mut trainer = Trainer::new(&config, &parameters, Functions::Exact, &penalties);
    gradient(&config, &mut trainer, &parameters, &example).unwrap();
    assert!(trainer.finish().0.get(weight).iter().any(|g| g.abs() > 1e-6));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// f32 and f64 run the same program.
    #[test]
    fn precisions_agree(seed in 0u64..1000) {
        let config = config(2, true, 2, 2, Loss::CrossEntropy);
        let (parameters, example) = model(&config, seed);
        let wide = observe(&config, &parameters, std::slice::from_ref(&example), Functions::Exact).unwrap();
        let narrow = parameters.convert::<f32>();
        let narrow = observe(&config, &narrow, std::slice::from_ref(&example), Functions::Exact).unwrap();
        let size = wide.logits[0].iter().fold(1.0f64, |m, y| m.max(y.abs()));
        prop_assert!(wide.difference(&narrow).0 < 1e-3 * size);
    }
}
