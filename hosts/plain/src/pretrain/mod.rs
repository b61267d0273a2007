//! Pre-training by masked language modelling: how `veil-tiny` comes to know English before it sees a task.
//!
//! The paper's recipe (PAPER.md, "Cramming"): 25 % of the pieces are hidden, the token embedding also predicts (tied
//! weights), AdamW with β = (0.9, 0.98) and a triangular schedule, the Gaussian kernel from the start. Ours to add:
//! * penalties from the first step keep the arguments of every non-linear site in the interval a polynomial of low degree
//!   can serve;
//! * token 0 predicts pieces of its sequence, hidden or not, because the head will read token 0 and nothing else.
//!
//! Gradients are summed over parts of a batch in a fixed order, so a run repeats itself on any number of threads. A run
//! is resumed from its checkpoint as if it had never stopped.

mod corpus;
mod network;
mod rows;
mod state;

pub use corpus::{MASK, Masking, segments, sequences, stream};
pub use network::{Outcome, Shares, probe, step};
pub use state::{Pretraining, Recipe, Report};

use std::path::PathBuf;

use veilformer::transformer::{Config, Site};

use crate::tokenizer::TokenizerError;

/// Why pre-training stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Too many pieces.
    #[error("the vocabulary has {pieces} pieces, at most 65535 can be pre-trained")]
    Vocabulary {
        /// Pieces given.
        pieces: usize,
    },
    /// Nothing to learn from.
    #[error("the corpus has {tokens} tokens: give a text of at least {least}")]
    Corpus {
        /// Tokens given.
        tokens: usize,
        /// One sequence.
        least: usize,
    },
    /// A checkpoint cannot be read or written.
    #[error("checkpoint {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A checkpoint is damaged, or another recipe's.
    #[error("checkpoint {path}: {what}; remove it to start again")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The loss is not a number.
    #[error("the loss is {loss} in step {step}: training diverged, use a smaller learning rate")]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// Its mean loss.
        loss: f64,
    },
}

/// Sequences, their lengths, and what must be predicted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// T tokens per sequence.
    pub tokens: Vec<u32>,
    /// Per sequence, how many are not padding.
    pub used: Vec<usize>,
    /// (row in `tokens`, piece) of every prediction.
    pub predictions: Vec<(usize, u32)>,
}

/// An interval, and how strongly arguments are pulled into it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Its lower end.
    pub low: f32,
    /// Its upper end.
    pub high: f32,
    /// An argument u adds ½·weight·dist(u, [low, high])², where one prediction adds its loss; see [`Shares`].
    pub weight: f32,
}

impl Bound {
    /// No bound.
    pub const NONE: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY, weight: 0.0 };

    /// The derivative of the penalty by the argument.
    pub fn slope(self, argument: f32) -> f32 {
        self.weight * (argument - argument.max(self.low).min(self.high))
    }
}

/// The bound of every site.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    config: Config,
    bounds: Vec<Bound>,
}

impl Bounds {
    /// Asks for the bound of every site that inference visits.
    pub fn new(config: &Config, bound: impl Fn(Site) -> Bound) -> Self {
        let mut bounds = vec![Bound::NONE; Site::count(config)];
        for site in Site::all(config) {
            bounds[site.index(config)] = bound(site);
        }
        Self { config: *config, bounds }
    }

    /// A site's bound.
    pub fn of(&self, site: Site) -> Bound {
        self.bounds[site.index(&self.config)]
    }
}
