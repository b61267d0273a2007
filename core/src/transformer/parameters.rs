//! Names of the weights and of the layer norms.

use super::{Config, Site};

/// The three projections LoRA adapts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Projection {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
}

/// A layer norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Norm {
    /// Of the embedding: computed by the client in the clear, always exact.
    Embedding,
    /// Before a layer's attention.
    First(usize),
    /// Before a layer's feed-forward.
    Second(usize),
    /// After the last layer.
    Final,
}

impl Norm {
    /// Where its 1/√x is approximated; `None` for the client's.
    pub fn site(self) -> Option<Site> {
        match self {
            Self::Embedding => None,
            Self::First(layer) => Some(Site::FirstNorm(layer)),
            Self::Second(layer) => Some(Site::SecondNorm(layer)),
            Self::Final => Some(Site::FinalNorm),
        }
    }
}

/// Rows and columns of a parameter. A linear map takes a row vector: y = x·W, rows = inputs, columns = outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Shape {
    /// Inputs (1 for gains, biases and scalars).
    pub rows: usize,
    /// Outputs.
    pub columns: usize,
}

impl Shape {
    /// Number of entries.
    pub fn len(self) -> usize {
        self.rows * self.columns
    }

    /// Whether there are none: the model has no such parameter.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A weight of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Parameter {
    /// One row per word piece; the client's.
    TokenEmbedding,
    /// The factor of the sinusoidal positions; the client's.
    PositionScale,
    /// The gain of a layer norm.
    Gain(Norm),
    /// The bias of a layer norm.
    Bias(Norm),
    /// W_Q, W_K or W_V, d → d.
    Attention(Projection, usize),
    /// LoRA's A, d → rank.
    LoraDown(Projection, usize),
    /// LoRA's B, rank → d.
    LoraUp(Projection, usize),
    /// W_O, d → d.
    Output(usize),
    /// First feed-forward matrix, d → 2f: the columns of a, then those of b.
    Expand(usize),
    /// Second feed-forward matrix, f → d.
    Contract(usize),
    /// The head's first matrix, d → rank (absent where the rank is 0).
    HeadDown,
    /// The head's matrix before tanh, rank → hidden, or d → hidden.
    HeadUp,
    /// The head's last matrix, hidden → classes.
    Classifier,
}

impl Parameter {
    /// Its shape in a model of these sizes; empty where the model has none.
    pub fn shape(self, config: &Config) -> Shape {
        let &Config { width, feed_forward, head_rank, head_hidden, classes, vocabulary, lora_rank, .. } =
            config;
        let (rows, columns) = match self {
            Self::TokenEmbedding => (vocabulary, width),
            Self::PositionScale => (1, 1),
            Self::Gain(norm) | Self::Bias(norm) => match norm {
                Norm::Embedding if !config.embedding_affine => (0, 0),
                Norm::First(layer) if !config.has_first_norm(layer) => (0, 0),
                _ => (1, width),
            },
            Self::Attention(..) | Self::Output(_) => (width, width),
            Self::LoraDown(p, _) | Self::LoraUp(p, _) if !config.lora_targets.includes(p) => (0, 0),
            Self::LoraDown(..) => (width, lora_rank),
            Self::LoraUp(..) => (lora_rank, width),
            Self::Expand(_) => (width, 2 * feed_forward),
            Self::Contract(_) => (feed_forward, width),
            Self::HeadDown => (width, head_rank),
            Self::HeadUp => (if head_rank == 0 { width } else { head_rank }, head_hidden),
            Self::Classifier => (head_hidden, classes),
        };
        Shape { rows, columns }
    }

    /// Whether weight decay applies: to matrices, not to gains, biases and the position's factor.
    pub fn decays(self) -> bool {
        !matches!(self, Self::Gain(_) | Self::Bias(_) | Self::PositionScale)
    }

    /// Every parameter a model of these sizes has, the client's first, then in the order of the program.
    pub fn all(config: &Config) -> impl Iterator<Item = Self> + use<> {
        use Projection::{Key, Query, Value};
        let config = *config;
        let client = [
            Self::TokenEmbedding,
            Self::PositionScale,
            Self::Gain(Norm::Embedding),
            Self::Bias(Norm::Embedding),
        ];
        let layers = (0..config.layers).flat_map(|l| {
            [
                Self::Gain(Norm::First(l)),
                Self::Bias(Norm::First(l)),
                Self::Attention(Query, l),
                Self::Attention(Key, l),
                Self::Attention(Value, l),
                Self::LoraDown(Query, l),
                Self::LoraUp(Query, l),
                Self::LoraDown(Key, l),
                Self::LoraUp(Key, l),
                Self::LoraDown(Value, l),
                Self::LoraUp(Value, l),
                Self::Output(l),
                Self::Gain(Norm::Second(l)),
                Self::Bias(Norm::Second(l)),
                Self::Expand(l),
                Self::Contract(l),
            ]
        });
        let head = [
            Self::Gain(Norm::Final),
            Self::Bias(Norm::Final),
            Self::HeadDown,
            Self::HeadUp,
            Self::Classifier,
        ];
        client.into_iter().chain(layers).chain(head).filter(move |p| !p.shape(&config).is_empty())
    }
}
