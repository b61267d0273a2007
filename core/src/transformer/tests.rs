extern crate std;

use super::*;
use std::collections::HashSet;
use std::vec::Vec;

mod trace;

fn config() -> Config {
    Config {
        layers: 2,
        width: 8,
        heads: 2,
        length: 4,
        feed_forward: 6,
        head_rank: 3,
        head_hidden: 5,
        classes: 2,
        vocabulary: 11,
        lora_rank: 2,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm: true,
        embedding_affine: true,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    }
}

#[test]
fn sizes_that_make_no_model_are_refused() {
    let good = config();
    assert_eq!(good.validate(), Ok(()));
    let cases = [
        (Config { layers: 0, ..good }, ConfigError::Layers(0)),
        (Config { layers: MAX_LAYERS + 1, ..good }, ConfigError::Layers(MAX_LAYERS + 1)),
        (Config { heads: 3, ..good }, ConfigError::Heads { width: 8, heads: 3 }),
        (Config { heads: 0, ..good }, ConfigError::Heads { width: 8, heads: 0 }),
        (Config { width: 0, ..good }, ConfigError::Heads { width: 0, heads: 2 }),
        (Config { vocabulary: 0, ..good }, ConfigError::Empty),
        (Config { classes: 1, ..good }, ConfigError::Classes(1)),
        (Config { norm_epsilon: -1.0, ..good }, ConfigError::Epsilon(-1.0)),
    ];
    for (bad, error) in cases {
        assert_eq!(bad.validate(), Err(error));
    }
    assert_eq!(Config { classes: 1, loss: Loss::SquaredError, ..good }.validate(), Ok(()));
}

#[test]
fn sites_have_their_own_entries() {
    for first_norm in [true, false] {
        let config = Config { first_norm, ..config() };
        let sites: Vec<Site> = Site::all(&config).collect();
        let indices: HashSet<usize> = sites.iter().map(|s| s.index(&config)).collect();
        assert_eq!(indices.len(), sites.len());
        assert!(indices.iter().all(|&i| i < Site::count(&config)));
        assert_eq!(sites.len(), 4 * config.layers + 2 - usize::from(!first_norm));
    }
}

#[test]
fn tables_from_before_training_keep_their_places() {
    let config = config();
    let inference: Vec<usize> = Site::all(&config).map(|s| s.index(&config)).collect();
    assert_eq!(inference, (0..10).collect::<Vec<_>>());
    let training: Vec<Site> = Site::training(&config).collect();
    assert_eq!(training, [Site::LossExp, Site::LossInverse, Site::Optimizer]);
    assert!(training.iter().all(|s| s.is_training()) && !Site::all(&config).any(Site::is_training));
    let squared = Config { loss: Loss::SquaredError, kernel: Kernel::Softmax, ..config };
    assert!(Site::training(&squared).eq([Site::Optimizer]));
    let sites: Vec<Site> = Site::all(&squared).chain(Site::training(&config)).collect();
    let indices: HashSet<usize> = sites.iter().map(|s| s.index(&squared)).collect();
    assert_eq!((sites.len(), indices.len()), (Site::count(&squared), Site::count(&squared)));
    assert!(indices.iter().all(|&i| i < Site::count(&squared)));
}

#[test]
fn a_model_has_the_parameters_its_sizes_ask_for() {
    let count = |config: &Config| Parameter::all(config).map(|p| p.shape(config).len()).sum::<usize>();
    let (d, f) = (8, 6);
    let layer = 4 * d * d + 3 * (2 * d * 2) + 4 * d + 2 * d * f + f * d;
    let expected = 11 * d + 1 + 2 * d + 2 * layer + 2 * d + d * 3 + 3 * 5 + 5 * 2;
    assert_eq!(count(&config()), expected);
    let lean = Config { first_norm: false, embedding_affine: false, head_rank: 0, lora_rank: 0, ..config() };
    assert_eq!(count(&lean), expected - 4 * d - 2 * 3 * 4 * d - d * 3 - 3 * 5 + d * 5);
    let targets = Targets { query: false, key: true, value: true };
    assert_eq!(count(&Config { lora_targets: targets, ..config() }), expected - 2 * 4 * d);
    let all: Vec<Parameter> = Parameter::all(&config()).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn constants_that_make_no_step_are_refused() {
    let good = AdamWHe::paper(4e-3, 8e-3);
    assert_eq!(good.validate(), Ok(()));
    let cases = [
        (AdamWHe { learning_rate: -1.0, ..good }, OptimizerError::LearningRate(-1.0)),
        (AdamWHe { beta1: 1.0, ..good }, OptimizerError::Beta(1.0)),
        (AdamWHe { beta2: -0.5, ..good }, OptimizerError::Beta(-0.5)),
        (AdamWHe { epsilon: 0.0, ..good }, OptimizerError::Epsilon(0.0)),
        (AdamWHe { weight_decay: f64::INFINITY, ..good }, OptimizerError::WeightDecay(f64::INFINITY)),
    ];
    for (bad, error) in cases {
        assert_eq!(bad.validate(), Err(error));
    }
}

#[test]
fn steps_count_from_one() {
    let constants = AdamWHe::paper(4e-3, 1e-2);
    let first = constants.step(1, 10, 0.5);
    assert_eq!((first.first, first.second), (0.0, 0.0));
    assert!((first.rate - 4e-3 * 0.5 / 0.1).abs() < 1e-15 && (first.curvature - 25.0).abs() < 1e-12);
    assert!((first.keep - (1.0 - 4e-5)).abs() < 1e-15);
    // (β − β²)/(1 − β²) = β/(1 + β), and half way the cosine has halved the rate.
    let second = constants.step(2, 10, 0.5);
    assert!((second.first - 0.9 / 1.9).abs() < 1e-12 && (second.second - 0.999 / 1.999).abs() < 1e-9);
    assert!((constants.step(6, 10, 0.5).rate - 0.5 * first.rate).abs() < 1e-15);
    assert_eq!(constants.step(0, 0, 0.5), constants.step(1, 1, 0.5));
}

#[test]
fn embedding_is_normalised() {
    let row: Vec<f32> = (0..16).map(|i| (i * i % 7) as f32).collect();
    let norm = EmbeddingNorm { gain: &[], bias: &[], epsilon: 0.0 };
    let mut out = [9.0; 17];
    embed_token(&row, 3, 0.5, &norm, &mut out);
    let (mean, square) =
        (out[..16].iter().sum::<f64>() / 16.0, out[..16].iter().map(|y| y * y).sum::<f64>() / 16.0);
    assert!(mean.abs() < 1e-12 && (square - 1.0).abs() < 1e-12);
    assert_eq!(out[16], 9.0);
    assert_eq!((position(0, 0, 16), position(0, 1, 16)), (0.0, 1.0));
    assert!((position(2, 5, 16) - (2.0 * 10_000f64.powf(-0.25)).cos()).abs() < 1e-12);
}
