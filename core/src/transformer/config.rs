//! The sizes of a model: what a `config.json` says, without the weights.

use super::Projection;

/// The most encoder layers a model may have (bounds the tape, which lives on the stack).
pub const MAX_LAYERS: usize = 12;

/// What the head is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Loss {
    /// Softmax cross-entropy over two or more classes.
    CrossEntropy,
    /// ½(y − t)² summed over the outputs (STS-B).
    SquaredError,
}

impl Loss {
    /// The largest target, in size: 1 for a class, 8 for a score, of which STS-B's reach to 5.
    pub fn largest_target(self) -> f64 {
        match self {
            Self::CrossEntropy => 1.0,
            Self::SquaredError => 8.0,
        }
    }
}

/// What makes attention weights of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kernel {
    /// exp(−‖q − k‖²/(2√n)), not normalised (PAPER.md, eq. 2): the argument is never positive.
    #[default]
    Gaussian,
    /// exp(q·k/√n) over its sum: the baseline.
    Softmax,
}

/// A set of projections: those LoRA adapts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Targets {
    /// W_Q.
    pub query: bool,
    /// W_K.
    pub key: bool,
    /// W_V.
    pub value: bool,
}

impl Targets {
    /// All three, as in the paper.
    pub const ALL: Self = Self { query: true, key: true, value: true };

    /// Whether a projection is one of them.
    pub fn includes(self, projection: Projection) -> bool {
        match projection {
            Projection::Query => self.query,
            Projection::Key => self.key,
            Projection::Value => self.value,
        }
    }
}

/// The shape of an encoder and its head.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    /// Encoder layers, 1 to [`MAX_LAYERS`].
    pub layers: usize,
    /// Features per token, d.
    pub width: usize,
    /// Attention heads; divides the width.
    pub heads: usize,
    /// Tokens per sequence, padding included, T.
    pub length: usize,
    /// Width of each half of the gate, f: the layer goes d → 2f → f → d.
    pub feed_forward: usize,
    /// Rank of the head's first matrix, or 0 where d → hidden is a single matrix.
    pub head_rank: usize,
    /// Width of the head's tanh.
    pub head_hidden: usize,
    /// Outputs.
    pub classes: usize,
    /// Rows of the token embedding.
    pub vocabulary: usize,
    /// Rank of the LoRA factors, or 0 for none.
    pub lora_rank: usize,
    /// The projections that have LoRA factors, where the rank is not 0.
    pub lora_targets: Targets,
    /// What makes attention weights of queries and keys.
    pub kernel: Kernel,
    /// Whether layer 0 starts with its own layer norm. Without one it takes the normalised embedding as it comes,
    /// which saves its levels.
    pub first_norm: bool,
    /// Whether the embedding's layer norm has a gain and a bias. Without them the embedding has mean zero over its
    /// features, so the whole residual stream can be kept centred.
    pub embedding_affine: bool,
    /// Added to the variance in every layer norm.
    pub norm_epsilon: f64,
    /// What the head is trained on.
    pub loss: Loss,
}

/// Why a [`Config`] cannot be a model.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ConfigError {
    /// Zero layers, or more than [`MAX_LAYERS`].
    Layers(usize),
    /// Zero heads, or a width they do not divide.
    Heads {
        /// The width given.
        width: usize,
        /// The heads given.
        heads: usize,
    },
    /// One of the sizes that must be positive is zero.
    Empty,
    /// Cross-entropy needs two classes or more.
    Classes(usize),
    /// The norm's ε is negative or not finite.
    Epsilon(f64),
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Layers(n) => write!(f, "{n} layers given, 1 to {MAX_LAYERS} expected"),
            Self::Heads { width, heads } => write!(f, "{heads} heads do not divide a width of {width}"),
            Self::Empty => {
                f.write_str("length, feed_forward, head_hidden, classes and vocabulary must be positive")
            }
            Self::Classes(n) => write!(f, "{n} classes given, cross-entropy needs at least 2"),
            Self::Epsilon(e) => write!(f, "norm_epsilon is {e}, expected a finite number ≥ 0"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// Checks that the sizes make a model.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.layers == 0 || self.layers > MAX_LAYERS {
            return Err(ConfigError::Layers(self.layers));
        }
        if self.width == 0 || self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            return Err(ConfigError::Heads { width: self.width, heads: self.heads });
        }
        if [self.length, self.feed_forward, self.head_hidden, self.classes, self.vocabulary].contains(&0) {
            return Err(ConfigError::Empty);
        }
        if self.loss == Loss::CrossEntropy && self.classes < 2 {
            return Err(ConfigError::Classes(self.classes));
        }
        if !self.norm_epsilon.is_finite() || self.norm_epsilon < 0.0 {
            return Err(ConfigError::Epsilon(self.norm_epsilon));
        }
        Ok(())
    }

    /// Features per head, n.
    pub fn head_width(&self) -> usize {
        self.width.checked_div(self.heads).unwrap_or(0)
    }

    /// 1/(2√n): the Gaussian kernel is exp of minus this times the squared distance, softmax exp of twice this times
    /// the product.
    pub fn kernel_scale(&self) -> f64 {
        0.5 / libm::sqrt(self.head_width() as f64)
    }

    /// Whether this layer starts with a layer norm.
    pub fn has_first_norm(&self, layer: usize) -> bool {
        layer > 0 || self.first_norm
    }

    /// Whether this is the layer in which only token 0 still matters.
    pub fn is_last(&self, layer: usize) -> bool {
        layer + 1 == self.layers
    }
}
