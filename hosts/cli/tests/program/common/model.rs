//! A tiny model with random weights, and sentences for it.

use std::path::Path;
use veilformer::transformer::{Config, Kernel, Loss, Parameter, Site, Targets};
use veilformer_plain::data::Task;
use veilformer_plain::model::{Model, Reached, Training};
use veilformer_plain::parameters::Parameters;
use veilformer_plain::random::Random;
use veilformer_plain::run::Example;
use veilformer_plain::sites::{Approximations, Budget};
use veilformer_plain::tiny;
use veilformer_plain::tokenizer::{SPECIAL, Tokenizer};

/// Words of the language it speaks.
const WORDS: [&str; 20] = [
    "a", "bad", "boring", "dull", "fine", "film", "good", "great", "is", "it", "movie", "not", "play",
    "poor", "rather", "story", "the", "this", "very", "warm",
];

/// Sizes of a toy, on which every operation of the executor has something to do.
pub(crate) const TOY: Config = Config {
    layers: 1,
    width: 16,
    heads: 2,
    length: 16,
    feed_forward: 24,
    head_rank: 0,
    head_hidden: 20,
    classes: 2,
    vocabulary: SPECIAL.len() + WORDS.len(),
    lora_rank: 0,
    lora_targets: Targets::ALL,
    kernel: Kernel::Gaussian,
    first_norm: false,
    embedding_affine: false,
    norm_epsilon: 1e-5,
    loss: Loss::CrossEntropy,
};

/// Sentences of 2 to 12 words.
pub(crate) fn sentences(count: usize) -> Vec<String> {
    let mut random = Random::new(3, 1);
    let mut below = |n: usize| (random.next_u64() % n as u64) as usize;
    (0..count)
        .map(|_| {
            let length = 2 + below(11);
            (0..length).map(|_| WORDS[below(WORDS.len())]).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// Writes the folder of an encoder of these sizes, calibrated on its sentences.
pub(crate) fn write_encoder(folder: &Path, config: Config) {
    let vocabulary = [&SPECIAL[..], &WORDS[..]].concat().join("\n");
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary).unwrap();
    let mut parameters = Parameters::<f32>::random(&config, 1);
    let mut random = Random::new(1, 9);
    for (parameter, range) in parameters.layout().to_vec() {
        if matches!(parameter, Parameter::Gain(_) | Parameter::Bias(_)) {
            parameters.values_mut()[range].iter_mut().for_each(|w| *w += 0.1 * random.normal() as f32);
        }
    }
    let sequences: Vec<_> =
        sentences(60).iter().map(|s| tokenizer.encode(s, None, config.length).unwrap()).collect();
    let mut model = Model {
        config,
        parameters,
        approximations: Approximations::new(&config),
        tokenizer,
        training: Training {
            task: "none".into(),
            seed: 1,
            command: "a test".into(),
            reached: Reached::Pretrained { tokens: 0, steps: 0, probe_loss: 0.0 },
        },
    };
    // Toy parameters have fewer levels.
    let budget = |site| {
        let degree = match site {
            Site::LossExp | Site::LossInverse | Site::Optimizer => 7,
            _ => 15,
        };
        Budget { degree, ..tiny::budget(&config, site) }
    };
    tiny::calibrate(&mut model, &sequences, budget).unwrap();
    let examples = sequences.into_iter().enumerate();
    let examples = examples.map(|(i, sequence)| Example { sequence, label: (i % 3 % 2) as f32 }).collect();
    tiny::rehearse(&mut model, &[(Task::Sst2, examples)], 40, budget).unwrap();
    model.save(folder).unwrap();
}
