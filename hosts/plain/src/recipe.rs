//! How `veil-mini` is made: the small model of two layers that a bootstrapped run evaluates.
//!
//! d = 32, two heads, no norm ahead of the first attention, and every non-linear argument kept in a narrow range by
//! penalties from the first step. The degrees spend the twelve levels between two bootstraps to the last: norms of
//! degree 7 and gates of degree 15 make a norm and its feed-forward exactly twelve, so that an inference bootstraps four
//! times, once after every attention and every feed-forward.

use std::path::Path;

use veilformer::transformer::{Config, ConfigError, Kernel, Loss, Site, Targets};

use crate::data::{DataError, Row, Task};
use crate::executor::{Functions, PlainError};
use crate::gradient::Penalties;
use crate::model::{Model, Reached, Scores, Training};
use crate::optimizer::AdamW;
use crate::run::{Example, Observation, observe};
use crate::sites::Budget;
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::train::{Options, Progress, TrainError, train};

/// What may go wrong between the data folder and a finished model.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The full vocabulary.
    #[error(
        "cannot read {path}: {source}; expected the 30522-entry uncased WordPiece vocabulary, one piece per line"
    )]
    Vocabulary {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The sizes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The evaluation.
    #[error(transparent)]
    Plain(#[from] PlainError),
}

/// A finished model and what it was measured on.
pub struct Made {
    /// The model.
    pub model: Model,
    /// What it reached.
    pub scores: Scores,
    /// The development set, tokenised.
    pub dev: Vec<Example>,
    /// Exact run over the development set.
    pub dev_exact: Observation,
    /// Polynomial run over the development set.
    pub dev_polynomial: Observation,
    /// Polynomial run over the training set.
    pub train_polynomial: Observation,
}

/// The sizes, for a sequence length and a vocabulary.
pub fn config(length: usize, vocabulary: usize) -> Config {
    Config {
        layers: 2,
        width: 32,
        heads: 2,
        length,
        feed_forward: 32,
        head_rank: 0,
        head_hidden: 32,
        classes: 2,
        vocabulary,
        lora_rank: 0,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm: false,
        embedding_affine: false,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    }
}

/// The polynomials' degrees; every interval reaches 1.5 times as far as the training set does.
pub fn budget(site: Site) -> Budget {
    let degree = match site {
        Site::Kernel(0) | Site::Gate(_) | Site::Tanh => 15,
        _ => 7,
    };
    Budget { degree, squarings: 0, margin: 1.5 }
}

/// The bounds penalties pull towards.
pub fn penalties(config: &Config) -> Penalties {
    let mut penalties = Penalties::none(config);
    penalties.weight = 2.0;
    for site in Site::all(config) {
        let (low, high) = match site {
            Site::FirstNorm(_) | Site::SecondNorm(_) | Site::FinalNorm => (0.9, 1.5),
            Site::Kernel(_) => (-6.0, 0.0),
            Site::Gate(_) => (-1.5, 1.5),
            Site::Tanh => (-1.2, 1.2),
            Site::Normaliser(_) | Site::LossExp | Site::LossInverse | Site::Optimizer => continue,
        };
        penalties.set(site, low, high);
    }
    penalties
}

/// The training schedule.
pub fn options(seed: u64) -> Options {
    Options {
        exact_epochs: 6,
        polynomial_epochs: 2,
        batch: 32,
        learning_rate: 2e-3,
        optimizer: AdamW::default(),
        word_dropout: 0.45,
        seed,
    }
}

/// Word pieces that occur less often in the training set are not in the vocabulary.
pub const LEAST_OCCURRENCES: usize = 6;

/// Trains on SST-2. `data` holds `vocab.txt` and `glue/SST-2/{train,dev}.tsv`; `command` is recorded with the model.
pub fn make(
    data: &Path,
    length: usize,
    seed: u64,
    command: String,
    progress: &mut dyn FnMut(Progress),
) -> Result<Made, RecipeError> {
    let train_rows = Task::Sst2.read(&data.join("glue/SST-2/train.tsv"))?;
    let dev_rows = Task::Sst2.read(&data.join("glue/SST-2/dev.tsv"))?;
    let path = data.join("vocab.txt");
    let full = std::fs::read_to_string(&path).map_err(|source| RecipeError::Vocabulary { path, source })?;
    let texts = train_rows.iter().map(|row| row.sentence.as_str());
    let tokenizer = Tokenizer::trimmed(&full, texts, LEAST_OCCURRENCES)?;
    let config = config(length, tokenizer.vocabulary().len());
    config.validate()?;
    let train_set = tokenise(&tokenizer, &train_rows, length)?;
    let dev = tokenise(&tokenizer, &dev_rows, length)?;

    let trained = train(&config, &train_set, &options(seed), &penalties(&config), budget, progress)?;

    let (weights, table) = (&trained.parameters, Functions::Polynomial(&trained.approximations));
    let dev_exact = observe(&config, weights, &dev, Functions::Exact)?;
    let dev_polynomial = observe(&config, weights, &dev, table)?;
    let train_polynomial = observe(&config, weights, &train_set, table)?;
    let (worst_logit_difference, mean_logit_difference) = dev_exact.difference(&dev_polynomial);
    let scores = Scores {
        dev_accuracy_exact: dev_exact.accuracy(&dev),
        dev_accuracy_polynomial: dev_polynomial.accuracy(&dev),
        dev_sentences: dev.len(),
        dev_truncated: dev.iter().filter(|e| e.sequence.truncated).count(),
        worst_logit_difference,
        mean_logit_difference,
        largest_logit: dev_exact.logits.iter().flatten().fold(0.0, |m, y| m.max(y.abs())),
    };
    let training = Training { task: "SST-2".to_owned(), seed, command, reached: Reached::Scores(scores) };
    let (parameters, approximations) = (trained.parameters, trained.approximations);
    let model = Model { config, parameters, approximations, tokenizer, training };
    Ok(Made { model, scores, dev, dev_exact, dev_polynomial, train_polynomial })
}

/// Rows to examples.
pub fn tokenise(tokenizer: &Tokenizer, rows: &[Row], length: usize) -> Result<Vec<Example>, TokenizerError> {
    rows.iter()
        .map(|row| {
            let sequence = tokenizer.encode(&row.sentence, row.second.as_deref(), length)?;
            Ok(Example { sequence, label: row.label })
        })
        .collect()
}
