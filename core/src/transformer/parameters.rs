//! Names: the weights, the layer norms and the places where a non-linear function is applied.

use super::Config;

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

/// A place where a non-linear function is applied, and so an entry in the model's table of approximations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Site {
    /// 1/√x of the variance before a layer's attention.
    FirstNorm(usize),
    /// exp of the scaled negative squared distances in a layer's attention.
    Kernel(usize),
    /// 1/√x of the variance before a layer's feed-forward.
    SecondNorm(usize),
    /// ReLU in a layer's gate.
    Gate(usize),
    /// 1/√x of the variance after the last layer.
    FinalNorm,
    /// tanh in the head.
    Tanh,
}

impl Site {
    /// How many entries the table of a model has (layer 0's first norm included, used or not).
    pub fn count(config: &Config) -> usize {
        4 * config.layers + 2
    }

    /// Position in the table: four per layer, in the order of the program, then the final norm and tanh.
    pub fn index(self, config: &Config) -> usize {
        match self {
            Self::FirstNorm(layer) => 4 * layer,
            Self::Kernel(layer) => 4 * layer + 1,
            Self::SecondNorm(layer) => 4 * layer + 2,
            Self::Gate(layer) => 4 * layer + 3,
            Self::FinalNorm => 4 * config.layers,
            Self::Tanh => 4 * config.layers + 1,
        }
    }

    /// The function applied here.
    pub fn function(self) -> crate::approx::Function {
        use crate::approx::Function;
        match self {
            Self::FirstNorm(_) | Self::SecondNorm(_) | Self::FinalNorm => Function::InverseSqrt,
            Self::Kernel(_) => Function::Exp,
            Self::Gate(_) => Function::Relu,
            Self::Tanh => Function::Tanh,
        }
    }

    /// The sites the program visits, in its order.
    pub fn all(config: &Config) -> impl Iterator<Item = Self> + use<> {
        let config = *config;
        (0..config.layers)
            .flat_map(move |layer| {
                [Self::FirstNorm(layer), Self::Kernel(layer), Self::SecondNorm(layer), Self::Gate(layer)]
                    .into_iter()
                    .skip(usize::from(!config.has_first_norm(layer)))
            })
            .chain([Self::FinalNorm, Self::Tanh])
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
